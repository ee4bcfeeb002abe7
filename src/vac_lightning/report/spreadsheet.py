"""A report as CSV: every metric of every row, and AP by label."""

from __future__ import annotations

__all__ = ["labels", "metrics"]

import csv
import io
import math
from collections.abc import Iterable, Sequence

from vac_lightning.names import shown
from vac_lightning.report import table
from vac_lightning.report.contents import EPOCHS, Contents


def metrics(contents: Contents) -> str:
    """A line a row, epoch and metric, in percent to six digits; of a row without runs what is published of it."""
    lines: list[Sequence[object]] = []
    for row in contents.rows:
        for epoch in EPOCHS if row.runs else ("best",):
            for metric in contents.metrics:
                of = table.summary(row.metrics[epoch].get(metric, ()) if row.runs else ())
                published = row.published.get(metric)
                if of.n or published is not None:
                    lines.append(
                        (
                            *(row.name, row.state, epoch, row.chosen_on if epoch == "best" else "", metric),
                            *(of.mean, of.std, of.n, published, table.difference(row, epoch, metric)),
                        )
                    )
                elif row.state == "missing" and metric == contents.metrics[0]:
                    lines.append((row.name, row.state, epoch, "", metric, None, None, 0, None, None))
    names = ("row", "state", "epoch", "chosen_on", "metric", "mean", "std", "seeds", "published", "difference")
    return _text(names, lines)


def labels(contents: Contents) -> str:
    """A line a row and label: AP of the best epoch, in percent."""
    summaries = (
        (row, label, table.summary(values))
        for row, of_row in contents.label_ap.items()
        for label, values in of_row.items()
    )
    return _text(
        ("row", "label", "mean", "std", "seeds"), ((r, label, s.mean, s.std, s.n) for r, label, s in summaries)
    )


def _text(names: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(value) for value in line] for line in lines)
    return file.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return shown(value) if isinstance(value, str) else value
