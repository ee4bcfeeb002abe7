"""What stands in the cells of a report's table: means over seeds, differences from published numbers, ranks."""

from __future__ import annotations

__all__ = ["Summary", "as_text", "cell", "difference", "means", "p_value", "plain", "ranks", "signed", "summary"]

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vac_lightning.names import shown
from vac_lightning.report.contents import Row

Rank = Literal["best", "second"]


@dataclass(frozen=True)
class Summary:
    """Of n seeds: mean, and standard deviation with n - 1, NaN of a single seed. Both NaN where one is undefined."""

    mean: float
    std: float
    n: int


def summary(values: Sequence[float]) -> Summary:
    held = np.array(values, dtype=float)
    if not held.size or not np.isfinite(held).all():
        return Summary(np.nan, np.nan, held.size)
    return Summary(float(held.mean()), float(held.std(ddof=1)) if held.size > 1 else np.nan, held.size)


def cell(values: Sequence[float]) -> str:
    """The mean over seeds, with the standard deviation where there are several; "" of none."""
    of = summary(values)
    if not of.n:
        return ""
    if np.isnan(of.mean):
        return "n/a"
    return f"{of.mean:.1f}" if of.n == 1 else f"{of.mean:.1f} ± {of.std:.1f}"


def plain(value: float | None) -> str:
    """A published number; "" where there is none."""
    return "" if value is None or np.isnan(value) else f"{value:.1f}"


def signed(value: float | None, digits: int = 1) -> str:
    """A difference in points, with its sign where it does not round to 0; "" of none."""
    if value is None or np.isnan(value):
        return "" if value is None else "n/a"
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def p_value(value: float) -> str:
    """A p-value as it is read: three places, and never 0."""
    return "n/a" if np.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def means(rows: Sequence[Row], epoch: str, metric: str) -> dict[str, float]:
    """The unrounded means of the finished rows, by name; those that are undefined are left out."""
    found = {row.name: summary(row.metrics[epoch][metric]).mean for row in rows if row.runs}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def difference(row: Row, epoch: str, metric: str) -> float | None:
    """Ours less published, in points; None where one is missing."""
    published = row.published.get(metric)
    ours = means([row], epoch, metric).get(row.name)
    return None if ours is None or published is None else ours - published


def ranks(values: Mapping[str, float]) -> dict[str, Rank]:
    """The best and the second best of a column, by their unrounded values; those that are equal share a rank."""
    highest = sorted(set(values.values()), reverse=True)[:2]
    names: tuple[Rank, ...] = ("best", "second")
    rank = dict(zip(highest, names, strict=False))
    return {name: rank[value] for name, value in values.items() if value in rank}


def as_text(text: str) -> str:
    """A text of others as it stands, in Markdown: no markup, no HTML, no formula, and nothing that ends the cell."""
    marked = re.sub(r"([\\`*\[\]|~$!]|(?<!\w)_|_(?!\w))", r"\\\1", shown(text))
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
