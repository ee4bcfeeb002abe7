"""The page's tables: what every cell says, and what it is sorted by."""

from __future__ import annotations

__all__ = ["Cell", "Line", "Table", "others", "results"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vac_lightning.report.contents import EPOCHS, Attention, Contents, Row
from vac_lightning.report.table import cell, p_value, plain, ranks, signed, summary

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """One row's metric at the best or last epoch.

    ours: mean ± standard deviation over seeds, "" without runs. paper: as published. difference: ours - the paper's.
    rank, paper_rank: "best", "second" or "", ours among ours and the paper's among the paper's.
    order: what the column is sorted by: ours, else the paper's; None comes last.
    """

    ours: str
    paper: str
    difference: str
    rank: str
    paper_rank: str
    order: float | None


@dataclass(frozen=True)
class Line:
    """One row of the table of results. epochs: "best" and "last" -> the epoch of every seed.

    cells: a mapping a metric, "best" and "last" -> Cell.
    """

    row: Row
    epochs: Mapping[str, str]
    cells: tuple[Mapping[str, Cell], ...]


@dataclass(frozen=True)
class Table:
    """Any other table. numeric: which columns are numbers, and lie at the right."""

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


def results(contents: Contents) -> list[Line]:
    """The table of results, a line a row of the report."""
    ours = {(epoch, metric): ranks(_means(contents, epoch, metric)) for epoch in EPOCHS for metric in contents.metrics}
    published = {
        m: ranks({r.name: r.published[m] for r in contents.rows if m in r.published}) for m in contents.metrics
    }
    return [
        Line(
            row,
            {epoch: ", ".join(map(str, row.epochs.get(epoch, ()))) for epoch in EPOCHS},
            tuple(
                {
                    epoch: _cell(
                        row, epoch, metric, ours[epoch, metric].get(row.name, ""), published[metric].get(row.name, "")
                    )
                    for epoch in EPOCHS
                }
                for metric in contents.metrics
            ),
        )
        for row in contents.rows
    ]


def others(contents: Contents) -> dict[str, Table]:
    """Every other table by its section's name."""
    return {
        "comparisons": _comparisons(contents),
        "lambda": _lambdas(contents),
        "labels": _labels(contents),
        "consistency": _consistency(contents.attention),
        "localisation": _localisation(contents.attention),
        "costs": _costs(contents),
        "versions": Table(("package", "version"), tuple(contents.versions.items()), (False, False)),
    }


def _cell(row: Row, epoch: str, metric: str, rank: str, paper_rank: str) -> Cell:
    values = row.metrics.get(epoch, {}).get(metric, ())
    mean, paper = _mean(values), row.published.get(metric)
    both = mean is not None and paper is not None
    return Cell(
        ours=cell(values),
        paper=plain(paper),
        difference=signed(mean - paper) if both else "",  # type: ignore[operator]
        rank=rank,
        paper_rank=paper_rank,
        order=paper if mean is None else mean,
    )


def _comparisons(contents: Contents) -> Table:
    head = ("row", "better than", "difference in mAP", "95 % interval", "p", "better in", "samples")
    lines = tuple(
        (
            c.row,
            c.baseline,
            signed(c.difference, 2),
            f"{signed(c.low, 2)} to {signed(c.high, 2)}" if np.isfinite([c.low, c.high]).all() else "n/a",
            p_value(c.p_value),
            f"{c.seeds_better} of {len(c.seeds)} seeds",
            f"{c.samples:,}",
        )
        for c in contents.comparisons
    )
    return Table(head, lines, (False, False, True, True, True, True, True))


def _lambdas(contents: Contents) -> Table:
    every = sorted({x for series in contents.lambdas for x in series.lambdas})
    lines = []
    for series in contents.lambdas:
        at = dict(zip(series.lambdas, series.mAP, strict=True))
        lines.append((series.name, *(cell(at[x]) if x in at else MISSING for x in every)))
    return Table(("rows", *(f"λ = {x:g}" for x in every)), tuple(lines), (False, *[True] * len(every)))


def _labels(contents: Contents) -> Table:
    rows = [row.name for row in contents.rows if contents.label_ap.get(row.name)]
    lines = tuple(
        (label, *(cell(contents.label_ap[name].get(label, ())) or MISSING for name in rows))
        for label in contents.labels
    )
    return Table(("label", *rows), lines if rows else (), (False, *[True] * len(rows)))


def _consistency(attention: Sequence[Attention]) -> Table:
    letters = list(dict.fromkeys(letter for a in attention for letter in (*a.before, *a.after)))
    head = ("row", *(f"{letter}, {when}" for letter in letters for when in ("before", "after")))
    lines = tuple(
        (a.row, *(_number(errors.get(letter), 3) for letter in letters for errors in (a.before, a.after)))
        for a in attention
        if a.before or a.after
    )
    return Table(head, lines if letters else (), (False, *[True] * (len(head) - 1)))


def _localisation(attention: Sequence[Attention]) -> Table:
    measures = list(dict.fromkeys(measure for a in attention for measure in a.localisation))
    lines = tuple((a.row, *(_number(a.localisation.get(m), 1) for m in measures)) for a in attention if a.localisation)
    return Table(("row", *measures), lines, (False, *[True] * len(measures)))


def _costs(contents: Contents) -> Table:
    head = ("row", "device", "device hours", "images/s", "peak memory, GiB")
    lines = tuple(
        (
            c.row,
            c.device,
            f"{c.device_hours:,.1f}" if c.device_hours >= 10 else f"{c.device_hours:.2f}",
            MISSING if c.images_per_s is None else f"{c.images_per_s:,.0f}",
            MISSING if c.peak_memory_bytes is None else f"{c.peak_memory_bytes / 2**30:.1f}",
        )
        for c in contents.costs
    )
    if len(lines) > 1:
        hours = sum(c.device_hours for c in contents.costs)
        lines += (("all rows", "", f"{hours:,.1f}" if hours >= 10 else f"{hours:.2f}", "", ""),)
    return Table(head, lines, (False, False, True, True, True))


def _means(contents: Contents, epoch: str, metric: str) -> dict[str, float]:
    found = {row.name: _mean(row.metrics.get(epoch, {}).get(metric, ())) for row in contents.rows}
    return {name: mean for name, mean in found.items() if mean is not None}


def _mean(values: Sequence[float]) -> float | None:
    mean = summary(values).mean
    return None if np.isnan(mean) else mean


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None or not np.isfinite(value) else f"{value:.{digits}f}"
