"""The paired bootstrap over test samples: how sure is it that one row is better than another."""

from __future__ import annotations

__all__ = ["Interval", "compare", "resamples", "scores"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from vac_lightning.metrics import RULES


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
def scores(logits: np.ndarray, targets: np.ndarray, counts: Tensor, protocol: str = "vac") -> np.ndarray:
    """mAP in percent on each resample, (R,), as `metrics.evaluate` gives it on the samples drawn.

    A label without a positive sample in a resample is left out of that resample's mean, and unspecified labels are
    left out of AP. A sample drawn n times has weight n, so a label is sorted once for all resamples; see `_step_sums`.

    Args:
        logits: (N, L).
        targets: (N, L), 1, 0 or -1 (unspecified).
        counts: how often each sample is drawn, (N, R), see `resamples`.
        protocol: of AP, see `metrics.evaluate`.
    """
    interpolated = RULES[protocol].interpolated
    labels = [steps for j in range(targets.shape[1]) if (steps := _steps(logits[:, j], targets[:, j])) is not None]
    # A block of resamples that stays in the processor's cache is several times faster than all of them at once.
    width = max(16, _BLOCK // len(logits))
    blocks = []
    for first in range(0, counts.shape[1], width):
        weights = counts[:, first : first + width].float()
        values = [_average_precision(steps, weights, interpolated) for steps in labels]
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
    """The samples of one label, highest score first, cut at every score that a positive sample has.

    positives, others: samples in order. first_positive, first_other: where each step begins in them.
    """

    positives: Tensor
    first_positive: Tensor
    others: Tensor
    first_other: Tensor


def _steps(scores: np.ndarray, targets: np.ndarray) -> _Steps | None:
    """None without a positive sample."""
    positives, others = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
    if not positives.size:
        return None
    positives = positives[np.argsort(-scores[positives], kind="stable")]
    others = others[np.argsort(-scores[others], kind="stable")]
    steps, first = np.unique(-scores[positives], return_index=True)
    # A step counts the other samples down to its own score, and equal ones with it.
    ends = np.searchsorted(-scores[others], steps, side="right")
    arrays = (positives, first, others[: ends[-1]], np.concatenate([[0], ends[:-1]]))
    return _Steps(*(torch.from_numpy(array.astype(np.int64)) for array in arrays))


def _average_precision(steps: _Steps, weights: Tensor, interpolated: bool) -> Tensor:
    """AP in [0, 1] for each column of weights (N, R): as `metrics.average_precision`, with samples that count often.

    NaN where no positive sample is drawn.
    """
    gained = _step_sums(steps.positives, steps.first_positive, weights)
    hits = gained.cumsum(0)
    others = _step_sums(steps.others, steps.first_other, weights).cumsum(0)
    precision = hits / (hits + others).clamp(min=1)
    if interpolated:
        # A step of which no sample is drawn is never the highest precision of those before it.
        precision = precision.flip(0).cummax(0).values.flip(0)
    return (gained * precision).sum(0) / hits[-1]


def _step_sums(samples: Tensor, first: Tensor, weights: Tensor) -> Tensor:
    """The weights (N, R) of the samples of each step, added up, (steps, R). Whole numbers are exact up to 2**24."""
    if not samples.numel():
        return torch.zeros(len(first), weights.shape[1])
    return embedding_bag(samples, weights, first, mode="sum")


_BLOCK = 1 << 20  # weights at once: 4 MiB
