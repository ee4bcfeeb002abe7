"""Checkpoints that a run killed at any moment goes on from exactly: when they are written, and how they are read."""

from __future__ import annotations

__all__ = ["CheckpointFiles", "Checkpoints", "ResumePoint", "read_checkpoint", "resume_point"]

import logging
import math
import signal
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from vac_lightning.configurations import config_difference
from vac_lightning.history import MetricsFile
from vac_lightning.runs import Run, write_atomically
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
    logged. best.ckpt is that of the highest val/mAP.

    Beside what Lightning saves a checkpoint has `run` (what it belongs to), `progress` (epoch, batches of it
    done, whether training is done) and `rows` (of metrics.csv).

    Args:
        run_dir: the run folder.
        identity: what a checkpoint must share with a run that goes on from it.
        every_n_steps: optimiser steps between two checkpoints; None for no such rule.
        every_n_minutes: minutes between two checkpoints; None for no such rule.
        start: where the run goes on, the same in every process; None where it starts anew.

    Raises:
        RuntimeError: processes of one run that would start at different places, and then wait for each other.
    """

    def __init__(
        self,
        run_dir: Path | str,
        identity: Mapping[str, Any],
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
        start: ResumePoint | None = None,
    ) -> None:
        self.run = Run(Path(run_dir))
        self.identity = dict(identity)
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.start = start
        self.best = -math.inf
        self.resumed_at_steps: list[int] = []
        self._boundary: str | None = None
        self._saved_at = 0.0
        self._just_validated = False

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "resumed_at_steps": self.resumed_at_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.resumed_at_steps = list(state_dict["resumed_at_steps"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        own = self.start and (self.start.epoch, self.start.batches)
        if stage == "fit" and (first := trainer.strategy.broadcast(own)) != own:
            raise RuntimeError(
                f"process {trainer.global_rank} would start at (epoch, batches) {own}, process 0 at {first}: give every"
                " process the same words and the same run folder"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.start is not None and self.start.done:
            trainer.should_stop = True  # training had ended, maybe before max_epochs

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
            raise Stopped(_signal(), agreed=True)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # Not within accumulated gradients, which are not saved, nor right after a validation inside the epoch, which
        # Lightning would take for one still to be run.
        just_validated, self._just_validated = self._just_validated, False
        if batch_idx == 0 or just_validated or batch_idx % trainer.accumulate_grad_batches:
            return
        asked = _agreed(trainer, stop_requests.asked is not None)
        by_steps = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if asked or by_steps or self._by_time(trainer):
            self._save(trainer, "batch")
        if asked:
            raise Stopped(_signal(), agreed=True)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop_requests.install()
        # Gradients that wait for further batches are not saved: such a validation is of the checkpoint before.
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not _accumulating(trainer):
            self._save(trainer, "validation")

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if _agreed(trainer, stop_requests.asked is not None):
            raise Stopped(_signal(), agreed=True)  # saved when validation began, or at the last step before

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._just_validated = True
        value = float(trainer.callback_metrics["val/mAP"])  # NaN where nothing is positive, and then never better
        better = value > self.best
        if better:
            self.best = value
        path = self.run.checkpoints / "best.ckpt"
        if trainer.strategy.broadcast(better or not path.exists()):
            trainer.save_checkpoint(path)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, "end")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop_requests.install()
        stop_requests.deferred = True

    def on_test_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if _agreed(trainer, stop_requests.asked is not None):
            raise Stopped(_signal(), agreed=True)  # saved when training ended

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
            "done": self._boundary == "end",
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
    """A checkpoint to go on from.

    path: its file. epoch, batches: the epoch, and how many batches of it are done. done: whether training had ended.
    rows: of metrics.csv at that point. precision: that the run computes in.
    """

    path: Path
    epoch: int
    batches: int
    done: bool
    rows: int
    precision: str | None = None

    def belongs_to(self, run: Run) -> bool:
        return self.path.absolute().parent == run.checkpoints.absolute()

    def copies(self) -> dict[str, bytes]:
        """What a run elsewhere needs to go on from here: files of its folder with their contents."""
        folder = self.path.absolute().parent
        files = {
            "checkpoints/best.ckpt": folder / "best.ckpt",
            "metrics.csv": folder.parent / "metrics.csv",
            "checkpoints/last.ckpt": self.path,
        }
        return {name: path.read_bytes() for name, path in files.items() if path.is_file()}


def resume_point(run: Run, resume: str | bool | None, identity: Mapping[str, Any]) -> ResumePoint | None:
    """Where a run is to go on, or None where it is to start anew.

    A damaged checkpoint is passed over, with a warning, for the one before.

    Args:
        run: the run folder.
        resume: "auto" goes on from the run's own last checkpoint, where there is one of the same configuration and
            data; the path of a last.ckpt or of a run folder from that one, unless the run's own is further; False or
            None starts anew.
        identity: configuration (`config`, `config_hash`) and data (`data_fingerprint`) of the run.

    Raises:
        ValueError: there is no checkpoint at the path, it is damaged, or of another configuration or other data.
    """
    if resume in (None, False):
        return None
    own = _own_point(run, identity)
    if resume in ("auto", True):
        return own
    place = Path(str(resume)).expanduser()
    place = Run(place).checkpoints if Run(place).checkpoints.is_dir() else place
    files = [place / "last.ckpt", place / "previous.ckpt"] if place.is_dir() else [place]
    found = next(_readable(files), None)
    if found is None:
        what = "is damaged" if files[0].exists() else "does not exist"
        raise ValueError(f"resume={resume}: {files[0]} {what}, or is no last.ckpt of vac train; or say resume=auto")
    start, belongs_to = found
    if differences := _differences(belongs_to, identity):
        raise ValueError(f"resume={resume}: {start.path} is of another run ({differences}): say its words")
    if own is not None and (own.done, own.epoch, own.batches) >= (start.done, start.epoch, start.batches):
        log.info("%s is further than %s", own.path, start.path)
        return own
    return start


def _own_point(run: Run, identity: Mapping[str, Any]) -> ResumePoint | None:
    found = next(_readable([run.checkpoints / "last.ckpt", run.checkpoints / "previous.ckpt"]), None)
    if found is None:
        return None
    start, belongs_to = found
    if differences := _differences(belongs_to, identity):
        place = f"epoch {start.epoch}, after {start.batches} batches"
        log.warning("%s (%s) is of another configuration (%s): it is set aside", start.path, place, differences)
        return None
    return start


def _readable(files: Sequence[Path]) -> Iterator[tuple[ResumePoint, dict[str, Any]]]:
    """Those of the files that can be gone on from, each with what it belongs to."""
    for path in filter(Path.is_file, files):
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            log.warning("%s; going back to the checkpoint before it, if there is one", error)
            continue
        if "progress" in checkpoint:
            belongs_to = checkpoint["run"]
            precision = belongs_to.get("precision")
            yield ResumePoint(path, **checkpoint["progress"], rows=checkpoint["rows"], precision=precision), belongs_to


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


def _accumulating(trainer: pl.Trainer) -> bool:
    """Whether there are gradients of batches that no step has been made with yet."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return bool(progress.current.ready % trainer.accumulate_grad_batches) and not progress.is_last_batch


def _between_steps(fit: dict[str, Any], boundary: str) -> None:
    """Correct Lightning's progress counters (as of 2.6) to a point between two steps, validations or epochs.

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
