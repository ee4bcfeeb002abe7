"""`vac status [FOLDERS...]`: how far runs are, from any terminal."""

from __future__ import annotations

__all__ = ["main", "status"]

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Group
from rich.table import Table

from vac_lightning.commands import app, overview, words
from vac_lightning.commands.planning import Job, read_plan
from vac_lightning.runs import Run, find_folders
from vac_lightning.status import read_status


def main() -> int:
    sys.argv[1:] = words.positional(sys.argv[1:], "runs")
    return app.main("status", status)


def status(config: DictConfig) -> None:
    """Print the overview of every sweep below some folders, and of the runs that belong to none."""
    folders = [Path(str(folder)) for folder in config.runs or ["runs"]]
    with app.usage():
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(f"{folder}: no such folder; vac status FOLDER, such as {Path('runs', 'table1')}")
    console = app.console()
    if not config.watch:
        tables = list(_tables(folders))
        console.print(Group(*tables) if tables else f"no run in {', '.join(map(str, folders))} yet")
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(Group(*_tables(folders)), refresh=True)
            time.sleep(_SECONDS if config.watch is True else config.watch)


def _tables(folders: list[Path]) -> Iterator[Table]:
    seen: set[Path] = set()
    for folder in folders:
        for file in sorted(folder.rglob("sweep.json")):
            if (planned := read_plan(file)) is not None:
                seen |= {Path(job.path) for job in planned.jobs}
                states = [overview.job_state(job) for job in planned.jobs]
                yield overview.table(f"{planned.name}, {file.parent}", states)
    loose: dict[Path, list[Job]] = {}
    for folder in folders:
        for run in find_folders(folder.absolute()):  # a run is known by the names of the folders above it
            if run.path not in seen:
                seen.add(run.path)
                loose.setdefault(run.path.parents[1], []).append(_job(run))
    for folder, jobs in loose.items():
        yield overview.table(str(folder), [overview.job_state(job) for job in jobs])


def _job(run: Run) -> Job:
    """What a run says of itself: its row and seed are those of its folder, unless its results know better."""
    row, seed = run.path.parent.name, run.path.name.removeprefix("seed=")
    said = read_status(run)
    epochs = said.epochs if said is not None else 0
    if run.finished:
        try:
            results = run.results()
            row, seed = str(results["row"]), str(results["seed"])
            epochs = int(results["config"]["trainer"]["max_epochs"])
        except (KeyError, OSError, TypeError, ValueError, json.JSONDecodeError):
            pass  # told by job_state
    return Job(row, int(seed) if seed.isdecimal() else 0, "", "", str(run.path), epochs, "")


_SECONDS = 2

if __name__ == "__main__":
    sys.exit(main())
