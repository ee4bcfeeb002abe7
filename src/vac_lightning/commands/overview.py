"""The overview of a sweep: the state of every job, how far it is, and how long it will take."""

from __future__ import annotations

__all__ = ["JobState", "job_state", "lines", "seconds_left", "summary", "table"]

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from vac_lightning.commands.planning import Job
from vac_lightning.names import shown
from vac_lightning.runs import Run
from vac_lightning.status import read_status

State = Literal["done", "running", "waiting", "stopped", "failed"]


@dataclass(frozen=True)
class JobState:
    """How far a job is.

    epoch: how many are finished. mAP: in percent, of the test split where done, else of validation so far.
    seconds_per_epoch: as measured; None where none is finished. left: seconds the job will take; None if not known.
    """

    job: Job
    state: State
    epoch: int = 0
    mAP: float | None = None
    seconds_per_epoch: float | None = None
    left: float | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        return f"{self.job.row} seed={self.job.seed}"


def job_state(job: Job) -> JobState:
    """What the job's run folder says of it."""
    if job.error is not None:
        return JobState(job, "failed", error=job.error)
    if job.run.finished:
        return _finished(job, _results(job.run.path, (job.run.path / "results.json").stat().st_mtime_ns))
    status = read_status(job.run)
    if status is None:
        return JobState(job, "stopped" if (job.run.checkpoints / "last.ckpt").is_file() else "waiting")
    pace, left = status.seconds_per_epoch, None
    if pace is not None:
        since = time.time() - status.ended if status.state == "running" else 0.0
        left = max(0.0, (job.epochs - status.epoch) * pace - since)
    return JobState(job, status.state, status.epoch, status.val_mAP, pace, left, status.error)


def seconds_left(states: Sequence[JobState]) -> float | None:
    """How long all jobs will take at the pace so far, with as many at a time as run now; None if not known yet.

    A job that has not begun is taken to go as fast as those of its row, or else as all that are known do.
    """
    paces = [(state.job.row, state.seconds_per_epoch) for state in states]
    known = [pace for _, pace in paces if pace is not None]
    waiting = [state for state in states if state.state in ("running", "waiting", "stopped")]
    if not known:
        return None if waiting else 0.0
    total = 0.0
    for state in waiting:
        of_row = [pace for row, pace in paces if row == state.job.row and pace is not None] or known
        guess = (state.job.epochs - state.epoch) * sum(of_row) / len(of_row)
        total += guess if state.left is None else state.left
    at_a_time = sum(state.state == "running" for state in states)
    return total / max(1, at_a_time)


def table(title: str, states: Sequence[JobState]) -> Table:
    """A line a row, a column a seed."""
    seeds = sorted({state.job.seed for state in states})
    cells = {(state.job.row, state.job.seed): _cell(state) for state in states}
    grid = Table(title=shown(title), caption=summary(states), caption_justify="left")
    grid.add_column("row")
    for seed in seeds:
        grid.add_column(f"seed {seed}")
    for row in dict.fromkeys(state.job.row for state in states):
        grid.add_row(shown(row), *(cells.get((row, seed), "") for seed in seeds))
    return grid


def lines(before: Sequence[JobState], now: Sequence[JobState]) -> list[str]:
    """What has changed, a line a job, for where nobody looks at a terminal."""
    told = {state.name: (state.state, state.epoch) for state in before}
    return [
        f"{shown(state.name)}: {_cell(state)}" + (f": {state.error}" if state.state == "failed" and state.error else "")
        for state in now
        if told.get(state.name, ("waiting", 0)) != (state.state, state.epoch)
    ]


def summary(states: Sequence[JobState]) -> str:
    """How many jobs are in which state, and how long all will take."""
    counts = {name: sum(state.state == name for state in states) for name in _STATES}
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "done")
    if all(state.state in ("done", "failed") for state in states):
        return f"{len(states)} runs: {text}"
    left = seconds_left(states)
    return f"{len(states)} runs: {text}; time left: {'not known yet' if left is None else 'about ' + _duration(left)}"


def _finished(job: Job, results: dict[str, Any] | None) -> JobState:
    if results is None:
        return JobState(job, "failed", error=f"{job.path}/results.json cannot be read: move that folder away")
    if job.config_hash and results.get("config_hash") != job.config_hash:
        error = f"{job.path} holds a finished run of another configuration: move it away, or say runs_dir=FOLDER"
        return JobState(job, "failed", error=error)
    seconds = results.get("train_seconds")
    pace = seconds / job.epochs if seconds and job.epochs else None
    return JobState(job, "done", job.epochs, results["metrics"]["best"]["test"].get("mAP"), pace, 0.0)


@lru_cache(maxsize=4096)
def _results(path: Path, modified: int) -> dict[str, Any] | None:
    """results.json of a finished run, read again when it has changed."""
    try:
        return Run(path).results()
    except (OSError, ValueError):
        return None


def _cell(state: JobState) -> str:
    mAP = "" if state.mAP is None else f", mAP {state.mAP:.1f}"
    of = f"epoch {state.epoch}/{state.job.epochs}"
    if state.state == "done":
        return f"done{mAP}"
    if state.state == "running" and state.epoch >= state.job.epochs > 0:
        return f"running, testing{mAP}"
    if state.state == "running":
        left = "" if state.left is None else f", {_duration(state.left)} left"
        return f"running, {of}{mAP}{left}"
    if state.state in ("stopped", "failed") and state.epoch:
        return f"{state.state}, {of}{mAP}"
    return state.state


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


_STATES: tuple[State, ...] = ("done", "running", "waiting", "stopped", "failed")
