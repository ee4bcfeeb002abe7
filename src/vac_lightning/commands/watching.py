"""Looking at run folders while a sweep fills them."""

from __future__ import annotations

__all__ = ["changes", "is_complete"]

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vac_lightning.runs import Place, Run, find_unfinished

if TYPE_CHECKING:
    from vac_lightning.report.contents import Contents


def changes(paths: Sequence[str], seconds: float) -> Iterator[Mapping[Run, Place] | None]:
    """The unfinished runs, at once and then every so many seconds; None where no run's numbers have changed."""
    seen: object = None
    while True:
        now = _state(paths)
        yield None if now == seen else find_unfinished(paths)
        seen = now
        time.sleep(seconds)


def is_complete(contents: Contents, unfinished: Mapping[Run, Place]) -> bool:
    """Whether a table has all that it waits for: no row is missing, no run under way, all rows have the same seeds.

    Runs of no known table are never complete: more may be to come.
    """
    ours = [row for row in contents.rows if row.state != "published"]
    return (
        contents.of_experiment
        and not unfinished
        and all(row.state == "done" for row in ours)
        and len({row.seeds for row in ours}) == 1
    )


def _state(paths: Sequence[str]) -> dict[Path, tuple[int, int]]:
    """What tells whether a run has come further: size and time of the files that a report reads."""
    found: dict[Path, tuple[int, int]] = {}
    for path in paths:
        for folder, _, files in os.walk(path):
            for name in _READ.intersection(files):
                file = Path(folder, name)
                try:
                    status = file.stat()
                except FileNotFoundError:  # written anew, or set aside, just now
                    continue
                found[file] = (status.st_mtime_ns, status.st_size)
    return found


_READ = frozenset(("results.json", "metrics.csv", "attention.json"))
