"""What the plots are drawn from, as data that JSON can hold."""

from __future__ import annotations

__all__ = ["data"]

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vac_lightning.names import shown
from vac_lightning.report.contents import Contents
from vac_lightning.report.page.gallery import Pictures


def data(contents: Contents, pictures: Sequence[Pictures]) -> dict[str, Any]:
    """Rows by name in one order, which gives each its colour everywhere, and what each section draws of them.

    A number that is not finite becomes None; six digits are kept.
    """
    ap = {name: of_label for name, of_label in contents.label_ap.items() if of_label}
    names = dict.fromkeys(
        [row.name for row in contents.rows]
        + [name for c in contents.comparisons for name in (c.row, c.baseline)]
        + [curve.row for curve in contents.curves]
        + [a.row for a in contents.attention]
        + [*ap]
    )
    place = {name: i for i, name in enumerate(names)}
    curves: dict[str, list[Any]] = {}
    for curve in contents.curves:
        curves.setdefault(shown(curve.name), []).append(
            [place[curve.row], curve.seed, list(curve.epochs), _numbers(curve.values)]
        )
    return {
        "rows": [shown(name) for name in names],
        "curves": curves,
        "comparisons": [
            {
                "row": place[c.row],
                "baseline": place[c.baseline],
                "difference": _number(c.difference),
                "low": _number(c.low),
                "high": _number(c.high),
                "p": _number(c.p_value),
            }
            for c in contents.comparisons
        ],
        "lambdas": [
            {"name": shown(s.name), "lambdas": list(s.lambdas), "mAP": [_numbers(values) for values in s.mAP]}
            for s in contents.lambdas
        ],
        "labels": [shown(label) for label in contents.labels],
        "ap": [
            [place[name], [_numbers(of_label.get(label, ())) for label in contents.labels]]
            for name, of_label in ap.items()
        ],
        "attention": [
            {"row": place[a.row], "before": _errors(a.before), "after": _errors(a.after)}
            for a in contents.attention
            if a.before or a.after
        ],
        "gallery": [
            {
                "row": place[p.row],
                "seed": p.seed,
                "samples": [
                    {
                        "label": shown(s.label),
                        "scale": _number(s.scale),
                        "tiles": s.tiles,
                        "errors": _errors(s.errors),
                    }
                    for s in p.samples
                ],
                "panels": [[epoch, picture] for epoch, picture in p.panels],
            }
            for p in pictures
        ],
    }


def _errors(errors: Mapping[str, float]) -> dict[str, float | None]:
    return {shown(letter): _number(error) for letter, error in errors.items()}


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
