"""What W&B did not get of runs, and sending it: every part once, in order."""

from __future__ import annotations

__all__ = ["Part", "find", "latest", "send", "to_send"]

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """What one start of a run wrote for W&B: `<run>/wandb/[offline-]run-<time>-<id>/run-<id>.wandb`.

    A run that was killed and went on has several parts of one id.
    """

    file: Path

    @property
    def run_dir(self) -> Path:
        return self.file.parents[2]

    @property
    def id(self) -> str:
        return self.file.stem.removeprefix("run-")

    @property
    def time(self) -> str:
        """When it was started, to the second, and where W&B started two in one, which came first."""
        return self.file.parent.name.removeprefix("offline-")

    @property
    def online(self) -> bool:
        return not self.file.parent.name.startswith("offline-")

    @property
    def sent(self) -> bool:
        """Whether W&B has all of it, by the mark that `wandb sync` leaves."""
        return self._mark.exists()

    def mark_sent(self) -> None:
        self._mark.touch()

    @property
    def empty(self) -> bool:
        """Whether the run was killed before W&B wrote anything."""
        return self.file.stat().st_size == 0

    @property
    def _mark(self) -> Path:
        return self.file.with_suffix(".wandb.synced")


def find(folders: Iterable[Path]) -> list[list[Part]]:
    """The parts of every run in or below the given folders, oldest first.

    Raises:
        FileNotFoundError: a folder that does not exist.
    """
    runs: dict[tuple[Path, str], list[Part]] = {}
    files: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} does not exist, or is no folder")
        files |= {file.absolute() for file in folder.rglob("*.wandb") if _PART.fullmatch("/".join(file.parts[-3:]))}
        if folder.absolute().parent.name == "wandb":  # one part's own folder
            files |= {file.absolute() for file in folder.glob("run-*.wandb")}
    for part in sorted(map(Part, files), key=lambda part: (part.run_dir, part.time)):
        runs.setdefault((part.run_dir, part.id), []).append(part)
    return list(runs.values())


def latest(run_dir: Path) -> Part | None:
    """The part of a run folder that was started last."""
    parts = [Part(file) for file in run_dir.glob("wandb/*/*.wandb") if _PART.fullmatch("/".join(file.parts[-3:]))]
    return max(parts, key=lambda part: part.time, default=None)


def to_send(parts: Sequence[Part]) -> list[Part]:
    """Of one run's parts, oldest first, those that W&B lacks.

    Where a later part was logged online, the server went on from what it had then: an older part sent after it would
    take the place of its lines.
    """
    online = [number for number, part in enumerate(parts) if part.online]
    return [part for part in parts[online[-1] if online else 0 :] if not part.sent and not part.empty]


def send(parts: Sequence[Part]) -> str | None:
    """Send parts of one run with `wandb sync`, one after the other; what stopped it, in one line, or None.

    Each in a process of its own, for a file that W&B cannot read can end the whole process. A part is sent when W&B
    left its mark: the exit code is 0 either way.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("WANDB_MODE", "WANDB_SILENT")}
    environment["WANDB_ERROR_REPORTING"] = "false"
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:  # where W&B leaves its own log
            command = [sys.executable, "-m", "wandb", "sync", "--include-online", str(part.file)]
            done = subprocess.run(
                command,
                cwd=folder,
                env={**environment, "WANDB_DIR": folder},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
            )
        if not part.sent:
            return f"{part.file}: {_cause(done.stdout + done.stderr)}"
    return None


_PART = re.compile(r"wandb/(offline-)?run-\d{8}_\d{6}-[^/]+/run-[^/]+\.wandb")


def _cause(printed: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or line.startswith(("Error", "panic"))]
    return (errors or lines or ["wandb sync ended without a word"])[0].removeprefix("wandb: ").removeprefix("ERROR ")
