"""The torchmetrics.Metric that collects a split for `metrics.evaluate`; apart from it, for it is slow to import."""

from __future__ import annotations

__all__ = ["MultilabelEvaluation"]

import numpy as np
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from vac_lightning.metrics import evaluate, known_protocol


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
        self.protocol = known_protocol(protocol)
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
