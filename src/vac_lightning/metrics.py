"""Multi-label metrics: the pure `evaluate`, and the torchmetrics.Metric that accumulates for it."""

from __future__ import annotations

__all__ = ["PROTOCOLS", "SUMMARY", "MultilabelEvaluation", "average_precision", "evaluate"]

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

Array = Tensor | np.ndarray

PROTOCOLS = ("vac",)
"""Named metric protocols; what differs between them is defined in `evaluate`."""

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

    Protocol "vac" (the authors' code): AP is step-wise, as scikit-learn's average_precision_score, over the samples
    whose label is specified; everywhere else an unspecified label counts as negative. P-C, R-C and F1-C are means
    over labels of precision, recall and F1 (a label that is never predicted has precision 0); P-O, R-O and F1-O
    pool all sample-label pairs; mA is the mean over labels of (TPR + TNR) / 2. A label without a positive sample
    has no AP and no recall: it is left out of every mean over labels, with a warning, and its AP is NaN.

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
            an unknown protocol, or a top_k outside 1 to L.
    """
    scores, labels = _checked(logits, targets, protocol, top_k)
    truth = labels == 1
    with_positives = truth.any(0)
    if not with_positives.all():
        missing = np.flatnonzero(~with_positives).tolist()
        warnings.warn(f"left out of the means over labels, no positive sample: labels {missing}", stacklevel=2)
    ap = np.array(
        [
            average_precision(scores[known, j], truth[known, j]) if with_positives[j] else np.nan
            for j, known in enumerate((labels != -1).T)
        ]
    )
    above = scores > threshold
    predicted = above if top_k is None else _top_k(scores, top_k)
    tp, fp, fn, _ = _confusion(predicted, truth)
    precision, recall, f1 = _precision_recall_f1(tp, fp, fn)
    overall = _precision_recall_f1(tp.sum(), fp.sum(), fn.sum())
    values = {
        "mAP": _mean(ap[with_positives]),
        "mA": _mean(_balanced_accuracy(*_confusion(above, truth))[with_positives]),
        "F1-C": _mean(f1[with_positives]),
        "P-C": _mean(precision[with_positives]),
        "R-C": _mean(recall[with_positives]),
        "F1-O": float(overall[2]),
        "P-O": float(overall[0]),
        "R-O": float(overall[1]),
        **{f"AP/{j}": float(value) for j, value in enumerate(ap)},
    }
    return {key: 100 * value for key, value in values.items()}


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Step-wise average precision in [0, 1] of scores (N,) against positive (N,) bool; equal scores are one step."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_step = np.append(ranked[1:] != ranked[:-1], True)
    hits = np.cumsum(positive[order])[last_of_step]
    seen = np.flatnonzero(last_of_step) + 1
    return float(np.sum(np.diff(hits, prepend=0) * (hits / seen)) / hits[-1])


class MultilabelEvaluation(Metric):
    """Collects a whole split's logits and targets, over all processes, and evaluates them at once.

    Samples are put back in the order of the split by their index, and one that a distributed sampler repeated
    counts once, so that the result does not depend on the number of processes.
    """

    full_state_update = False
    index: list[Tensor]
    logits: list[Tensor]
    targets: list[Tensor]

    def __init__(self, protocol: str = "vac", top_k: int | None = None) -> None:
        super().__init__()
        self.protocol = protocol
        self.top_k = top_k
        for state in ("index", "logits", "targets"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, logits: Tensor, targets: Tensor) -> None:
        """index int64 (B,), logits (B, L), targets int8 (B, L)."""
        self.index.append(index)
        self.logits.append(logits.float())
        self.targets.append(targets)

    def compute(self) -> dict[str, float]:
        _, logits, targets = self.predictions()
        return evaluate(logits, targets, self.protocol, self.top_k)

    def predictions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """index int64 (N,), logits float32 (N, L), targets int8 (N, L) in split order.

        Of all processes when called from `compute`, or after it while the states are synchronised.
        """
        index, logits, targets = (
            dim_zero_cat(state).cpu().numpy() for state in (self.index, self.logits, self.targets)
        )
        unique, first = np.unique(index, return_index=True)
        return unique, logits[first], targets[first]


def _checked(logits: Array, targets: Array, protocol: str, top_k: int | None) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = _numpy(logits), _numpy(targets)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)  # they are negated to be ranked, which unsigned ones do not survive
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    if scores.ndim != 2 or scores.shape != labels.shape or 0 in scores.shape:
        raise ValueError(
            f"logits of shape {scores.shape} and targets of shape {labels.shape}: expected (N, L) both, N, L at least 1"
        )
    if not np.isfinite(scores).all():
        sample, label = np.argwhere(~np.isfinite(scores))[0].tolist()
        raise ValueError(f"logits[{sample}, {label}] = {scores[sample, label]}: metrics need finite scores")
    outside = ~np.isin(labels, (1, 0, -1))
    if outside.any():
        sample, label = np.argwhere(outside)[0].tolist()
        raise ValueError(f"targets[{sample}, {label}] = {labels[sample, label]}: expected 1, 0 or -1 (unspecified)")
    if top_k is not None and not 1 <= top_k <= scores.shape[1]:
        raise ValueError(f"top_k={top_k}: expected 1 to {scores.shape[1]}, the number of labels")
    return scores, labels


def _numpy(values: Array | Sequence[Sequence[float]]) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        return values.numpy()
    return np.asarray(values)


def _top_k(scores: np.ndarray, k: int) -> np.ndarray:
    predicted = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(predicted, np.argsort(-scores, axis=1, kind="stable")[:, :k], True, axis=1)
    return predicted


def _confusion(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True positives, false positives, false negatives, true negatives of each label, (L,)."""
    tp = (predicted & truth).sum(0)
    fp = predicted.sum(0) - tp
    fn = truth.sum(0) - tp
    return tp, fp, fn, len(truth) - tp - fp - fn


def _precision_recall_f1(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        _share(tp, tp + fp),
        _share(tp, tp + fn),
        _share(2 * tp, 2 * tp + fp + fn),
    )


def _balanced_accuracy(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
    """(TPR + TNR) / 2; a label without negatives has TPR alone."""
    return np.where(fp + tn > 0, (_share(tp, tp + fn) + _share(tn, tn + fp)) / 2, _share(tp, tp + fn))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
