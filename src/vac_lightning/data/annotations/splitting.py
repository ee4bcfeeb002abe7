"""Splits made here, where a data set comes without: of stated shares, and alike in their labels."""

from __future__ import annotations

__all__ = ["stratified"]

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratified(targets: np.ndarray, shares: Sequence[float], seed: int = 0) -> NDArray[np.int64]:
    """The part, int64 (N,), that each sample goes to: every label is shared out as all samples are.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011, Algorithm 1): the label with the fewest
    samples left is shared out first, each sample to the part that lacks most of that label, then to the one that
    lacks most samples, then by lot. Samples without a positive label are shared out last.

    targets: int8 (N, L); 1 is positive, whatever else is not.
    shares: of each part, positive; they need not sum to 1.
    seed: of the lots. The same arguments give the same parts on any machine.

    Raises:
        ValueError: fewer than two shares, or one that is not positive and finite.
    """
    wanted = np.asarray(shares, np.float64)
    if wanted.ndim != 1 or len(wanted) < 2 or not (np.isfinite(wanted) & (wanted > 0)).all():
        raise ValueError(f"shares={list(shares)}: give two or more positive numbers")
    wanted = wanted / wanted.sum()
    positive = np.asarray(targets) == 1
    parts = np.full(len(positive), -1, np.int64)
    lots = np.random.default_rng(seed)
    order = lots.permutation(len(positive))
    lacking = wanted * len(positive)
    lacking_label = np.outer(positive.sum(0), wanted)
    left = positive.sum(0)
    while (left > 0).any():
        label = int(np.where(left > 0, left, np.iinfo(left.dtype).max).argmin())
        for sample in order[positive[order, label] & (parts[order] < 0)].tolist():
            part = _neediest(lacking_label[label], lacking, lots)
            parts[sample] = part
            lacking[part] -= 1
            lacking_label[positive[sample], part] -= 1
            left -= positive[sample]
    for sample in order[parts[order] < 0].tolist():
        parts[sample] = part = _neediest(lacking, lacking, lots)
        lacking[part] -= 1
    return parts


def _neediest(of_label: np.ndarray, of_all: np.ndarray, lots: np.random.Generator) -> int:
    best = np.flatnonzero(of_label == of_label.max())
    if len(best) > 1:
        best = best[of_all[best] == of_all[best].max()]
    return int(best[0] if len(best) == 1 else lots.choice(best))
