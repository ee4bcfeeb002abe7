"""status.json: how far a run is, written while it trains and read from anywhere."""

from __future__ import annotations

__all__ = ["SILENCE_SECONDS", "Status", "StatusFile", "read_status"]

import json
import math
import os
import socket
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from vac_lightning.runs import Run, write_atomically

SILENCE_SECONDS = 30 * 60.0
"""A run that says nothing for so long does not run; one that does says something every minute."""

BEAT_SECONDS = 60.0


@dataclass(frozen=True)
class Status:
    """State of an unfinished run; one that has a results.json is finished, whatever stands here.

    epoch, epochs: how many are finished, of how many. val_mAP: after the last of them, in percent, if a number.
    started, updated: of this attempt, unix seconds. ended: when the last epoch did, or else the attempt's start.
    seconds_per_epoch: the mean over this attempt; None before its first epoch ends.
    error: why it failed, in one line.
    """

    state: Literal["running", "failed", "stopped"]
    epoch: int
    epochs: int
    val_mAP: float | None
    updated: float
    started: float
    host: str
    pid: int
    error: str | None = None
    ended: float = 0.0
    seconds_per_epoch: float | None = None


class StatusFile:
    """Writes status.json of a run, each time whole or not at all.

    Args:
        run: the run.
        writes: off in processes that leave it to the first one.
    """

    def __init__(self, run: Run, writes: bool = True) -> None:
        self.run = run
        self.writes = writes
        self._status: Status | None = None
        self._first_epoch = 0

    @property
    def begun(self) -> bool:
        """Whether this attempt has written that it runs."""
        return self._status is not None

    def begin(self, epoch: int, epochs: int) -> None:
        """The run trains from this epoch on, `epoch` epochs being done."""
        now = time.time()
        self._first_epoch = epoch
        before = read_status(self.run)
        metric = before.val_mAP if before is not None and epoch else None
        self._write(Status("running", epoch, epochs, metric, now, now, socket.gethostname(), os.getpid(), ended=now))

    def end_epoch(self, epoch: int, val_mAP: float | None) -> None:
        """So many epochs are done."""
        if (status := self._status) is not None:
            now = time.time()
            metric = val_mAP if val_mAP is not None and math.isfinite(val_mAP) else None
            pace = (now - status.started) / max(1, epoch - self._first_epoch)
            self._write(replace(status, epoch=epoch, val_mAP=metric, updated=now, ended=now, seconds_per_epoch=pace))

    def beat(self) -> None:
        """The run still runs; written down once a minute."""
        if (status := self._status) is not None and time.time() - status.updated >= BEAT_SECONDS:
            self._write(replace(status, updated=time.time()))

    def end(self, state: Literal["failed", "stopped"], error: str | None = None) -> None:
        """The attempt ended without results."""
        now = time.time()
        nothing = Status(state, 0, 0, None, now, now, "", 0, ended=now)
        status = self._status or read_status(self.run) or nothing
        begun, host = status.started if self.begun else now, socket.gethostname()
        self._write(replace(status, state=state, error=error, updated=now, started=begun, host=host, pid=os.getpid()))

    def remove(self) -> None:
        """The run has its results."""
        self._status = None
        if self.writes:
            (self.run.path / _NAME).unlink(missing_ok=True)

    def _write(self, status: Status) -> None:
        self._status = status
        if self.writes:
            text = json.dumps(asdict(status), indent=2) + "\n"
            write_atomically(self.run.path / _NAME, lambda file: file.write(text.encode()))


def read_status(run: Run) -> Status | None:
    """What a run last said of itself, or None where it said nothing that can be read.

    One that says it runs is stopped in truth where its process on this machine is gone, or where it was silent for
    SILENCE_SECONDS: on another machine that is all that can be known.
    """
    try:
        content: dict[str, Any] = json.loads((run.path / _NAME).read_text(encoding="utf-8"))
        status = Status(**{field.name: content[field.name] for field in fields(Status) if field.name in content})
        if status.state == "running" and not _runs(status):
            return replace(status, state="stopped")
    except (OSError, TypeError, ValueError):
        return None
    return status if status.state in ("running", "failed", "stopped") else None


def _runs(status: Status) -> bool:
    if time.time() - status.updated > SILENCE_SECONDS:
        return False
    if status.host != socket.gethostname():
        return True
    try:
        os.kill(status.pid, 0)
        # A killed process that nobody waits for, as in a container without an init, still has its number.
        return Path(f"/proc/{status.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's; or no Linux
        return True


_NAME = "status.json"
