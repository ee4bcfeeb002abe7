"""A picture of a data set's labels: how frequent each is in every split, and which occur together."""

from __future__ import annotations

__all__ = ["co_occurrence", "label_statistics"]

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vac_lightning.names import shown
from vac_lightning.runs import write_atomically


def co_occurrence(targets: np.ndarray) -> NDArray[np.float64]:
    """p(j | i), (L, L): of the samples that are positive for label i, the share that is positive for label j too.

    targets: int8 (N, L) of 1, 0, -1. A line of a label without positive samples is NaN.
    """
    positive = (targets == 1).astype(np.float64)
    both = positive.T @ positive
    with np.errstate(invalid="ignore"):
        return both / both.diagonal()[:, None]


def label_statistics(
    path: Path, targets: Mapping[str, np.ndarray], labels: Sequence[str], *, title: str = "", top: int = 40
) -> None:
    """Draw a line a label, most frequent first: a bar a split, and p(j | i) of the first split.

    path: PNG to write.
    targets: split -> int8 (N, L) of 1, 0, -1.
    labels: the L names.
    title: of the data set.
    top: how many labels are drawn, those with the most positive samples in the first split.
    """
    first, of_first = next(iter(targets.items()))
    order = np.argsort(-(of_first == 1).sum(0), kind="stable")[:top]
    names = [_short(labels[j]) for j in order]
    side = max(2.4, _LINE * len(names))  # of the matrix, in inches
    sizes = [2.1] * len(targets) + [side]
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 8}):
        figure = Figure(figsize=(sum(sizes) + 3.2, side + 2.4), layout="constrained")
        axes = figure.subplots(1, len(sizes), sharey=True, squeeze=False, width_ratios=sizes)[0]
        which = f"the {top} most frequent of {len(labels)} labels" if top < len(labels) else f"labels: {len(labels)}"
        figure.suptitle(f"{shown(title)}, {which}", fontsize=11)
        for axis, (split, values) in zip(axes, targets.items(), strict=False):
            _bars(axis, values[:, order])
            axis.set_title(f"{split}, {len(values):,} samples", fontsize=9)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].legend(loc="upper left", bbox_to_anchor=(0, -0.35 / side), frameon=False, borderaxespad=0)
        _matrix(axes[-1], co_occurrence(of_first[:, order]), names)
        axes[-1].set_title(f"p(column | line) in {first}", fontsize=9)
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))


def _bars(axis: Axes, targets: np.ndarray) -> None:
    """Of every label, the shares of positive, unspecified and negative samples, and the number of positive ones."""
    lines = np.arange(targets.shape[1])
    start = np.zeros(targets.shape[1])
    for value, name, colour in (
        (1, "positive; their number at the right", "#2a6fbb"),
        (-1, "unspecified", "#c9b26b"),
        (0, "negative", "#e4e7ea"),
    ):
        share = (targets == value).mean(0)
        axis.barh(lines, share, left=start, height=0.8, color=colour, label=name)
        start += share
    for line, count in enumerate((targets == 1).sum(0).tolist()):
        axis.text(1.02, line, f"{count:,}", va="center", ha="left", fontsize=7)
    axis.set_xlim(0, 1)
    axis.set_ylim(targets.shape[1] - 0.5, -0.5)
    axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _matrix(axis: Axes, shares: np.ndarray, names: Sequence[str]) -> None:
    """p(j | i) as colours, a line a label i; with numbers where they fit."""
    others = shares.copy()
    np.fill_diagonal(others, np.nan)  # 1 by definition, and would set the range
    high = float(np.nanmax(others, initial=0.05))
    axis.set_facecolor("#d9d9d9")
    image = axis.imshow(others, cmap="Blues", vmin=0, vmax=high, aspect="auto")
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.tick_params(axis="y", left=False)
    if len(names) <= _NUMBERS:
        for i, j in np.argwhere(np.isfinite(others)).tolist():
            ink = "white" if others[i, j] > 0.6 * high else "black"
            axis.text(j, i, f"{others[i, j]:.2f}".removeprefix("0"), ha="center", va="center", fontsize=6, color=ink)
    axis.figure.colorbar(image, ax=axis, pad=0.01, fraction=0.04, aspect=30)


def _short(label: str) -> str:
    text = shown(label)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


_LINE = 0.19  # inches a label
_LONGEST = 28  # characters of a label
_NUMBERS = 20  # labels
