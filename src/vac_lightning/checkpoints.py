"""Checkpoints that a run killed at any moment goes on from exactly: when they are written, and how they are read."""

from __future__ import annotations

__all__ = ["CheckpointFiles", "Checkpoints", "ResumePoint", "read_checkpoint", "resume_point"]

import logging
import math
import signal
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from vac_lightning.history import MetricsFile
from vac_lightning.runs import Run, config_difference, write_atomically
from vac_lightning.signals import Stopped, stop_requests

log = logging.getLogger(__name__)


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's plugin for files: each is written whole or not at all, and read as data.

    A checkpoint named last.ckpt is kept as previous.ckpt when the next one takes its place.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        previous = path.with_name("previous.ckpt") if path.name == "last.ckpt" else None
        write_atomically(path, lambda file: torch.save(checkpoint, file), previous)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))


class Checkpoints(pl.Callback):
    """Writes checkpoints/last.ckpt, from which a run goes on exactly, and checkpoints/best.ckpt.

    last.ckpt is written before every validation, after every epoch, every so many steps or minutes, and when a
    signal asks the run to end. Each time the trainer is between two steps, with the results of the one logged and
    nothing of the other begun; Lightning's own hooks for saving lie before a step's, or an epoch's, results are
    logged. best.ckpt is that of the highest value of `monitor`.

    Beside what Lightning saves a checkpoint has `run` (what it belongs to), `progress` (epoch, batches of it done)
    and `rows` (of metrics.csv).

    Args:
        run_dir: the run folder.
        identity: what a checkpoint must share with a run that goes on from it.
        every_n_steps: optimiser steps between two checkpoints; None for no such rule.
        every_n_minutes: minutes between two checkpoints; None for no such rule.
        monitor: the metric that chooses the best epoch.
    """

    def __init__(
        self,
        run_dir: Path | str,
        identity: Mapping[str, Any],
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
        monitor: str = "val/mAP",
    ) -> None:
        self.run = Run(Path(run_dir))
        self.identity = dict(identity)
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.monitor = monitor
        self.best = -math.inf
        self.resumed_at_steps: list[int] = []
        self._boundary: str | None = None
        self._saved_at = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "resumed_at_steps": self.resumed_at_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.resumed_at_steps = list(state_dict["resumed_at_steps"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()
        if trainer.global_step:
            self.resumed_at_steps.append(trainer.global_step)
        if self.best > -math.inf and not (self.run.checkpoints / "best.ckpt").is_file():
            log.warning("the best checkpoint so far is missing; the best epoch is chosen from here on")
            self.best = -math.inf
        stop_requests.install()
        stop_requests.deferred = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step:
            self._save(trainer, "epoch")
        if _agreed(trainer, stop_requests.asked is not None):
            raise Stopped(_signal())

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # Not within accumulated gradients, which are not saved, nor right after a validation inside the epoch, which
        # Lightning would take for one still to be run.
        validated = batch_idx % (trainer.val_check_batch or math.inf) == 0
        if validated or batch_idx % trainer.accumulate_grad_batches:
            return
        asked = _agreed(trainer, stop_requests.asked is not None)
        by_steps = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if asked or by_steps or self._by_time(trainer):
            self._save(trainer, "batch")
        if asked:
            raise Stopped(_signal())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop_requests.install()
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer, "validation")

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if _agreed(trainer, stop_requests.asked is not None):
            raise Stopped(_signal())  # saved when validation began

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        value = float(trainer.callback_metrics[self.monitor])
        if value > self.best or not (self.run.checkpoints / "best.ckpt").exists():
            self.best = max(value, self.best) if not math.isnan(value) else self.best
            trainer.save_checkpoint(self.run.checkpoints / "best.ckpt")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, "end")
        stop_requests.deferred = False

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop_requests.install()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        stop_requests.deferred = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["run"] = self.identity
        if self._boundary is None:
            return
        fit = checkpoint["loops"]["fit_loop"]
        between = self._boundary in ("epoch", "end")
        checkpoint["progress"] = {
            "epoch": trainer.current_epoch,
            "batches": 0 if between else fit["epoch_loop.batch_progress"]["current"]["completed"],
        }
        checkpoint["rows"] = sum(logger.rows for logger in trainer.loggers if isinstance(logger, MetricsFile))
        checkpoint["epoch"] -= between  # the epoch that the weights are of
        _between_steps(fit, self._boundary)

    def _save(self, trainer: pl.Trainer, boundary: str) -> None:
        self._boundary = boundary
        try:
            trainer.save_checkpoint(self.run.checkpoints / "last.ckpt")
        finally:
            self._boundary = None
        self._saved_at = time.monotonic()

    def _by_time(self, trainer: pl.Trainer) -> bool:
        if self.every_n_minutes is None:
            return False
        due = time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        return _agreed(trainer, due and trainer.is_global_zero)


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to go on from: its file, the epoch and the batches of it done, and the rows of metrics.csv."""

    path: Path
    epoch: int
    batches: int
    rows: int

    def belongs_to(self, run: Run) -> bool:
        return self.path.absolute().parent == run.checkpoints.absolute()

    def copy_to(self, run: Run) -> None:
        """Copy what the run needs of the folder that the checkpoint lies in: it, the best one, metrics.csv."""
        source = self.path.absolute().parent
        copies = {
            run.checkpoints / "best.ckpt": source / "best.ckpt",
            run.path / "metrics.csv": source.parent / "metrics.csv",
            run.checkpoints / "last.ckpt": self.path,
        }
        for target, original in copies.items():
            if original.is_file():
                write_atomically(target, lambda file, original=original: file.write(original.read_bytes()))  # type: ignore[misc]


def resume_point(run: Run, resume: str | bool | None, identity: Mapping[str, Any]) -> ResumePoint | None:
    """Where a run is to go on, or None where it is to start anew.

    A damaged checkpoint is passed over, with a warning, for the one before.

    Args:
        run: the run folder.
        resume: "auto" goes on from the run's own last checkpoint, where there is one of the same configuration and
            data; the path of a checkpoint or of a run folder from that one; False or None starts anew.
        identity: configuration (`config`, `config_hash`) and data (`data_fingerprint`) of the run.

    Raises:
        FileNotFoundError: the path names no checkpoint.
        ValueError: the checkpoint at the path is damaged, or of another configuration or other data.
    """
    if resume in (None, False):
        return None
    automatic = resume in ("auto", True)
    place = run.checkpoints if automatic else Path(str(resume)).expanduser()
    if not automatic and Run(place).checkpoints.is_dir():
        place = Run(place).checkpoints
    files = [place / "last.ckpt", place / "previous.ckpt"] if automatic or place.is_dir() else [place]
    for path in filter(Path.is_file, files):
        try:
            checkpoint = read_checkpoint(path)
            start = ResumePoint(path, **checkpoint["progress"], rows=checkpoint["rows"])
        except (KeyError, ValueError) as error:
            if path == files[-1] and not automatic:
                raise ValueError(f"resume={resume}: {error}") from error
            log.warning("%s; going back to the checkpoint before it, if there is one", error)
            continue
        if not (differences := _differences(checkpoint["run"], identity)):
            return start
        if not automatic:
            raise ValueError(
                f"resume={resume}: {path} is of another run ({differences}): say the words it was made with"
            )
        log.info("%s is of another configuration (%s): it is set aside, and the run starts anew", path, differences)
        return None
    if not automatic:
        raise FileNotFoundError(f"resume={resume}: there is no checkpoint at {files[0]}; or say resume=auto")
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents on the CPU, read as data: no code in it is run.

    Raises:
        ValueError: the file is damaged, not a checkpoint, or holds code instead of data.
    """
    try:
        # torch.load alone does not notice a flipped bit.
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise
    except (zipfile.BadZipFile, UnpicklingError, EOFError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} is damaged or not a checkpoint of vac train, and was not loaded ({reason})"
        ) from error


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    found = config_difference(old["config"], new["config"]) if old["config_hash"] != new["config_hash"] else []
    prints = (old["data_fingerprint"], new["data_fingerprint"])
    found += [f"other data in the {role} split" for role in prints[1] if prints[0].get(role) != prints[1][role]]
    return ", ".join(found)


def _agreed(trainer: pl.Trainer, wanted: bool) -> bool:
    """Whether any process wants it; all processes must ask at the same place."""
    return trainer.strategy.reduce_boolean_decision(wanted, all=False) if trainer.world_size > 1 else wanted


def _signal() -> int:
    """The signal that any process got; one that got none ends as the others do, by SIGTERM."""
    return stop_requests.asked or signal.SIGTERM


def _between_steps(fit: dict[str, Any], boundary: str) -> None:
    """Correct Lightning's progress counters to a point between two steps, validations or epochs.

    A hook runs in the middle of what it announces: the counters say "ready" for a batch or an epoch of which nothing
    has happened. Validation is marked as begun, which is how Lightning knows that it is still to be run.
    """
    counters = {"batch": "epoch_loop.batch_progress", "epoch": "epoch_progress"}
    if boundary in counters:
        for counts in (fit[counters[boundary]]["total"], fit[counters[boundary]]["current"]):
            counts["ready"] = counts["started"]
    if boundary == "validation":
        begun = fit["epoch_loop.val_loop.batch_progress"]
        begun["total"] = {"ready": 1, "completed": 0, "started": 1, "processed": 0}
        begun["current"] = dict.fromkeys(begun["total"], 0)
