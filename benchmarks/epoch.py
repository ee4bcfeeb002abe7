"""An epoch of `vac train` against its steps alone: what loading, logging, checkpoints and validation add.

The real command runs in a process of its own, on the embedded shapes at their defaults, and on generated photographs
in WIDER Attribute's layout with its cache filled (the tiny backbone at 128 pixels, f, split as in wider_clean, where
there is a validation sample for about four training samples; a large backbone's checkpoints would weigh on an epoch of
20 steps as they do not on one of 1,400). W&B is off; metrics.csv, checkpoints and heatmap panels are on.

Its rival takes turns with it in the same process: before an epoch begins, a copy of the task takes steps on every
third of the same batches from memory (objective, backward, optimiser, same precision, nothing else), and classifies
every third of the validation batches from memory (the network's logits alone); an epoch is three times that. Two ratios
of medians over epochs: the steps' time to the epoch's, in which validation is all overhead; and steps and bare
validation to the epoch's. The first epoch, which reads and draws all data, is not counted; panels are drawn in every
fifth and the last alone, which medians leave out.

    python benchmarks/epoch.py [--epochs 3] [--photographs 180] [--sets shapes wider]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from measuring import DEVICE, Result, medians, report, synchronise
from torch import Tensor

from vac_lightning.data.base import Batch
from vac_lightning.task import VACTask

LEAST = 0.93
NAMES = {"shapes": "shapes", "wider": "cached photographs like WIDER's"}
SHARE = 3
"""The rival takes every third batch."""
QUIET = ("logger=csv", "attention=null", "trainer.enable_progress_bar=false", "callbacks.progress=null")
SETS = {
    "shapes": ("data=shapes", "data.scenes={train: 1500, val: 500, test: 32}"),
    "wider": (
        "data=wider_clean",
        "data.cache=true",
        "backbone=tiny",
        "transform=f",
        "image_size=128",
        "small_sizes=[96]",
        "trainer.limit_test_batches=1",
    ),
}


class Alternation(pl.Callback):
    """Times each epoch, and before it the steps and the validation of a copy of the task from memory.

    Args:
        path: where the times go, as JSON: "epoch", "steps", "validation" -> seconds by epoch.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.times: dict[str, list[float]] = {"epoch": [], "steps": [], "validation": []}
        self._began: float | None = None
        self._rival: Rival | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, VACTask)
        self._end()
        self._rival = self._rival or Rival(trainer, pl_module)
        self.times["steps"].append(self._rival.training_seconds())
        self.times["validation"].append(self._rival.validation_seconds())
        pl_module.train()
        self._began = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end()
        self.path.write_text(json.dumps(self.times))

    def _end(self) -> None:
        """The epoch before, where there was one, is over: saved, validated and logged."""
        synchronise()
        if self._began is not None:
            self.times["epoch"].append(time.perf_counter() - self._began)


class Rival:
    """Training steps and the classification of validation images, with everything in memory."""

    def __init__(self, trainer: pl.Trainer, task: VACTask) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        # The trainer, which the task knows, is not to be copied.
        self.task = copy.deepcopy(task, {id(trainer): None, id(task._fabric): None})
        self.optimizer = task.make_optimizer(self.task.network.parameters())
        self.autocast = "bf16" in str(trainer.precision)
        self.batches = {
            role: [_on_device(batch) for batch in loader]
            for role, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader()))
        }

    def training_seconds(self) -> float:
        """An epoch's steps."""
        self.task.train()
        return self._scaled("train", self._step)

    @torch.no_grad()
    def validation_seconds(self) -> float:
        """The logits of the validation split."""
        self.task.eval()
        return self._scaled("val", self._classify)

    def _scaled(self, role: str, work: Callable[[Batch], object]) -> float:
        batches = self.batches[role][::SHARE]
        synchronise()
        start = time.perf_counter()
        for batch in batches:
            work(batch)
        synchronise()
        seconds = time.perf_counter() - start
        return seconds * sum(map(_samples, self.batches[role])) / sum(map(_samples, batches))

    def _step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.autocast):
            loss = self.task.objective(batch, self.task.plan(0, 0))["loss"]
        loss.backward()
        self.optimizer.step()

    def _classify(self, batch: Batch) -> None:
        images = batch.images if isinstance(batch.images, Tensor) else batch.images[0]
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.autocast):
            self.task.network(self.task.normalise(images), heatmaps=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3, help="that are counted")
    parser.add_argument("--photographs", type=int, default=180, help="of the set like WIDER, 40 %% of them to train on")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in words.sets:
            choices = SETS[name]
            if name == "wider":
                from doctor import generate

                generate(Path(folder, "wider"), words.photographs, distinct=30)
                choices = (*choices, f"data.root={folder}/wider")
            times = measured([*choices, f"trainer.max_epochs={words.epochs + 1}"], Path(folder, f"{name}-run"))
            report(compared(NAMES[name], times))


def measured(words: Sequence[str], folder: Path) -> dict[str, list[float]]:
    """Times of the epochs of a run but the first."""
    folder.mkdir(exist_ok=True)
    kept = folder / "times.json"
    own = [f"run_dir={folder / 'run'}", f"+callbacks.turns={{_target_: epoch.Alternation, path: '{kept}'}}"]
    environment = {**os.environ, "VAC_ALLOW": "epoch", "VAC_CACHE": str(folder / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.getenv("PYTHONPATH")]))
    program = "import sys; from vac_lightning.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", *QUIET, *words, *own], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    times: dict[str, list[float]] = json.loads(kept.read_text())
    return {name: values[1:] for name, values in times.items()}


def compared(name: str, times: dict[str, list[float]]) -> list[Result]:
    """The whole epoch against steps with bare validation, and against steps alone."""
    each = ", ".join(f"{seconds:.2f}" for seconds in times["epoch"])
    print(f"{name}: epochs of {each} s")
    found = medians(times)
    epoch, steps, validation = (found[part] for part in ("epoch", "steps", "validation"))
    ours = f"{epoch:.2f} s"
    return [
        Result(
            f"epoch of vac train, {name}, against its steps and bare validation from memory",
            ours,
            f"{steps + validation:.2f} s",
            (steps + validation) / epoch,
            least=LEAST,
        ),
        Result(
            f"epoch of vac train, {name}, against its steps alone", ours, f"{steps:.2f} s", steps / epoch, least=LEAST
        ),
    ]


def _samples(batch: Batch) -> int:
    return len(batch.index)


def _on_device(batch: Batch) -> Batch:
    images = batch.images.to(DEVICE) if isinstance(batch.images, Tensor) else [x.to(DEVICE) for x in batch.images]
    return Batch(images, batch.targets.to(DEVICE), batch.index.to(DEVICE))


if __name__ == "__main__":
    main()
