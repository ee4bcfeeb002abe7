"""The contents of a report, from run folders alone."""

from __future__ import annotations

__all__ = ["gather"]

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vac_lightning.configurations import config_difference, config_hash
from vac_lightning.metrics import SUMMARY
from vac_lightning.report import grouping
from vac_lightning.report.comparing import comparisons
from vac_lightning.report.contents import Attention, Contents, Cost, Curve, LambdaSeries, Row
from vac_lightning.report.notes import notes
from vac_lightning.report.results import Result, read
from vac_lightning.runs import Place, Run, row_name


def gather(
    runs: Iterable[Run],
    experiment: str | None = None,
    *,
    unfinished: Mapping[Run, Place] | None = None,
    resamples: int = 1000,
) -> Contents:
    """Everything a report shows of these runs.

    Args:
        runs: finished ones.
        experiment: whose table it is; the one that the runs belong to where None.
        unfinished: runs under way or stopped, and where they lie: their curves are shown, and their rows as missing.
        resamples: of the bootstrap; 0 for no comparisons.

    Raises:
        ValueError: runs that make no table, see `grouping.group`; an unknown experiment; a damaged file.
    """
    begun = dict(unfinished or {})
    results = {run: read(run) for run in runs}
    folders = {result.experiment for result in results.values()} | {place.experiment for place in begun.values()}
    table = grouping.layout(folders, experiment)
    rows, named = grouping.rows(grouping.group(list(results.values())), list(begun.values()), table)
    protocol = next((result.protocol for result in results.values()), "vac")
    compared, left_out = comparisons(rows, results, protocol, resamples)
    labels = tuple(dict.fromkeys(label for result in results.values() for label in result.labels))
    return Contents(
        title=table.name if table is not None else ", ".join(sorted(folders)),
        protocol=protocol,
        metrics=grouping.columns(table),
        rows=rows,
        notes=(*notes(rows, results, begun, compared, resamples), *left_out),
        comparisons=compared,
        curves=_curves(rows, {run: (named[place.experiment, place.row], place.seed) for run, place in begun.items()}),
        lambdas=_lambdas(rows, results),
        labels=labels,
        label_ap={row.name: _label_ap(row, results, labels) for row in rows if row.runs},
        attention=tuple(each for row in rows if (each := _attention(row)) is not None),
        differences=_differences(rows, results),
        costs=tuple(_cost(row, [results[run] for run in row.runs]) for row in rows if row.runs),
        versions=_versions(results.values()),
        of_experiment=table is not None,
    )


def _curves(rows: Sequence[Row], begun: Mapping[Run, tuple[str, int]]) -> tuple[Curve, ...]:
    """Losses and validation metrics, of finished runs and then of those that are not: begun, with row and seed."""
    named = [(row.name, seed, run) for row in rows for seed, run in zip(row.seeds, row.runs, strict=True)]
    named += [(row, seed, run) for run, (row, seed) in begun.items()]
    curves: list[Curve] = []
    for row, seed, run in named:
        points: dict[str, list[tuple[int, float]]] = {}
        for epoch, values in sorted(run.history().items()):
            for name, value in values.items():
                if name.startswith("train/loss") or name in _VALIDATED:
                    points.setdefault(name, []).append((epoch, value))
        for name, of_name in sorted(points.items()):
            epochs, values_of_name = zip(*of_name, strict=True)
            curves.append(Curve(row, seed, name, epochs, values_of_name))
    return tuple(curves)


def _lambdas(rows: Sequence[Row], results: Mapping[Run, Result]) -> tuple[LambdaSeries, ...]:
    series: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.runs and row.lambda_ is not None:
            result = results[row.runs[0]]
            key = (result.experiment, config_hash({**result.config, "seed": None, "lambda": None}))
            series.setdefault(key, []).append(row)
    made = []
    for members in series.values():
        if len(members) > 1:
            members.sort(key=lambda row: row.lambda_ or 0)
            config = results[members[0].runs[0]].config
            name = row_name(str(members[0].backbone), str(members[0].transform), 1, config.get("variant"))
            lambdas = tuple(float(row.lambda_ or 0) for row in members)
            made.append(LambdaSeries(name, lambdas, tuple(row.metrics["best"]["mAP"] for row in members)))
    return tuple(made)


def _label_ap(row: Row, results: Mapping[Run, Result], labels: Sequence[str]) -> dict[str, tuple[float, ...]]:
    tested = [results[run].metrics["best"] for run in row.runs]
    return {label: tuple(each.get(f"AP/{label}", np.nan) for each in tested) for label in labels}


def _attention(row: Row) -> Attention | None:
    """The means over the seeds that have been measured; None where none has."""
    measured = [held for run in row.runs if (held := _measured(run)) is not None]
    return Attention(row.name, *map(_means, zip(*measured, strict=True))) if measured else None


def _measured(run: Run) -> tuple[dict[str, float], ...] | None:
    """The relative errors before and after training, and the localisation, of those that are defined."""
    try:
        if (held := run.attention()) is None:
            return None
        errors = ({letter: each["relative"] for letter, each in (held[when] or {}).items()} for when in _WHEN)
        parts = [*errors, held["localisation"] or {}]
        return tuple({name: float(value) for name, value in part.items() if value is not None} for part in parts)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{run.path / 'attention.json'} is damaged ({error!r}): remove it to report without"
        ) from error


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in measured for name in each)
    return {name: float(np.mean([each[name] for each in measured if name in each])) for name in names}


def _differences(rows: Sequence[Row], results: Mapping[Run, Result]) -> dict[str, tuple[str, ...]]:
    """Against the first finished row, without the seed, without words inside another that repeat a word of the top.

    And without those that a row without a transform has as well, and has no use for.
    """
    configs = {row.name: {**results[row.runs[0]].config, "seed": None} for row in rows if row.runs}
    made: dict[str, tuple[str, ...]] = {}
    for name, config in configs.items():
        first = next(iter(configs.values()))
        changed = [each.partition(": ") for each in config_difference(first, config)]
        changed = [each for each in changed if each[0] == "lambda" or not _unused(each[0], first, config)]
        top = {(word, change) for word, _, change in changed if "." not in word}
        made[name] = tuple(
            f"{word}: {change}"
            for word, _, change in changed
            if "." not in word or (word.rpartition(".")[2], change) not in top
        )
    return made


def _unused(word: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a word, such as pair_weights.large, is the same in both, so that one of them only leaves it out."""
    values: list[Any] = []
    for config in (one, other):
        value: Any = config
        for part in word.split("."):
            value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        values.append(value)
    return values[0] is not _ABSENT and values[0] == values[1]


def _cost(row: Row, results: Sequence[Result]) -> Cost:
    rates = [result.images_per_s for result in results if result.images_per_s]
    return Cost(
        row=row.name,
        device=", ".join(sorted({result.device for result in results if result.device})),
        device_hours=sum(result.devices * result.train_seconds for result in results) / 3600,
        images_per_s=statistics.median(rates) if rates else None,
        peak_memory_bytes=max((r.peak_memory_bytes for r in results if r.peak_memory_bytes), default=None),
    )


def _versions(results: Iterable[Result]) -> dict[str, str]:
    """Package -> its version, or those of the runs where they differ."""
    found: dict[str, set[str]] = {}
    for result in results:
        for name, version in result.versions.items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


_ABSENT = object()
_WHEN = ("before", "after")
_VALIDATED = frozenset(f"val/{name}" for name in SUMMARY)
