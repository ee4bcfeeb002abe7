"""Several real processes (gloo) compute what one does: evaluation to the last bit, a training step to rounding."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMOKE
from torch import nn

from vac_lightning.networks.backbones import Backbone
from vac_lightning.runs import Run

PROGRAM = "import sys; from vac_lightning.cli import main; sys.exit(main())"


def without_batch_norm() -> Backbone:
    """A network without statistics over the batch, which each process would take of its own share."""
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
    )
    return Backbone(layers, channels=16)


def vac(*words: str) -> str:
    """Run `vac WORDS...` in a process of its own, which starts the others, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "VAC_ALLOW": "test_processes",
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "terminate called" not in done.stderr  # a further process that was aborted at its end
    return done.stdout


@pytest.mark.slow
def test_evaluation_is_the_same_to_the_last_bit_on_any_number_of_processes(tmp_path: Path) -> None:
    # 11 samples in batches of 3: 4 batches, the last short. 2 samples in one batch: fewer than processes.
    scenes = "data.scenes={train: 16, val: 2, test: 11}"
    words = ("transform=f", "batch_size=3", "trainer.max_epochs=1", "trainer.limit_test_batches=null")
    vac("train", *SMOKE, scenes, f"run_dir={tmp_path / 'run'}", *words)
    for split, samples, views in (("test", 11, "none"), ("val", 2, "fs")):
        printed, predictions = [], []
        for processes in (1, 2, 3):
            out = tmp_path / f"{split}{processes}"
            words = (f"split={split}", f"devices={processes}", "accelerator=cpu", f"out={out}", "protocol=all")
            lines = vac("evaluate", f"run={tmp_path / 'run'}", f"test_views={views}", *words).splitlines()
            printed.append([line for line in lines if "it/s" not in line])
            predictions.append((out / "predictions.npz").read_bytes())
        assert printed[0] == printed[1] == printed[2]
        assert any(f"{samples} samples" in line for line in printed[0])
        assert predictions[0] == predictions[1] == predictions[2]
        assert Run(out).predictions()["index"].tolist() == list(range(samples))
    own = Run(tmp_path / "run").predictions()
    for name, array in Run(tmp_path / "test1").predictions().items():
        np.testing.assert_array_equal(array, own[name])


def train_without_batch_norm(run_dir: Path, processes: int, *words: str) -> None:
    """An epoch of 20 samples in double precision; plain SGD makes every weight a sum of gradients."""
    vac(
        "train",
        *SMOKE,
        f"run_dir={run_dir}",
        "data.scenes={train: 20, val: 6, test: 6}",
        "~backbone",
        "+backbone={_target_: test_processes.without_batch_norm}",
        "+backbone_name=Plain",
        "transform=fs",
        "optimizer=sgd",
        "scheduler=constant",
        "optimizer.lr=0.05",
        "trainer={max_epochs: 1, limit_train_batches: null, precision: 64-true, log_every_n_steps: 1}",
        "trainer.accelerator=cpu",
        f"trainer.devices={processes}",
        *words,
    )


@pytest.mark.slow
def test_accumulated_steps_of_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    """Three steps, of 8, 8 and 4 samples at once, and in batches of 4 that two processes share, the last one alone."""
    train_without_batch_norm(tmp_path / "one", 1, "batch_size=8")
    train_without_batch_norm(tmp_path / "two", 2, "batch_size=4", "trainer.accumulate_grad_batches=2")
    a, b = (torch.load(tmp_path / x / "checkpoints" / "last.ckpt", weights_only=True) for x in ("one", "two"))
    assert a["global_step"] == b["global_step"] == 3
    for name, value in a["state_dict"].items():
        torch.testing.assert_close(b["state_dict"][name], value, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_step_of_several_processes_has_the_gradient_of_one(tmp_path: Path) -> None:
    """Over an epoch of four steps, the last of 2 samples for up to 3 processes.

    The losses logged are means over the same samples.
    """
    for processes in (1, 2, 3):
        train_without_batch_norm(tmp_path / str(processes), processes, "batch_size=6")
    one = Run(tmp_path / "1")
    for other in (Run(tmp_path / "2"), Run(tmp_path / "3")):
        a, b = (torch.load(run.checkpoints / "last.ckpt", weights_only=True)["state_dict"] for run in (one, other))
        moved = 0.0
        for name, value in a.items():
            torch.testing.assert_close(value, b[name], rtol=0, atol=1e-12)
            moved = max(moved, float(value.abs().max()))
        assert moved > 0
        rows, others = ([*csv.DictReader((run.path / "metrics.csv").open())] for run in (one, other))
        assert len(rows) == len(others)
        losses = {name for row in rows for name in row if row[name] and ("train/loss" in name or "step/loss" in name)}
        assert {"step/loss", "train/loss", "train/loss_a/f_large", "train/loss_c"} <= losses
        for row, its in zip(rows, others, strict=True):
            assert {name: row[name] for name in ("epoch", "step")} == {name: its[name] for name in ("epoch", "step")}
            for name in losses:
                assert (row[name] == "") == (its[name] == "")
                if row[name]:
                    assert float(row[name]) == pytest.approx(float(its[name]), rel=1e-6)
        # Written once: what rank 0 alone writes, and nothing of another rank.
        assert {p.name for p in one.path.iterdir()} == {p.name for p in other.path.iterdir()}
