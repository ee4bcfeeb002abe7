"""`vac report RUNS...`: tables, comparisons and figures of finished runs, in every format."""

from __future__ import annotations

__all__ = ["FLAGS", "main", "report"]

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from vac_lightning.commands import app, watching, words
from vac_lightning.names import shown
from vac_lightning.runs import Place, Run, find_runs, find_unfinished, write_atomically

if TYPE_CHECKING:
    from vac_lightning.report.contents import Contents

FLAGS: Mapping[str, str] = {"--watch": "watch=true", "--wandb": "wandb=true"}
"""What may be said for short, and the word that it stands for."""


def main() -> int:
    arguments = [FLAGS.get(argument, argument) for argument in sys.argv[1:]]
    sys.argv[1:] = words.positional(arguments, "runs")
    return app.main("report", report)


def report(config: DictConfig) -> None:
    """Print the table of the best and of the last epoch, and write the report into `out`, once or at every change."""
    with app.usage():
        if not config.runs:
            raise ValueError("no runs given: vac report runs/shapes")
    if config.watch is False:
        with app.usage():
            _build(config, find_unfinished(config.runs), watched=False)
        return
    seconds = _SECONDS if config.watch is True else float(config.watch)
    complete = False
    for unfinished in watching.changes(config.runs, seconds):
        if unfinished is None:
            if complete:  # and no job has begun since: between two jobs of a sweep a table can look complete
                return
            continue
        with app.usage():
            try:
                contents = _build(config, unfinished, watched=True)
            except FileNotFoundError:  # a run was set aside just now: the next look finds what there is
                continue
        complete = contents is not None and watching.is_complete(contents, unfinished)


def _build(config: DictConfig, unfinished: Mapping[Run, Place], watched: bool) -> Contents | None:
    """Gather, print and write. None where nothing has begun, which is an error unless the runs are watched.

    Raises:
        FileNotFoundError: a path that does not exist, or one without any run; a file that is gone meanwhile.
    """
    from vac_lightning.report import latex, markdown, page, spreadsheet
    from vac_lightning.report.gathering import gather

    runs = _finished(config.runs, unfinished, watched)
    # Some may have finished since they were looked for.
    unfinished = {run: place for run, place in unfinished.items() if Run(run.path.resolve()) not in runs}
    if not runs and not unfinished:
        return None
    contents = gather(runs, config.table, unfinished=unfinished, resamples=config.resamples)
    out = Path(config.out or config.runs[0])
    console = app.console()
    for epoch in ("best", "last"):
        if any(row.runs for row in contents.rows):
            console.print(_grid(contents, epoch))
    for note in contents.notes:
        console.print(shown(note), soft_wrap=True)
    figure = _figure5(config, contents, out, watched)
    command = f"vac report {shlex.join(map(str, config.runs))}" + (f" table={config.table}" if config.table else "")
    texts: Mapping[str, Callable[[], str]] = {
        "report.md": lambda: markdown.document(contents, command, figure),
        "report.tex": lambda: latex.document(contents),
        "report.csv": lambda: spreadsheet.metrics(contents),
        "labels.csv": lambda: spreadsheet.labels(contents),
    }
    for name, text in texts.items():
        content = text().encode()
        write_atomically(out / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    page.write(contents, out / _PAGE)
    for name in [_PAGE, *texts, *([figure] if figure else [])]:
        console.print(f"{name + ':':<12} {shown(str(out / name))}", soft_wrap=True)
    if config.wandb and (runs or not watched):
        console.print(f"W&B:         {shown(_published(contents, watched))}", soft_wrap=True)
    return contents


def _published(contents: Contents, watched: bool) -> str:
    """Where in W&B the report now is; of watched runs, what kept it from there this time."""
    from vac_lightning.report import workspace

    try:
        return workspace.publish(contents, *workspace.destination(contents))
    except ConnectionError as error:
        if watched:
            return f"{error}; tried again when runs have changed"
        raise app.RunError(str(error)) from error


def _finished(paths: Sequence[str], unfinished: Mapping[Run, Place], watched: bool) -> list[Run]:
    """All finished runs; a folder may have none where one has begun, or where it is watched and need not be there."""
    found: set[Run] = set()
    for path in paths:
        try:
            found |= {Run(run.path.resolve()) for run in find_runs([path])}  # a run named twice is one
        except FileNotFoundError:
            begun = any(run.path.is_relative_to(Path(path).absolute()) for run in unfinished)
            if not watched and not begun:
                raise
    return sorted(found, key=lambda run: run.path)


def _grid(contents: Contents, epoch: str) -> object:
    """The table as it is printed: ours, and of mAP the published numbers."""
    from rich.table import Table

    from vac_lightning.report import table

    chosen = ", ".join(dict.fromkeys(row.chosen_on for row in contents.rows if row.runs))
    title = f"test metrics in percent, protocol {contents.protocol}, {epoch} epoch" + (
        f" (chosen on {chosen})" if epoch == "best" else ""
    )
    beside = epoch == "best" and any("mAP" in row.published for row in contents.rows)
    metrics = [metric for metric in contents.metrics if not metric.startswith("top3_")]
    grid = Table(title=shown(title))
    grid.add_column("row")
    for name in ("seeds", *(("published mAP",) if beside else ()), *metrics):
        grid.add_column(name, justify="right")
    for row in contents.rows:
        cells = [str(len(row.seeds)) if row.runs else row.state]
        cells += [table.plain(row.published.get("mAP"))] if beside else []
        cells += [table.cell(row.metrics[epoch][name]) if row.runs else "" for name in metrics]
        grid.add_row(shown(row.name), *cells)
    return grid


def _figure5(config: DictConfig, contents: Contents, out: Path, watched: bool) -> str:
    """Draw Figure 5 of the chosen rows, of each the first seed that kept heatmaps; the file's name, "" without any.

    Of watched runs a chosen row may be still to come.
    """
    from vac_lightning.report.figures import figure5

    chosen = {
        row.name: next(run for run in row.runs if (run.heatmaps / "test.npz").is_file())
        for row in contents.rows
        if any((run.heatmaps / "test.npz").is_file() for run in row.runs)
    }
    to_come = {row.name for row in contents.rows if not row.runs} if watched else set()
    names = [name for name in config.rows or [*chosen][:4] if name not in to_come]
    if unknown := sorted(set(names) - set(chosen)):
        raise ValueError(f"rows={unknown}: these runs have the rows {', '.join(sorted(chosen)) or '(none)'}")
    if not names:
        return ""
    figure5([chosen[name] for name in names], out / "figure5.png", config.labels)
    return "figure5.png"


_PAGE = "report.html"
_SECONDS = 10.0

if __name__ == "__main__":
    sys.exit(main())
