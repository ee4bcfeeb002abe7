"""The objective as pure functions: classification losses and attention consistency (paper, Sec. 3.1 to 3.3)."""

from __future__ import annotations

__all__ = ["asymmetric", "attention_consistency", "bce", "common_grid", "focal", "weighted_bce"]

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

Array = Tensor | np.ndarray
Unspecified = Literal["negative", "ignore"]

# Every classification loss here is summed over labels and averaged over samples, as the paper's is. PyTorch's
# default also averages over the L labels, which shrinks the loss L times against the consistency term: the same
# lambda would then weigh 14 times more on WIDER, 80 times more on MS-COCO.


def weighted_bce(logits: Array, targets: Array, positive_ratio: Array, unspecified: Unspecified = "negative") -> Tensor:
    """Cross-entropy weighted by label frequency, the paper's classification loss (Sec. 3.1).

    l_c = -(1/N) sum_ij w_ij (y_ij log s(x_ij) + (1 - y_ij) log(1 - s(x_ij))), with w_ij = exp(1 - p_j) where
    y_ij = 1 and exp(p_j) where y_ij = 0.

    Args:
        logits: x, (N, L).
        targets: y, (N, L), 1, 0 or -1 (unspecified).
        positive_ratio: p, (L,), the share of training samples that are positive for each label.
        unspecified: whether -1 counts as negative, as in the authors' code, or is left out of the sum.
    """
    x, y, keep = _prepare(logits, targets, unspecified)
    p = torch.as_tensor(positive_ratio).to(x)
    if p.shape != x.shape[-1:]:
        raise ValueError(f"positive_ratio has shape {tuple(p.shape)}: expected one per label, ({x.shape[-1]},)")
    weight = torch.where(y > 0, (1 - p).exp(), p.exp()) * keep
    return F.binary_cross_entropy_with_logits(x, y, weight, reduction="sum") / len(x)


def bce(
    logits: Array, targets: Array, positive_ratio: Array | None = None, unspecified: Unspecified = "negative"
) -> Tensor:
    """Plain cross-entropy, (N, L) -> scalar: `weighted_bce` with every weight 1. `positive_ratio` is not used."""
    x, y, keep = _prepare(logits, targets, unspecified)
    return F.binary_cross_entropy_with_logits(x, y, keep, reduction="sum") / len(x)


def focal(
    logits: Array,
    targets: Array,
    positive_ratio: Array | None = None,
    unspecified: Unspecified = "negative",
    gamma: float = 2.0,
    alpha: float = -1.0,
) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017), (N, L) -> scalar. `positive_ratio` is not used."""
    x, y, keep = _prepare(logits, targets, unspecified)
    return (sigmoid_focal_loss(x, y, alpha=alpha, gamma=gamma) * keep).sum() / len(x)


def asymmetric(
    logits: Array,
    targets: Array,
    positive_ratio: Array | None = None,
    unspecified: Unspecified = "negative",
    gamma_negative: float = 4.0,
    gamma_positive: float = 0.0,
    margin: float = 0.05,
) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021, Eq. 7), (N, L) -> scalar. `positive_ratio` is not used.

    Positives: -(1 - q)^gamma_positive log q; negatives: -q_m^gamma_negative log(1 - q_m), with q = s(x) and
    q_m = max(q - margin, 0).
    """
    x, y, keep = _prepare(logits, targets, unspecified)
    q = torch.sigmoid(x)
    shifted = (q - margin).clamp(min=0)
    positive = (1 - q) ** gamma_positive * F.logsigmoid(x)
    # Without a margin q rounds to 1, where log(1 - q) would be infinite; from the logit it is not.
    log_negative = torch.log1p(-shifted) if margin > 0 else F.logsigmoid(-x)
    negative = shifted**gamma_negative * log_negative
    return -(torch.where(y > 0, positive, negative) * keep).sum() / len(x)


def attention_consistency(
    heatmaps_a: Array,
    heatmaps_b: Array,
    norm: Literal["mse", "l2"] = "mse",
    visible: Array | None = None,
) -> Tensor:
    """How far two sets of attention heatmaps of the same images differ (Sec. 3.3).

    "mse", as in the authors' code: the mean over N, L, H, W of (a - b)^2. "l2", as the paper's formula:
    1/(N L H W) sum_ij ||a_ij - b_ij||_2. The two sets may lie on different grids, as after scaling; they are then
    compared on the common grid of least common multiple sides, as by nearest-neighbour up-sampling (7 and 6 cells
    give 42), without building it.

    Args:
        heatmaps_a: (N, L, h, w), already moved by the transform.
        heatmaps_b: (N, L, h', w'), of the transformed images.
        visible: bool (h, w) on the grid of `heatmaps_a`; False cells are left out, of the count too.
    """
    a, b = _float(heatmaps_a), _float(heatmaps_b)
    if norm not in ("mse", "l2"):
        raise ValueError(f"norm={norm!r}: expected 'mse' (authors' code) or 'l2' (the paper's formula)")
    if a.ndim != 4 or b.ndim != 4 or a.shape[:2] != b.shape[:2]:
        raise ValueError(
            f"heatmaps of shapes {tuple(a.shape)} and {tuple(b.shape)}: expected (N, L, h, w) of the same N and L"
        )
    mask = None if visible is None else torch.as_tensor(visible, device=a.device).to(a.dtype)
    if mask is not None and mask.shape != a.shape[-2:]:
        raise ValueError(f"visible has shape {tuple(mask.shape)}: expected that of heatmaps_a, {tuple(a.shape[-2:])}")
    cells: Tensor | float = 1.0
    if a.shape[-2:] != b.shape[-2:]:
        a_rows, b_rows, heights = common_grid(a.shape[-2], b.shape[-2], a.device)
        a_columns, b_columns, widths = common_grid(a.shape[-1], b.shape[-1], a.device)
        a = a[..., a_rows[:, None], a_columns]
        b = b[..., b_rows[:, None], b_columns]
        mask = None if mask is None else mask[a_rows[:, None], a_columns]
        cells = (heights[:, None] * widths).to(a.dtype)
    squared = (a - b).square()
    count: Tensor | int
    if mask is None and isinstance(cells, float):
        count = a.shape[-2] * a.shape[-1]
    else:
        weight = torch.ones_like(a[0, 0]) * cells
        weight = weight if mask is None else weight * mask
        squared = squared * weight
        # Where nothing of the original stays in sight, the sum is 0 and so is the loss.
        count = weight.sum().clamp(min=1)
    per_map = squared.sum((-2, -1))
    if norm == "l2":
        # The gradient of a square root at 0 is infinite; two equal maps must push nothing.
        per_map = torch.where(per_map > 0, per_map, 1.0).sqrt() * (per_map > 0)
    return per_map.mean() / count


def common_grid(a: int, b: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The intervals between all cell edges of two partitions of one side.

    Returns each interval's cell in a, its cell in b, and its length in cells of the least common multiple grid.
    The a + b - gcd(a, b) intervals carry the same sum as the lcm(a, b) equal cells.
    """
    common = math.lcm(a, b)
    edges = sorted({*range(0, common, common // a), *range(0, common, common // b), common})
    start = torch.tensor(edges[:-1])
    length = torch.tensor(edges[1:]) - start
    return (
        (start // (common // a)).to(device),
        (start // (common // b)).to(device),
        length.to(device),
    )


def _prepare(logits: Array, targets: Array, unspecified: str) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets in {0, 1}, and weights that are 0 where a label is to be ignored, all of one dtype."""
    x = _float(logits)
    y = torch.as_tensor(targets).to(x.device)
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(
            f"logits of shape {tuple(x.shape)} and targets of shape {tuple(y.shape)}: expected (N, L) both"
        )
    if unspecified not in ("negative", "ignore"):
        raise ValueError(f"unspecified={unspecified!r}: expected 'negative' or 'ignore'")
    keep = torch.ones_like(x) if unspecified == "negative" else (y >= 0).to(x.dtype)
    return x, (y > 0).to(x.dtype), keep


def _float(values: Array) -> Tensor:
    """At least single precision: a half-precision sum over a batch would lose the small terms."""
    x = torch.as_tensor(values)
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
