"""The paired bootstrap over test samples: how sure is it that one row is better than another."""

from __future__ import annotations

__all__ = ["Interval", "compare", "resamples", "scores"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from vac_lightning.metrics import RULES, average_precision


@dataclass(frozen=True)
class Interval:
    """A difference of two rows' mAP: low and high bound its 95 % interval, in its unit.

    p_value: one-sided, of "the first is better"; small where the resamples in which it is not are few.
    """

    low: float
    high: float
    p_value: float


def resamples(samples: int, times: int = 1000, seed: int = 0) -> Tensor:
    """How often each sample is drawn when N samples are drawn from N with replacement: int16 (N, R).

    Two models that are scored with the same resamples are compared in pairs.
    """
    generator = np.random.default_rng(seed)
    counts = np.empty((samples, times), np.int16)
    for resample in range(times):
        counts[:, resample] = np.bincount(generator.integers(samples, size=samples), minlength=samples)
    return torch.from_numpy(counts)


@torch.no_grad()
def scores(
    logits: np.ndarray, targets: np.ndarray, counts: Tensor, protocol: str = "vac", most_steps: int = 256
) -> np.ndarray:
    """mAP in percent on each resample, (R,), as `metrics.evaluate` gives it on the samples drawn.

    A sample drawn n times has weight n, so a label is sorted once for all resamples. AP is a sum over steps, one at
    every score that a positive sample has. Of a label with more than `most_steps` of them, neighbours are merged and
    precision is taken halfway through; what this changes in the AP of the samples themselves is taken off again. It
    moves a resample's mAP by a few percent of what resamples differ by, and saves most of the time.

    A label without a positive sample in a resample is left out of that resample's mean, and unspecified labels are
    left out of AP.

    Args:
        logits: (N, L).
        targets: (N, L), 1, 0 or -1 (unspecified).
        counts: how often each sample is drawn, (N, R), see `resamples`.
        protocol: of AP, see `metrics.evaluate`.
        most_steps: of a label.
    """
    interpolated = RULES[protocol].interpolated
    labels, offsets = [], []
    for column, truth in zip(logits.T, targets.T, strict=True):
        if (truth == 1).any():
            labels.append(steps := _steps(column, truth, most_steps))
            known, once = truth != -1, torch.ones(len(column), 1)
            exact = average_precision(column[known], truth[known] == 1, interpolated)
            offsets.append(exact - float(_average_precision(steps, once, interpolated)))
    # A block of resamples that stays in the processor's cache is several times faster than all of them at once.
    width = max(16, _BLOCK // len(logits))
    blocks = []
    for first in range(0, counts.shape[1], width):
        weights = counts[:, first : first + width].float()
        values = [_average_precision(s, weights, interpolated) + o for s, o in zip(labels, offsets, strict=True)]
        blocks.append(torch.stack(values).nanmean(0) if values else torch.full(weights.shape[1:], torch.nan))
    return 100 * torch.cat(blocks).double().numpy()


def compare(row: Sequence[np.ndarray], baseline: Sequence[np.ndarray]) -> Interval:
    """Whether a row is better than its baseline: of each, the `scores` (R,) of the seeds that both have, in order.

    The statistic is the mean over seeds of the difference. The p-value is (1 + the number of resamples in which it
    is not above 0) / (1 + R), where a tie is half: never 0, and about uniform where the two are equally good.
    """
    differences = np.mean([a - b for a, b in zip(row, baseline, strict=True)], axis=0)
    differences = differences[~np.isnan(differences)]
    if not differences.size:
        return Interval(np.nan, np.nan, np.nan)
    low, high = np.percentile(differences, (2.5, 97.5))
    against = (differences < 0).sum() + 0.5 * (differences == 0).sum()
    return Interval(float(low), float(high), float((1 + against) / (1 + differences.size)))


@dataclass(frozen=True)
class _Steps:
    """The samples of one label, highest score first, cut at scores that positive samples have.

    positives, others: samples in order. first_positive, first_other: where each step begins in them.
    beyond: (steps, 1), how much of a step lies beyond the place its precision is taken at; 0 where nothing is merged.
    """

    positives: Tensor
    first_positive: Tensor
    others: Tensor
    first_other: Tensor
    beyond: Tensor


def _steps(scores: np.ndarray, targets: np.ndarray, most: int) -> _Steps:
    """Of a label with a positive sample: scores (N,), targets (N,)."""
    positives, others = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
    positives = positives[np.argsort(-scores[positives], kind="stable")]
    others = others[np.argsort(-scores[others], kind="stable")]
    steps, first = np.unique(-scores[positives], return_index=True)
    # A step counts the other samples down to its own score, and equal ones with it.
    ends = np.searchsorted(-scores[others], steps, side="right")
    bounds = np.linspace(0, len(steps), min(len(steps), most) + 1).round().astype(np.int64)
    merged = np.diff(bounds)
    first, ends = first[bounds[:-1]], ends[bounds[1:] - 1]
    starts = np.concatenate([[0], ends[:-1]])
    # What lies beyond the mean of the places of its own m steps, 1/m, 2/m, ..., 1.
    beyond = torch.from_numpy((merged - 1) / (2 * merged)).float()[:, None]
    return _Steps(_whole(positives), _whole(first), _whole(others[: ends[-1]]), _whole(starts), beyond)


def _whole(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers.astype(np.int64))


def _average_precision(steps: _Steps, weights: Tensor, interpolated: bool) -> Tensor:
    """AP in [0, 1] for each column of weights (N, R): as `metrics.average_precision`, with samples that count often.

    NaN where no positive sample is drawn.
    """
    gained = _step_sums(steps.positives, steps.first_positive, weights)
    others = _step_sums(steps.others, steps.first_other, weights)
    hits, misses = gained.cumsum(0), others.cumsum(0)
    total = hits[-1].clone()
    if steps.beyond.any():
        hits.addcmul_(steps.beyond, gained, value=-1)
        misses.addcmul_(steps.beyond, others, value=-1)
    precision = hits / misses.add_(hits).clamp_(min=0.5)  # 0 / 0 before anything is drawn
    if interpolated:
        # A step of which no sample is drawn is never the highest precision of those before it.
        precision = precision.flip(0).cummax(0).values.flip(0)
    return (gained * precision).sum(0) / total


def _step_sums(samples: Tensor, first: Tensor, weights: Tensor) -> Tensor:
    """The weights (N, R) of the samples of each step, added up, (steps, R). Whole numbers are exact up to 2**24."""
    if not samples.numel():
        return torch.zeros(len(first), weights.shape[1])
    return embedding_bag(samples, weights, first, mode="sum")


_BLOCK = 1 << 20  # weights at once: 4 MiB
