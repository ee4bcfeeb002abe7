"""Our training as `vac train` has it, on batches in memory: composed configuration, task, Trainer, callbacks, log."""

from __future__ import annotations

__all__ = ["Turns", "batch", "composed", "fit", "task"]

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import pytorch_lightning as pl
import torch
from measuring import DEVICE, synchronise
from omegaconf import DictConfig
from pytorch_lightning.callbacks import LearningRateMonitor
from torch import Tensor

from vac_lightning import hardware
from vac_lightning.callbacks import StatusWriter, Throughput
from vac_lightning.checkpoints import CheckpointFiles
from vac_lightning.commands import app, assembly, job
from vac_lightning.commands.composition import composer
from vac_lightning.commands.targets import instantiate
from vac_lightning.data.base import Batch
from vac_lightning.history import MetricsFile
from vac_lightning.runs import Run
from vac_lightning.status import StatusFile
from vac_lightning.task import VACTask


class Turns:
    """A training loader that hands over one batch again and again, and between two lets rivals take their turn.

    The order turns round by round, and the first `warmup` rounds are not counted.

    Args:
        data: the batch.
        rivals: name -> its step.
        rounds: to be counted at least.
        seconds: rounds go on as long as another one fits in so many, warming up included.
        warmup: rounds that are not counted.
        counting: called once, when warming up is over.

    times: seconds by name, one a round; "ours" is from handing a batch over to being asked for the next.
    """

    def __init__(
        self,
        data: Batch,
        rivals: Mapping[str, Callable[[], object]],
        rounds: int,
        seconds: float = 0.0,
        warmup: int = 1,
        counting: Callable[[], object] = lambda: None,
    ) -> None:
        self.data = data
        self.rivals = dict(rivals)
        self.rounds = rounds
        self.seconds = seconds
        self.warmup = warmup
        self.counting = counting
        self.times: dict[str, list[float]] = {name: [] for name in ("ours", *rivals)}

    def __len__(self) -> int:
        return 10**9  # a loader without a length is asked for a batch ahead; this one ends when its rounds are over

    def __iter__(self) -> Iterator[Batch]:
        names = list(self.times)
        began = last = time.perf_counter()
        for number in count():
            now = time.perf_counter()
            if number >= self.warmup + self.rounds and now - began + now - last > self.seconds:
                return
            last = now
            if number == self.warmup:
                self.counting()
            first = number % len(names)
            for name in names[first:] + names[:first]:
                synchronise()
                start = time.perf_counter()
                if name == "ours":
                    yield self.data
                else:
                    self.rivals[name]()
                synchronise()
                if number >= self.warmup:
                    self.times[name].append(time.perf_counter() - start)


def composed(*words: str) -> DictConfig:
    """The configuration that `vac train WORDS...` would run on this device."""
    job.prepare_process()
    with composer("train", None) as compose:
        config = compose(words)
    if config.trainer.precision == "auto":
        config.trainer.precision = hardware.precision(DEVICE.type)
    return config


def task(config: DictConfig, labels: int) -> VACTask:
    """The task of a configuration, for so many labels; memory is reused as in a run of it."""
    if DEVICE.type == "cpu":
        hardware.reuse_memory()
    return assembly.task(config, [str(j) for j in range(labels)], torch.full((labels,), 0.3))


def batch(size: int, sides: Sequence[int], labels: int) -> Batch:
    """Noise as a data module hands it over: uint8 images of every side, targets, index; on the device."""
    generator = torch.Generator().manual_seed(0)
    images: list[Tensor] = [
        torch.randint(0, 256, (size, 3, side, side), generator=generator, dtype=torch.uint8).to(DEVICE)
        for side in sides
    ]
    targets = torch.randint(0, 2, (size, labels), generator=generator, dtype=torch.int8)
    return Batch(images[0] if len(images) == 1 else images, targets.to(DEVICE), torch.arange(size, device=DEVICE))


def fit(config: DictConfig, network: VACTask, loader: Turns) -> None:
    """Train on a loader with all that happens at every step of a run; metrics.csv gets a row at every step too."""
    app.quieten()
    warnings.filterwarnings("ignore", "You defined a `validation_step`")  # there is nothing to validate on
    with tempfile.TemporaryDirectory() as folder:
        status = StatusFile(Run(Path(folder)))
        status.begin(0, 1)
        trainer: pl.Trainer = instantiate(
            config.trainer,
            "trainer",
            callbacks=[Throughput(), StatusWriter(status), LearningRateMonitor("epoch")],
            logger=MetricsFile(Path(folder, "metrics.csv")),
            plugins=[CheckpointFiles()],
            max_epochs=1,
            log_every_n_steps=1,
            enable_progress_bar=False,
            limit_val_batches=0,
        )
        trainer.fit(network, loader)
