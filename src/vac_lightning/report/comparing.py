"""Which rows are compared with which, and how sure it is that one is better."""

from __future__ import annotations

__all__ = ["comparisons", "pairs"]

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from vac_lightning.configurations import config_hash
from vac_lightning.report import bootstrap
from vac_lightning.report.contents import Comparison, Row
from vac_lightning.report.results import Result
from vac_lightning.runs import Run

WORK = 20_000_000_000
"""Resampled scores that one report computes at most, runs x samples x labels x resamples: seconds, not minutes."""


def pairs(rows: Sequence[Row], results: Mapping[Run, Result]) -> list[tuple[Row, Row]]:
    """Each row with attention consistency, with the row of its transform as augmentation, and with the plain row.

    But for transform, lambda, and what these alone use, both have the configuration of the first.
    """
    kin = {row.name: _kin(results[row.runs[0]]) for row in rows if row.runs}
    found: list[tuple[Row, Row]] = []
    for row in rows:
        if not row.runs or not row.lambda_:  # published, missing, plain or augmentation
            continue
        same = [other for other in rows if kin.get(other.name) == kin[row.name]]
        found += [(row, other) for other in same if other.transform == row.transform and other.lambda_ == 0]
        found += [(row, other) for other in same if other.transform == "none"]
    return found


def comparisons(
    rows: Sequence[Row], results: Mapping[Run, Result], protocol: str, times: int = 1000
) -> tuple[tuple[Comparison, ...], list[str]]:
    """Every pair by a bootstrap over test samples of `times` resamples, and sentences on pairs that were left out."""
    wanted: list[_Pair] = []
    left_out: list[str] = []
    predictions: dict[Run, _Predictions] = {}
    work = 0
    for row, baseline in pairs(rows, results) if times else ():
        seeds = tuple(seed for seed in row.seeds if seed in baseline.seeds)
        pair = _Pair(row, baseline, seeds)
        new = [run for run in pair.runs if run not in predictions]
        if not seeds:
            left_out.append(f"{pair.names} (no seed that both have)")
        elif any(not (run.path / "predictions.npz").is_file() for run in new):
            left_out.append(f"{pair.names} (predictions.npz is missing)")
        elif new and work > WORK:
            left_out.append(f"{pair.names} (more than a report resamples in seconds: report these rows by themselves)")
        else:
            predictions |= {run: _predictions(run) for run in new}
            work += sum(predictions[run].logits.size * times for run in new)
            if len({predictions[run].split for run in pair.runs}) > 1:
                left_out.append(f"{pair.names} (tested on different samples)")
            else:
                wanted.append(pair)
    needed = list(dict.fromkeys(run for pair in wanted for run in pair.runs))
    resampled = dict(zip(needed, _scores([predictions[run] for run in needed], protocol, times), strict=True))
    made = []
    for pair in wanted:
        interval = bootstrap.compare(*([resampled[run] for run in side] for side in pair.sides))
        differences = np.subtract(*(np.array([results[r].metrics["best"]["mAP"] for r in side]) for side in pair.sides))
        made.append(
            Comparison(
                row=pair.row.name,
                baseline=pair.baseline.name,
                difference=float(differences.mean()),
                low=interval.low,
                high=interval.high,
                p_value=interval.p_value,
                seeds=pair.seeds,
                samples=len(predictions[pair.runs[0]].logits),
                seeds_better=int((differences > 0).sum()),
            )
        )
    return tuple(made), [f"Not compared: {', '.join(left_out)}."] if left_out else []


@dataclass(frozen=True)
class _Pair:
    row: Row
    baseline: Row
    seeds: tuple[int, ...]

    @property
    def names(self) -> str:
        return f"{self.row.name} with {self.baseline.name}"

    @property
    def sides(self) -> tuple[list[Run], list[Run]]:
        """The runs of both, seed by seed."""
        of_row, of_baseline = (dict(zip(r.seeds, r.runs, strict=True)) for r in (self.row, self.baseline))
        return [of_row[seed] for seed in self.seeds], [of_baseline[seed] for seed in self.seeds]

    @property
    def runs(self) -> list[Run]:
        return [run for side in self.sides for run in side]


@dataclass(frozen=True)
class _Predictions:
    """logits, targets: (N, L) in the order of the split; split: what tells its samples from those of another."""

    logits: np.ndarray
    targets: np.ndarray
    split: str


def _predictions(run: Run) -> _Predictions:
    arrays = run.predictions()
    order = np.argsort(arrays["index"], kind="stable")
    index, logits, targets = (arrays[name][order] for name in ("index", "logits", "targets"))
    split = hashlib.sha256(index.astype(np.int64).tobytes() + targets.astype(np.int8).tobytes()).hexdigest()
    return _Predictions(logits, targets, split)


def _scores(predictions: Sequence[_Predictions], protocol: str, times: int) -> list[np.ndarray]:
    """Of each run the mAP on every resample, the same of all runs of a split.

    A thread a run: several threads within one operation wait for each other wherever the cores are shared.
    """
    counts = {each.split: len(each.logits) for each in predictions}
    resamples = {split: bootstrap.resamples(samples, times) for split, samples in counts.items()}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores) as pool:
            jobs = pool.map(
                lambda each: bootstrap.scores(each.logits, each.targets, resamples[each.split], protocol), predictions
            )
            return list(jobs)
    finally:
        torch.set_num_threads(before)


def _kin(result: Result) -> tuple[str, str]:
    """What rows that may be compared share: the experiment, and the configuration but for transform and lambda."""
    views = result.config.get("views")
    if isinstance(views, Mapping):
        views = {word: value for word, value in views.items() if word not in ("transform", "weights")}
    return result.experiment, config_hash({**result.config, "seed": None, "transform": "none", "views": views})
