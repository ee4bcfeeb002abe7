"""A run killed with SIGKILL at any moment goes on exactly: every metric and weight of the unbroken run, bit for bit."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import SMOKE

from vac_lightning.runs import Run

EMA = "{_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.9}"
WORDS = (
    *SMOKE,
    "data.scenes={train: 90, val: 20, test: 16}",  # 12 batches, the last of 2
    "trainer={max_epochs: 3, limit_train_batches: null, limit_val_batches: null, limit_test_batches: null}",
    "trainer.log_every_n_steps=5",
    "transform=fs",
    "image_size=48",
    "small_sizes=[32]",
    "optimizer=adamw",
    "scheduler=one_cycle",
    f"+callbacks.ema={EMA}",
    "checkpoints.every_n_steps=3",
    "callbacks.heatmaps.every_n_epochs=1",
)
"""Every kind of state: momenta, a schedule by step, a moving average, a short batch, batch statistics."""

TIMED = ("train/images_per_s",)


def start(folder: Path, *words: str) -> subprocess.Popen:
    """`vac train` in a session of its own, so that all its processes can be killed."""
    program = "import sys; from vac_lightning.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, "train", *WORDS, f"run_dir={folder}", *words],
        start_new_session=True,
        stdout=(folder.parent / f"{folder.name}.log").open("ab"),
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(folder: Path, *words: str) -> None:
    process = start(folder, *words)
    assert process.wait(240) == 0, log(folder)


def log(folder: Path) -> str:
    return (folder.parent / f"{folder.name}.log").read_text()[-3000:]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v and k not in TIMED} for row in csv.DictReader(file)]


def same(a: object, b: object) -> bool:
    """Equality of nested checkpoints, tensors to the last bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    return a == b


def check_equal(folder: Path, unbroken: Path) -> None:
    one, other = Run(folder).results(), Run(unbroken).results()
    assert one["metrics"] == other["metrics"]
    assert rows(folder) == rows(unbroken)
    for name in ("last", "best"):
        a, b = (torch.load(Run(x).checkpoints / f"{name}.ckpt", weights_only=True) for x in (folder, unbroken))
        for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
            assert same(a[part], b[part]), (name, part)
        assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"])
    assert (folder / "predictions.npz").read_bytes() == (unbroken / "predictions.npz").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "workers", "kills"), [(1, 0, 4), (1, 2, 3), (2, 0, 3), (2, 1, 3)])
def test_killed_at_random_moments_a_run_goes_on_exactly(
    tmp_path: Path, processes: int, workers: int, kills: int
) -> None:
    words = [f"num_workers={workers}", f"trainer.devices={processes}", "trainer.accelerator=cpu"]
    words += ["trainer.strategy=ddp"] if processes > 1 else []
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    finish(unbroken, *words)
    moments = random.Random(f"{processes} {workers}")
    last = killed / "checkpoints" / "last.ckpt"
    for _ in range(kills):
        began = time.time()
        process = start(killed, *words)
        while process.poll() is None and not (last.exists() and last.stat().st_mtime > began):
            time.sleep(0.01)  # importing, building: nothing to lose yet
        time.sleep(moments.uniform(0, 2.5))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert last.exists(), log(killed)
        if Run(killed).finished:  # before the kill came
            check_equal(killed, unbroken)
            shutil.rmtree(killed)
    finish(killed, *words)
    check_equal(killed, unbroken)
    assert Run(unbroken).results()["resumed_at_steps"] == []
