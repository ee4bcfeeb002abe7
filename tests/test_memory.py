"""Out of memory: one line that says what was asked for and which words would help."""

from __future__ import annotations

import errno
import os
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Training, Vac
from omegaconf import OmegaConf

from vac_lightning.commands import memory
from vac_lightning.data.base import Batch
from vac_lightning.networks.backbones import Backbone, tiny
from vac_lightning.networks.cam import CAMNetwork
from vac_lightning.runs import Run
from vac_lightning.task import VACTask

CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 3 MiB is free."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    " 1073741824 bytes. Error code 12 (Cannot allocate memory)"
)


def test_every_kind_of_refusal_is_known_and_nothing_else() -> None:
    assert memory.refused(torch.OutOfMemoryError(CUDA)) == "20.00 MiB more could not be had of the GPU's 79.11 GiB"
    assert memory.refused(RuntimeError(CPU)) == "1024 MiB more could not be had"
    numpy = MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,) and data type float64")
    assert memory.refused(numpy) == "7.45 GiB more could not be had"
    for error in (MemoryError(), OSError(errno.ENOMEM, "no"), RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED")):
        assert memory.refused(error) == "no more could be had"
    for error in (RuntimeError("mat1 and mat2"), OSError(errno.ENOSPC, "no room"), ValueError("can't allocate memory")):
        assert memory.refused(error) is None


def test_the_words_that_would_help_are_three_and_not_on_already() -> None:
    network = CAMNetwork(tiny(), num_labels=3)
    words = {"batch_size": 48, "image_size": 224, "small_sizes": [192], "transform": "fs"}
    words["activation_checkpointing"] = False

    def said(times: int = 1, processes: int = 1, precision: str = "32-true", **changes: object) -> list[str]:
        trainer = SimpleNamespace(accumulate_grad_batches=times, world_size=processes, precision=precision)
        told = memory.of_training(OmegaConf.create({**words, **changes}), trainer, network)  # type: ignore[arg-type]
        return [line.partition(" (")[0] for line in told]

    batch = "batch_size=24 trainer.accumulate_grad_batches=2"
    ours, bf16 = "activation_checkpointing=true", "trainer.precision=bf16-mixed"
    assert said() == [batch, ours, bf16]
    assert said(activation_checkpointing=True) == [batch, bf16, "image_size=192 'small_sizes=[160]'"]
    assert said(precision="bf16-mixed", small_sizes=[160]) == [batch, ours, "image_size=192"]
    assert said(precision="16-true", transform="f", image_size=64) == [batch, ours, "image_size=32"]
    assert said(batch_size=1)[0] == ours
    assert said(batch_size=15)[0] == "batch_size=5 trainer.accumulate_grad_batches=3"
    assert said(batch_size=12, times=4, processes=4)[0] == "batch_size=4 trainer.accumulate_grad_batches=12"
    assert all(len(said(batch_size=size)) == 3 for size in (1, 2, 7))


def confined(mebibytes: int) -> Backbone:
    """The tiny backbone, in a process that gets no more memory than it has and this much."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    return tiny()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_without_memory_ends_with_the_words_that_would_help(tmp_path: Path) -> None:
    training = Training(
        tmp_path / "run",
        "data.scenes={train: 400, val: 8, test: 8}",
        "~backbone",
        "+backbone={_target_: test_memory.confined, mebibytes: 300}",
        "+backbone_name=Confined",
        "transform=fs",
        "batch_size=400",
        "attention=null",
        "trainer.accelerator=cpu",
    )
    assert training.code() == 1, training.printed()
    lines = [line for line in training.printed().splitlines() if line.startswith("vac train:")]
    assert len(lines) == 1 and "Traceback" not in training.printed(), training.printed()
    assert lines[0].startswith("vac train: out of memory: "), lines
    assert " MiB more could not be had; what helps: batch_size=200 trainer.accumulate_grad_batches=2 (" in lines[0]
    assert "or activation_checkpointing=true (" in lines[0]
    assert lines[0].endswith("or trainer.precision=bf16-mixed")


@pytest.mark.slow
def test_an_evaluation_without_memory_says_the_batch_that_would_fit(
    smoke: Vac, vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert smoke("transform=none", "data.scenes={train: 8, val: 8, test: 64}", "attention=null").code == 0
    (run,) = (path.parent for path in tmp_path.rglob("results.json"))

    def refuse(*_: object, **__: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(CAMNetwork, "forward", refuse)
    outcome = vac("evaluate", str(run), "batch_size=64", "accelerator=cpu")
    assert outcome.code == 1
    expected = "vac evaluate: out of memory: 1099511627776 MiB more could not be had; what helps: batch_size=32"
    assert outcome.err.startswith(expected), outcome.err


@pytest.mark.slow
def test_a_broken_run_goes_on_with_activation_checkpointing_exactly(
    smoke: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the line above says: the word is not of the result."""
    assert smoke("transform=fs", "experiment=whole").code == 0
    step = VACTask.training_step

    def broken(task: VACTask, batch: Batch, batch_idx: int) -> dict[str, Any]:
        if (task.current_epoch, batch_idx) == (1, 1):
            raise MemoryError
        return step(task, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(VACTask, "training_step", broken)
        outcome = smoke("transform=fs", "experiment=broken")
    assert outcome.code == 1
    assert outcome.err.startswith("vac train: out of memory: no more could be had; what helps: batch_size=4 ")
    assert smoke("transform=fs", "experiment=broken", "activation_checkpointing=true").code == 0
    whole, broken_off = (Run(tmp_path / "runs" / name / "Tiny+ACfs" / "seed=0") for name in ("whole", "broken"))
    assert broken_off.results()["resumed_at_steps"] == [3]
    assert broken_off.results()["metrics"] == whole.results()["metrics"]
    a, b = (torch.load(run.checkpoints / "last.ckpt", weights_only=True) for run in (whole, broken_off))
    assert all(torch.equal(value, b["state_dict"][name]) for name, value in a["state_dict"].items())
