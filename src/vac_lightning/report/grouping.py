"""Runs gathered into rows that differ by seed alone, in the order of the table they reproduce."""

from __future__ import annotations

__all__ = ["TOP3", "Group", "columns", "group", "layout", "rows"]

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from vac_lightning import experiments
from vac_lightning.configurations import config_hash
from vac_lightning.experiments import Experiment, ExperimentRow
from vac_lightning.metrics import SUMMARY, evaluate
from vac_lightning.report.contents import EPOCHS, Row
from vac_lightning.report.results import Result
from vac_lightning.runs import Place

Group = Mapping[tuple[str, str], Sequence[Result]]
"""(experiment, row) -> its runs, by seed."""

TOP3 = tuple(f"top3_{name}" for name in ("F1-C", "P-C", "R-C", "F1-O", "P-O", "R-O"))
"""Metrics of the three highest-scoring labels of each sample."""


def layout(folders: set[str], name: str | None = None) -> Experiment | None:
    """The experiment whose table runs in these folders belong to: the named one, or one whose rows lie in all of them.

    Raises:
        ValueError: there is no experiment of that name.
    """
    if name is not None:
        if (found := experiments.find(name)) is None:
            raise ValueError(f"table={name}: expected one of {', '.join(experiments.names())}")
        return found
    for folder in sorted(folders):
        found = experiments.find(folder)
        if found is not None and folders <= {folder, *(row.experiment for row in found.rows)}:
            return found
    return None


def group(results: Sequence[Result]) -> Group:
    """The runs of each experiment and row, which differ by seed alone.

    Raises:
        ValueError: runs of one experiment and row that differ by more than the seed, or have the same seed; runs
            measured by different protocols.
    """
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        grouped.setdefault((result.experiment, result.row), []).append(result)
    for (_, name), members in grouped.items():
        if len({config_hash({**result.config, "seed": None}) for result in members}) > 1:
            raise ValueError(f"the runs of row {name} differ by more than the seed: report them apart")
        if len({result.seed for result in members}) < len(members):
            raise ValueError(f"row {name} has two runs of one seed: report them apart")
    protocols = {result.protocol for result in results}
    if len(protocols) > 1:
        raise ValueError(
            f"the runs were measured by different protocols ({', '.join(sorted(protocols))}): report them apart"
        )
    return grouped


def columns(table: Experiment | None) -> tuple[str, ...]:
    """The table's metrics: those of every table, and the top-3 ones where they are published."""
    published = {name for row in table.published for name in row.metrics} if table is not None else set()
    return (*SUMMARY, *(TOP3 if published & {*TOP3} else ()))


def rows(
    grouped: Group, begun: Sequence[Place], table: Experiment | None
) -> tuple[tuple[Row, ...], Mapping[tuple[str, str], str]]:
    """The rows of the table, finished, missing or published by others, then all others that there are runs of.

    In the order published; others, and those of a table without published numbers, as in the paper: plain,
    augmentation, consistency.

    begun: where unfinished runs lie.
    Returns the rows, and (experiment, row) -> the name of the row that runs of it are in.
    """
    left = dict(grouped)
    folders = {experiment for experiment, _ in grouped} | {place.experiment for place in begun}
    names = columns(table)
    listed: list[Row] = []
    named: dict[tuple[str, str], str] = {}
    waiting = {(place.experiment, place.row) for place in begun}
    for method, wanted, published in _entries(table) if table is not None else ():
        if wanted is None:
            listed.append(Row(method, "published", published=published))
            continue
        places = [(wanted.experiment, wanted.name), (table.name, wanted.name)] if table is not None else []
        places += [(folder, wanted.name) for folder in folders if len(folders) == 1]
        found = next((left.pop(place) for place in places if place in left), ())
        waiting -= {*places}
        named |= dict.fromkeys(places, method)
        listed.append(_row(method, found, published, names))
    taken = {row.name for row in listed}
    others: list[Row] = []
    for experiment, name in [*left, *sorted(waiting - {*left})]:
        title = f"{name} ({experiment})" if len(folders) > 1 or name in taken else name
        named[experiment, name] = title
        others.append(_row(title, left.get((experiment, name), ()), {}, names))
    if table is None or not table.published:
        return tuple(sorted([*listed, *others], key=lambda row: _order(row.name))), named
    return (*listed, *sorted(others, key=lambda row: _order(row.name))), named


def _entries(table: Experiment) -> list[tuple[str, ExperimentRow | None, Mapping[str, float]]]:
    """Of each row: its name as printed, where its runs come from, and what is published of it."""
    runs = {row.name: row for row in table.rows}
    published = {row.row for row in table.published}
    return [
        *((row.method, runs.get(row.row) if row.row else None, row.metrics) for row in table.published),
        *((row.name, row, {}) for row in table.rows if row.name not in published),
    ]


def _row(name: str, members: Sequence[Result], published: Mapping[str, float], metrics: Sequence[str]) -> Row:
    if not members:
        return Row(name, "missing", published=published)
    values = {
        epoch: {metric: tuple(r.metrics[epoch].get(metric, np.nan) for r in members) for metric in metrics}
        for epoch in EPOCHS
    }
    if TOP3[0] in metrics:
        of_runs = [_top3(result) for result in members]
        values["best"] |= {metric: tuple(each[metric] for each in of_runs) for metric in TOP3}
    first = members[0]
    return Row(
        name,
        "done",
        runs=tuple(result.run for result in members),
        seeds=tuple(result.seed for result in members),
        backbone=first.backbone,
        transform=first.transform,
        lambda_=first.lambda_,
        metrics=values,
        epochs={epoch: tuple(result.epochs[epoch] for result in members) for epoch in EPOCHS},
        chosen_on=", ".join(sorted({result.chosen_on for result in members})),
        published=published,
    )


def _top3(result: Result) -> dict[str, float]:
    """Of the predictions, which are the best epoch's; NaN where they are gone or there are fewer labels."""
    if not (result.run.path / "predictions.npz").is_file():
        return dict.fromkeys(TOP3, np.nan)
    arrays = result.run.predictions()
    if arrays["logits"].shape[1] < 3:
        return dict.fromkeys(TOP3, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels without positive samples are in the notes
        values = evaluate(arrays["logits"], arrays["targets"], result.protocol, top_k=3)
    return {name: values[name.removeprefix("top3_")] for name in TOP3}


def _order(name: str) -> tuple[str, bool, str]:
    backbone, _, rest = name.partition("+")
    return backbone, rest.startswith("AC"), rest
