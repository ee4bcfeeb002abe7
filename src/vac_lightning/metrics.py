"""Multi-label metrics: the pure `evaluate`, with the protocols that codebases follow."""

from __future__ import annotations

__all__ = [
    "PROTOCOLS",
    "RULES",
    "SUMMARY",
    "Rules",
    "average_precision",
    "decisions",
    "evaluate",
    "known_protocol",
]

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray


@dataclass(frozen=True)
class Rules:
    """What differs between protocols; all else is the same in each, see `evaluate`.

    interpolated: AP has VOC 2012's precision envelope, instead of being step-wise.
    precision_of_none: precision of a label that is never predicted, 0 / 0.
    recall_of_none: recall of a label without a positive sample, 0 / 0; NaN leaves it out of P-C, R-C and F1-C.
    f1_of_means: F1-C is the F1 of P-C and R-C, instead of the mean of the labels' F1.
    """

    interpolated: bool = False
    precision_of_none: float = 0.0
    recall_of_none: float = math.nan
    f1_of_means: bool = False


RULES: Mapping[str, Rules] = {
    "vac": Rules(),
    "srn": Rules(interpolated=True, precision_of_none=1.0, recall_of_none=1.0),
    "csra": Rules(f1_of_means=True),
}
"""The named protocols: the authors'; of SRN (and the AP of Query2Label); of CSRA, ASL and ML-Decoder."""

PROTOCOLS = tuple(RULES)

SUMMARY = ("mAP", "mA", "F1-C", "P-C", "R-C", "F1-O", "P-O", "R-O")
"""The columns of the paper's Table 1, in its order."""


def evaluate(
    logits: Array,
    targets: Array,
    protocol: str = "vac",
    top_k: int | None = None,
    threshold: float = 0.0,
) -> dict[str, float]:
    """All metrics of one set of predictions, in percent.

    In every protocol AP is over the samples whose label is specified, and equal scores are one step, so that the
    order of samples does not matter; everywhere else an unspecified label counts as negative. P-C and R-C are means
    over labels of precision and recall; P-O, R-O and F1-O are those of all sample-label pairs pooled, as of one
    label; mA is the mean over labels of (TPR + TNR) / 2, of TPR alone where a label has no negatives. F1 is the
    harmonic mean of precision and recall, 0 where both are 0. A label without a positive sample has no AP and no
    TPR: it is left out of mAP and mA, with a warning, and its AP is NaN.

    - "vac", the authors' code: AP is step-wise, sum_n (R_n - R_n-1) P_n, as scikit-learn's average_precision_score.
      F1-C is the mean of the labels' F1. A label that is never predicted has precision 0; one without a positive
      sample has no recall and is left out of P-C, R-C and F1-C too.
    - "srn", the code of Spatial Regularization Network (Zhu et al., CVPR 2017): AP is interpolated as in VOC 2012,
      sum_n (R_n - R_n-1) max_m>=n P_m. F1-C is the mean of the labels' F1, over all labels: one that is never
      predicted has precision 1, one without a positive sample recall 1 (there eps / eps), and they count so.
    - "csra", the code of CSRA (Zhu and Wu, ICCV 2021): as "vac", but F1-C is the F1 of P-C and R-C.

    A mean over no label is NaN, and so are R-O and F1-O without any positive sample except in "srn".

    Args:
        logits: scores, (N, L).
        targets: (N, L), 1, 0 or -1 (unspecified).
        protocol: one of `PROTOCOLS`.
        top_k: predict each sample's k highest-scoring labels instead of those above `threshold`; touches P, R and
            F1 only. Ties go to the label that comes first.
        threshold: a logit above it is a positive prediction.

    Returns:
        mAP, mA, F1-C, P-C, R-C, F1-O, P-O, R-O, and AP/<j> for each label j.

    Raises:
        ValueError: shapes that do not agree, an empty set, a target outside {1, 0, -1}, a score that is not finite,
            an unknown protocol, a top_k outside 1 to L, or a threshold that is NaN.
    """
    rules = RULES[known_protocol(protocol)]
    scores, labels = _checked(logits, targets)
    above = decisions(scores, None, threshold)
    predicted = above if top_k is None else decisions(scores, top_k)
    truth = labels == 1
    positive = truth.sum(0)
    if not positive.all():
        left_out = "the means over labels" if math.isnan(rules.recall_of_none) else "mAP and mA"
        missing = np.flatnonzero(positive == 0).tolist()
        warnings.warn(f"left out of {left_out}, no positive sample: labels {missing}", stacklevel=2)
    ap = np.empty(labels.shape[1])
    for j in range(len(ap)):
        known = labels[:, j] != -1
        ap[j] = average_precision(scores[:, j][known], truth[:, j][known], rules.interpolated)
    hits, claims = (predicted & truth).sum(0), predicted.sum(0)
    precision, recall, f1 = _precision_recall_f1(hits, claims, positive, rules)
    p_c, r_c = _mean(np.where(np.isnan(recall), np.nan, precision)), _mean(recall)
    overall = _precision_recall_f1(hits.sum(), claims.sum(), positive.sum(), rules)
    values = {
        "mAP": _mean(ap),
        "mA": _mean(_balanced_accuracy(above, truth)),
        "F1-C": float(_f1(p_c, r_c)) if rules.f1_of_means else _mean(f1),
        "P-C": p_c,
        "R-C": r_c,
        "F1-O": float(overall[2]),
        "P-O": float(overall[0]),
        "R-O": float(overall[1]),
        **{f"AP/{j}": float(value) for j, value in enumerate(ap)},
    }
    return {key: 100 * value for key, value in values.items()}


def average_precision(scores: np.ndarray, positive: np.ndarray, interpolated: bool = False) -> float:
    """Average precision in [0, 1] of finite scores (N,) against positive (N,) bool; equal scores are one step.

    Step-wise, or interpolated: with the highest precision at the same recall or above, as in VOC 2012. NaN without a
    positive sample.
    """
    # Steps without a positive sample add nothing and are never the highest precision from there on, so the scores
    # of the others need only be counted: two sorts of values, several times faster than one that keeps the order.
    steps, gained = np.unique(scores[positive], return_counts=True)
    if not steps.size:
        return math.nan
    others = np.sort(scores[~positive])
    hits = gained[::-1].cumsum()[::-1]
    precision = hits / (hits + others.size - np.searchsorted(others, steps))
    if interpolated:
        precision = np.maximum.accumulate(precision)
    return float(np.sum(gained * precision) / hits[0])


def decisions(logits: np.ndarray, top_k: int | None = None, threshold: float = 0.0) -> np.ndarray:
    """Which labels are predicted, bool (N, L): logits (N, L) above the threshold, or each sample's k highest.

    Raises:
        ValueError: a top_k outside 1 to L, or a threshold that is NaN.
    """
    if math.isnan(threshold):
        raise ValueError("threshold=nan: expected a number; a logit above it is a positive prediction")
    if top_k is None:
        return logits > threshold
    if top_k not in range(1, logits.shape[1] + 1):
        raise ValueError(f"top_k={top_k}: expected 1 to {logits.shape[1]}, the number of labels")
    predicted = np.zeros(logits.shape, dtype=bool)
    for first in range(0, len(logits), _ROWS):
        rows = slice(first, first + _ROWS)
        highest = np.argsort(-logits[rows], axis=1, kind="stable")[:, : int(top_k)]
        np.put_along_axis(predicted[rows], highest, True, axis=1)
    return predicted


def known_protocol(protocol: str) -> str:
    """The protocol, where it is one. Raises ValueError where it is not."""
    if protocol not in RULES:
        raise ValueError(f"protocol={protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    return protocol


_ROWS = 4096  # samples ranked at once: 64-bit positions of all would need several times the scores' memory


def _checked(logits: Array, targets: Array) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = _numpy(logits), _numpy(targets)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)  # they are negated to be ranked, which unsigned ones do not survive
    if scores.ndim != 2 or scores.shape != labels.shape or 0 in scores.shape:
        raise ValueError(
            f"logits of shape {scores.shape} and targets of shape {labels.shape}: expected (N, L) both, N, L at least 1"
        )
    if not np.isfinite(scores).all():
        sample, label = np.argwhere(~np.isfinite(scores))[0].tolist()
        raise ValueError(f"logits[{sample}, {label}] = {scores[sample, label]}: metrics need finite scores")
    outside = (labels != 1) & (labels != 0) & (labels != -1)
    if outside.any():
        sample, label = np.argwhere(outside)[0].tolist()
        raise ValueError(f"targets[{sample}, {label}] = {labels[sample, label]}: expected 1, 0 or -1 (unspecified)")
    return scores, labels


def _numpy(values: Array | Sequence[Sequence[float]]) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        return values.numpy()
    return np.asarray(values)


def _precision_recall_f1(
    hits: np.ndarray, claims: np.ndarray, positive: np.ndarray, rules: Rules
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each label, or of the pooled counts: true positives, predictions and positive samples."""
    precision = _ratio(hits, claims, rules.precision_of_none)
    recall = _ratio(hits, positive, rules.recall_of_none)
    return precision, recall, _f1(precision, recall)


def _f1(precision: np.ndarray | float, recall: np.ndarray | float) -> np.ndarray:
    return _ratio(2 * np.multiply(precision, recall), np.add(precision, recall), 0.0)


def _balanced_accuracy(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(TPR + TNR) / 2 of each label, (L,); TPR alone without negatives, NaN without positives."""
    positive, negative = truth.sum(0), (~truth).sum(0)
    tpr = _ratio((predicted & truth).sum(0), positive, math.nan)
    tnr = _ratio(negative - (predicted & ~truth).sum(0), negative, math.nan)
    return np.where(negative > 0, (tpr + tnr) / 2, tpr)


def _ratio(part: np.ndarray, whole: np.ndarray, of_none: float) -> np.ndarray:
    """part / whole, and `of_none` for 0 / 0; a NaN stays one."""
    return np.divide(part, whole, out=np.full(np.shape(whole), of_none), where=np.not_equal(whole, 0))


def _mean(values: np.ndarray) -> float:
    """The mean of those that are defined, NaN where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan
