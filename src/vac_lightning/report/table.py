"""The paper's table of a set of runs: rows, seeds, and the metrics of the last and the best epoch."""

from __future__ import annotations

__all__ = ["Row", "as_text", "markdown", "rows"]

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vac_lightning.metrics import SUMMARY
from vac_lightning.names import shown
from vac_lightning.runs import Run, config_hash


@dataclass(frozen=True)
class Row:
    """One row: runs of one name that differ by seed. metrics: name -> value per seed, in percent.

    name: what the table shows; row: the runs' own name for it, without their experiment. protocol: of the metrics.
    """

    name: str
    row: str
    epoch: str
    chosen_on: str
    protocol: str
    metrics: dict[str, list[float]]

    def cell(self, metric: str) -> str:
        """The mean over seeds, with the standard deviation where there are several."""
        values = np.array(self.metrics[metric], dtype=float)
        if not np.isfinite(values).all():
            return "n/a"
        return f"{values.mean():.1f}" if len(values) == 1 else f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"


def rows(runs: Sequence[Run], epoch: str = "best") -> list[Row]:
    """One Row per row name at the "best" or "last" epoch, in the paper's order: plain, augmentation, consistency.

    Raises:
        ValueError: runs of one experiment and row that differ by more than the seed, or have the same seed; rows
            measured by different protocols.
    """
    everything = [run.results() for run in runs]
    several = len({results["experiment"] for results in everything}) > 1
    grouped: dict[str, list[dict]] = {}
    for results in everything:
        name = f"{results['row']} ({results['experiment']})" if several else results["row"]
        grouped.setdefault(name, []).append(results)
    for name, group in grouped.items():
        if len({config_hash({**results["config"], "seed": None}) for results in group}) > 1:
            raise ValueError(f"the runs of row {name} differ by more than the seed: report them apart")
        if len({results["seed"] for results in group}) < len(group):
            raise ValueError(f"row {name} has two runs of one seed: report them apart")
    protocols = {results["config"].get("protocol", "vac") for results in everything}
    if len(protocols) > 1:
        raise ValueError(
            f"the runs were measured by different protocols ({', '.join(sorted(protocols))}): report them apart"
        )
    return [
        Row(
            name,
            group[0]["row"],
            epoch,
            ", ".join(sorted({results["metrics"]["best"]["chosen_on"] for results in group})),
            group[0]["config"].get("protocol", "vac"),
            {metric: [_number(results["metrics"][epoch]["test"][metric]) for results in group] for metric in SUMMARY},
        )
        for name, group in sorted(grouped.items(), key=lambda item: _place(item[0]))
    ]


def markdown(table: Sequence[Row]) -> str:
    """The table as GitHub Markdown, the best of each column in bold."""
    best = {metric: max((row.cell(metric) for row in table), key=_leading, default="") for metric in SUMMARY}
    lines = ["| row | seeds | " + " | ".join(SUMMARY) + " |", "|---|---:|" + "---:|" * len(SUMMARY)]
    for row in table:
        cells = [f"**{row.cell(m)}**" if row.cell(m) == best[m] else row.cell(m) for m in SUMMARY]
        lines.append(f"| {as_text(row.name)} | {len(row.metrics['mAP'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def as_text(text: str) -> str:
    """A text of others as it stands, in Markdown: no markup, no HTML, no formula, and nothing that ends the cell."""
    marked = re.sub(r"([\\`*\[\]|~$!]|(?<!\w)_|_(?!\w))", r"\\\1", shown(text))
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _place(name: str) -> tuple[str, bool, str]:
    backbone, _, rest = name.partition("+")
    return backbone, rest.startswith("AC"), rest


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _leading(cell: str) -> float:
    return float(cell.split()[0]) if cell != "n/a" else float("-inf")
