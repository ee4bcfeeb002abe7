"""A run killed with SIGKILL at any moment goes on exactly: every metric and weight of the unbroken run, bit for bit."""

from __future__ import annotations

import csv
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Outcome, Training

from vac_lightning.data.base import Batch
from vac_lightning.runs import Run
from vac_lightning.task import VACTask

WORDS = (
    "data.scenes={train: 90, val: 20, test: 16}",  # 12 batches, the last of 2
    "trainer={max_epochs: 3, log_every_n_steps: 5}",
    "transform=fs",
    "image_size=48",
    "small_sizes=[32]",
    "optimizer=adamw",
    "scheduler=one_cycle",
    "+callbacks.ema={_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.9}",
    "checkpoints.every_n_steps=3",
    "callbacks.heatmaps.every_n_epochs=1",
)
"""Every kind of state: momenta, a schedule by step, a moving average, a short batch, batch statistics."""


def finish(folder: Path, *words: str) -> None:
    training = Training(folder, *WORDS, *words)
    assert training.code() == 0, training.printed()


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what a clock measured."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v and k != "train/images_per_s"} for row in csv.DictReader(file)]


def same(a: object, b: object) -> bool:
    """Equality of nested checkpoints, tensors to the last bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, type(a)) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def check_equal(folder: Path, unbroken: Path) -> None:
    assert Run(folder).results()["metrics"] == Run(unbroken).results()["metrics"]
    assert rows(folder) == rows(unbroken)
    for name in ("last", "best"):
        a, b = (torch.load(Run(x).checkpoints / f"{name}.ckpt", weights_only=True) for x in (folder, unbroken))
        for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
            assert same(a[part], b[part]), (name, part)
        assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"])
    assert (folder / "predictions.npz").read_bytes() == (unbroken / "predictions.npz").read_bytes()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The run that was never broken: on so many processes, with these words; workers and savings change nothing."""
    made: dict[tuple, Path] = {}

    def run(processes: int, more: tuple[str, ...] = ()) -> Path:
        if (processes, more) not in made:
            made[processes, more] = folder = tmp_path_factory.mktemp("unbroken") / "run"
            finish(folder, f"trainer.devices={processes}", "trainer.accelerator=cpu", *more)
            assert Run(folder).results()["resumed_at_steps"] == []
        return made[processes, more]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "workers", "kills", "more"),
    [
        (1, 0, 3, ()),
        (1, 2, 3, ()),
        (2, 0, 3, ()),
        (1, 0, 2, ("trainer.accumulate_grad_batches=2", "+trainer.val_check_interval=5")),
    ],
)
def test_killed_at_random_moments_a_run_goes_on_exactly(
    tmp_path: Path, unbroken: Callable[..., Path], processes: int, workers: int, kills: int, more: tuple[str, ...]
) -> None:
    words = [f"num_workers={workers}", f"trainer.devices={processes}", "trainer.accelerator=cpu", *more]
    killed = tmp_path / "killed"
    moments = random.Random(f"{processes} {workers}")
    for _ in range(kills):
        training = Training(killed, *WORDS, *words)
        training.wait_for_checkpoint()  # before it, it imports and builds: there is nothing to lose
        time.sleep(moments.uniform(0, 2.5))
        training.kill(signal.SIGKILL)
        training.code()
        assert (killed / "checkpoints").is_dir(), training.printed()
        if Run(killed).finished:  # before the kill came
            check_equal(killed, unbroken(processes, more))
            shutil.rmtree(killed)
    finish(killed, *words)
    check_equal(killed, unbroken(processes, more))
    assert Run(killed).results()["resumed_at_steps"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "workers", "number", "everyone", "code"),
    [
        (1, 0, signal.SIGTERM, False, 143),
        (1, 2, signal.SIGINT, True, 130),
        (2, 1, signal.SIGTERM, False, 143),
    ],
)
def test_a_signal_saves_ends_in_time_with_its_code_and_the_run_goes_on_exactly(
    tmp_path: Path,
    unbroken: Callable[..., Path],
    processes: int,
    workers: int,
    number: signal.Signals,
    everyone: bool,
    code: int,
) -> None:
    """Sent to the first process alone, as a scheduler may, or to all of them, as a terminal does on Ctrl-C."""
    words = [f"num_workers={workers}", f"trainer.devices={processes}", "trainer.accelerator=cpu"]
    words += ["checkpoints.every_n_steps=null", "logger=wandb"]
    stopped = tmp_path / "stopped"
    training = Training(stopped, *WORDS, *words)
    # In the second epoch: the first one's checkpoint is there, and none follows by itself before its end.
    heatmaps = stopped / "heatmaps" / "epoch=000.png"
    training.wait_for(heatmaps.exists)
    time.sleep(1.0)
    asked = time.time()
    training.kill(number) if everyone else training.process.send_signal(number)
    assert training.code() == code, training.printed()
    assert time.time() - asked < 30
    assert f"stopped by {number.name}; what was done is kept" in training.printed()
    assert "Traceback" not in training.printed()
    assert "terminate called" not in training.printed()
    checkpoint = torch.load(stopped / "checkpoints" / "last.ckpt", weights_only=True)
    assert not (stopped / "results.json").exists()
    assert list((stopped / "wandb").glob("offline-run-*"))
    finish(stopped, *words)
    check_equal(stopped, unbroken(processes))
    assert Run(stopped).results()["resumed_at_steps"] == [checkpoint["global_step"]]
    names = {path.name.rpartition("-")[2] for path in (stopped / "wandb").glob("offline-run-*")}
    assert len(names) == 1  # one W&B run


@pytest.mark.slow
def test_a_validation_within_accumulated_gradients_is_no_place_to_go_on_from(
    smoke: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("transform=f", "trainer.accumulate_grad_batches=2", "+trainer.val_check_interval=1")
    assert smoke(*words, "experiment=whole").code == 0
    step = VACTask.training_step

    def broken(task: VACTask, batch: Batch, batch_idx: int) -> dict[str, Any]:
        if (task.current_epoch, batch_idx) == (1, 1):
            raise MemoryError
        return step(task, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(VACTask, "training_step", broken)
        assert smoke(*words, "experiment=broken").code == 1
    assert smoke(*words, "experiment=broken").code == 0
    whole, other = (Run(tmp_path / "runs" / name / "Tiny+ACf" / "seed=0") for name in ("whole", "broken"))
    assert other.results()["resumed_at_steps"] == [2]
    a, b = (torch.load(run.checkpoints / "last.ckpt", weights_only=True)["state_dict"] for run in (whole, other))
    assert same(a, b)
    assert rows(whole.path) == rows(other.path)
