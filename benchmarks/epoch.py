"""An epoch of `vac train` against its steps alone: what loading, logging, checkpoints and validation add.

The real command runs in a process of its own, on the embedded shapes at their defaults, and on generated photographs
in WIDER Attribute's layout with its cache filled (r18 at 128 pixels, f, split as in wider_clean, where there is a
validation sample for about four training samples). W&B is off; metrics.csv, checkpoints and heatmap panels are on.

Its rival takes turns with it in the same process: before an epoch begins, a copy of the task takes as many steps on
the same batches from memory (objective, backward, optimiser, same precision, nothing else), and classifies the
validation batches from memory (the network's logits alone). Two ratios of medians over epochs: the steps' time to the
epoch's, in which validation is all overhead; and steps and bare validation to the epoch's. The first epoch, which
reads and draws all data, is not counted; panels are drawn in every fifth and the last alone, which medians leave out.

    python benchmarks/epoch.py [--epochs 4] [--photographs 230]
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from measuring import DEVICE, Result, medians, report, synchronise
from torch import Tensor

from vac_lightning.data.base import Batch
from vac_lightning.task import VACTask

LEAST = 0.93
QUIET = ("logger=csv", "attention=null", "trainer.enable_progress_bar=false", "callbacks.progress=null")
SETS = {
    "shapes": ("data=shapes", "data.scenes={train: 1500, val: 500, test: 32}"),
    "cached WIDER-like photographs": (
        "data=wider_clean",
        "data.cache=true",
        "backbone=r18",
        "backbone.weights=null",
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
        synchronise()
        if self._began is not None:
            self.times["epoch"].append(time.perf_counter() - self._began)
        self._rival = self._rival or Rival(trainer, pl_module)
        self.times["steps"].append(_seconds(self._rival.train))
        self.times["validation"].append(_seconds(self._rival.validate))
        pl_module.train()
        self._began = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.path.write_text(json.dumps(self.times))


class Rival:
    """Training steps and the classification of validation images, with everything in memory."""

    def __init__(self, trainer: pl.Trainer, task: VACTask) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        # The trainer, which the task knows, is not to be copied.
        self.task = copy.deepcopy(task, {id(trainer): None, id(task._fabric): None})
        self.optimizer = task.make_optimizer(self.task.network.parameters())
        self.autocast = "bf16" in str(trainer.precision)
        self.training, self.validation = (
            [_on_device(batch) for batch in loader] for loader in (data.train_dataloader(), data.val_dataloader())
        )

    def train(self) -> None:
        self.task.train()
        for number, batch in enumerate(self.training):
            self.optimizer.zero_grad()
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.autocast):
                loss = self.task.objective(batch, self.task.plan(0, number))["loss"]
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def validate(self) -> None:
        self.task.eval()
        for batch in self.validation:
            images = batch.images if isinstance(batch.images, Tensor) else batch.images[0]
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.autocast):
                self.task.network(self.task.normalise(images), heatmaps=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4, help="that are counted")
    parser.add_argument("--photographs", type=int, default=230, help="of the set like WIDER, 40 %% of them to train on")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, choices in SETS.items():
            if "WIDER" in name:
                from doctor import generate

                generate(Path(folder, "wider"), words.photographs, distinct=30)
                choices = (*choices, f"data.root={folder}/wider")
            times = measured([*choices, f"trainer.max_epochs={words.epochs + 2}"], Path(folder, name.split()[0]))
            report(compared(name, times))


def measured(words: Sequence[str], folder: Path) -> dict[str, list[float]]:
    """Times of the epochs of a run but the first and the last."""
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
    # The last epoch has no successor at whose beginning it would be timed.
    return {name: values[1 : len(times["epoch"])] for name, values in times.items()}


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
        Result(f"epoch of vac train, {name}, against its steps alone", ours, f"{steps:.2f} s", steps / epoch),
    ]


def _seconds(run: Any) -> float:
    start = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - start


def _on_device(batch: Batch) -> Batch:
    images = batch.images.to(DEVICE) if isinstance(batch.images, Tensor) else [x.to(DEVICE) for x in batch.images]
    return Batch(images, batch.targets.to(DEVICE), batch.index.to(DEVICE))


if __name__ == "__main__":
    main()
