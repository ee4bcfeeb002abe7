"""What a report shows: the one structure that every format, from CSV to the page, is written from."""

from __future__ import annotations

__all__ = ["EPOCHS", "Attention", "Comparison", "Contents", "Cost", "Curve", "LambdaSeries", "Row"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vac_lightning.runs import Run

EPOCHS = ("best", "last")
"""The two epochs of a run that are tested."""


@dataclass(frozen=True)
class Row:
    """One line of the table: runs of one name that differ by seed, what a paper says of it, or both.

    name: unique; as the paper prints it where there is one.
    state: "done"; "missing": of the experiment, and no run of it is finished; "published": of other authors alone.
    runs, seeds: the finished runs by seed. backbone, transform, lambda_: of the runs; None where there is none.
    metrics: "best" and "last" -> metric -> a value per seed in percent, NaN where undefined.
    epochs: "best" and "last" -> the epoch per seed, counted from 0.
    chosen_on: what the best epoch was chosen on; "" without a run.
    published: metric -> percent, as published.
    """

    name: str
    state: Literal["done", "missing", "published"]
    runs: tuple[Run, ...] = ()
    seeds: tuple[int, ...] = ()
    backbone: str | None = None
    transform: str | None = None
    lambda_: float | None = None
    metrics: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    epochs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    chosen_on: str = ""
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Whether `row` is better than `baseline` in mAP: a paired bootstrap over test samples.

    difference: points of mAP, the mean over the seeds that both have. low, high: its 95 % interval.
    p_value: one-sided, of "row is better than baseline". seeds: that both have. samples: of the test split.
    seeds_better: in how many of these seeds `row` is better: what samples cannot tell, trainings differ too.
    """

    row: str
    baseline: str
    difference: float
    low: float
    high: float
    p_value: float
    seeds: tuple[int, ...]
    samples: int
    seeds_better: int = 0


@dataclass(frozen=True)
class Curve:
    """What one run logged under one name, such as train/loss_a/f or val/mAP: a value per epoch."""

    row: str
    seed: int
    name: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class LambdaSeries:
    """The rows that differ in lambda alone: best-epoch test mAP at every lambda, a value per seed."""

    name: str
    lambdas: tuple[float, ...]
    mAP: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Attention:
    """How well one row's heatmaps follow transforms and lie on what they stand for: means over seeds.

    before, after: transform letter -> relative consistency error before and after training, 0 for heatmaps that
        follow exactly and 1 for unrelated ones.
    localisation: "pointing game", "energy inside" and the like -> percent; empty for data without masks.
    """

    row: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    localisation: Mapping[str, float]


@dataclass(frozen=True)
class Cost:
    """What the runs of one row took: hours of devices (all processes, all seeds) and images/s, the median."""

    row: str
    device: str
    device_hours: float
    images_per_s: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Contents:
    """Everything a report shows.

    metrics: the table's columns in the paper's order.
    differences: row -> the words in which its configuration differs from the first row's, as "lambda: 0 -> 1".
    label_ap: row -> label -> AP per seed at the best epoch, in percent.
    notes: sentences on what must be known to read the numbers: protocol, choice of the epoch, unequal seeds.
    """

    title: str
    protocol: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    curves: tuple[Curve, ...] = ()
    lambdas: tuple[LambdaSeries, ...] = ()
    labels: tuple[str, ...] = ()
    label_ap: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    attention: tuple[Attention, ...] = ()
    differences: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    costs: tuple[Cost, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
