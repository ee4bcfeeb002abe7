"""How well heatmaps follow transforms, and lie on what they stand for."""

from __future__ import annotations

__all__ = ["AttentionQuality", "energy_inside", "pointing_game", "squared_differences"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from vac_lightning.data.base import Batch, Dataset, collate
from vac_lightning.losses import common_grid
from vac_lightning.task import VACTask
from vac_lightning.transforms import Scale
from vac_lightning.views import Sampler, Views, labels_at_once


class AttentionQuality:
    """Measures a network's heatmaps on samples spaced evenly over a split.

    consistency: for every letter, T(g(I)) against g(T(I)), with transforms that depend on the batch alone, so that all
    networks are asked the same. "mse" is the mean squared difference, the paper's l_a; it falls when heatmaps merely
    lose their contrast. "relative" does not: it is the squared difference of the heatmaps, each less its mean, as a
    share of their variances: 0 where they follow exactly, 1 where they have nothing to do with each other.

    localisation: of data with masks, the mean over labels of `pointing_game` and `energy_inside`, with "chance", the
    share of the image that the masks cover, for comparison; of labels that a sample has.

    Args:
        samples: how many.
        size: side of the images in pixels.
        small_sizes: of "s", which compares the size with the first of them.
        letters: letter -> sampler, as for `Views`.
        batch_size: of the samples measured at once.
    """

    def __init__(
        self,
        samples: int,
        size: int,
        small_sizes: Sequence[int],
        letters: Mapping[str, Sampler],
        batch_size: int = 32,
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        weights = dict.fromkeys(("large", "small", "scale"), 1.0)
        known = [letter for letter in (*letters, "s") if letter != "s" or 0 < small_sizes[0] < size]
        self.views = {letter: Views(letter, size, small_sizes[:1], letters, weights) for letter in known}

    @torch.no_grad()
    def measure(self, task: VACTask, dataset: Dataset) -> dict[str, Any]:
        """{"consistency": letter -> {"relative", "mse"}, "localisation": name -> percent, or None without masks}."""
        training = task.network.training
        task.network.eval()
        chosen = np.unique(np.linspace(0, len(dataset) - 1, min(self.samples, len(dataset))).round().astype(int))
        masks_of = getattr(dataset, "masks", None)
        sums = {letter: torch.zeros(3, dtype=torch.double) for letter in self.views}
        localised: list[Tensor] = []
        for number, start in enumerate(range(0, len(chosen), self.batch_size)):
            indices = chosen[start : start + self.batch_size].tolist()
            batch = collate([dataset[i] for i in indices])
            images = task.normalise(_largest(batch).to(task.device))
            for letter, views in self.views.items():
                sums[letter] += self._compared(task, views, images, number)
            if masks_of is not None:
                heatmaps = task.network(Scale(task.views.size).image(images)).heatmaps.float().cpu()
                localised.append(_localised(heatmaps, torch.stack([masks_of(i) for i in indices]), batch.targets))
        task.network.train(training)
        consistency = {
            letter: {"relative": float(moved / spread), "mse": float(error)}
            for letter, (moved, spread, error) in ((letter, values.tolist()) for letter, values in sums.items())
            if spread > 0
        }
        for values in consistency.values():
            values["mse"] /= len(chosen)
        return {"consistency": consistency, "localisation": _percent(localised) if localised else None}

    def _compared(self, task: VACTask, views: Views, images: Tensor, number: int) -> Tensor:
        """Of a batch: the squared difference and the variances, both summed, and samples times the mean square."""
        plan = views.plan(Generator().manual_seed(number), task.network.grid)  # type: ignore[arg-type]
        heatmaps = {size: task.network(x).heatmaps.float() for size, x in plan.images(images).items()}
        (pair,) = plan.pairs
        a, b = plan.aligned(pair, heatmaps)
        moved, spread = squared_differences(a, b, pair.transform.visible((a.shape[-2], a.shape[-1])))
        error = len(images) * plan.consistency(heatmaps)[pair.name].item()
        return torch.tensor([moved, spread, error], dtype=torch.double)


def squared_differences(a: Tensor, b: Tensor, visible: Tensor) -> tuple[float, float]:
    """The summed squared difference of heatmaps, each less its mean, and the sum of both sides' squares.

    Their ratio is 0 for equal patterns, 1 in the mean for unrelated ones, 2 for opposite ones of one contrast,
    whatever the scale and offset of a network's heatmaps.

    a, b: heatmaps (B, L, h, w) and (B, L, h', w'), compared on the least common multiple of the two grids, without
        building it.
    visible: bool (h, w), what of a is seen in both.
    """
    a_rows, b_rows, heights = common_grid(a.shape[-2], b.shape[-2], a.device)
    a_columns, b_columns, widths = common_grid(a.shape[-1], b.shape[-1], a.device)
    seen = visible.to(a.device)[a_rows[:, None], a_columns]
    weight = (heights[:, None] * widths)[seen].double()
    a_cells = (a_rows[:, None] * a.shape[-1] + a_columns)[seen]
    b_cells = (b_rows[:, None] * b.shape[-1] + b_columns)[seen]
    at_once = labels_at_once(len(a), 2 * len(weight))  # of double precision
    moved = spread = 0.0
    for x, y in zip(a.split(at_once, 1), b.split(at_once, 1), strict=True):
        flat = (m.flatten(2)[..., cells].double() for m, cells in ((x, a_cells), (y, b_cells)))
        first, second = (m - (m @ weight / weight.sum())[..., None] for m in flat)
        moved += float(((first - second).square() @ weight).sum())
        spread += float((first.square() @ weight).sum() + (second.square() @ weight).sum())
    return moved, spread


def pointing_game(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """Whether the highest point of each heatmap, bilinear at the masks' size, lies in its mask, bool (B, L).

    As in Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016, without their margin of 15 pixels.

    heatmaps: (B, L, h, w). masks: bool (B, L, H, W).
    """
    highest = _upsampled(heatmaps, masks).flatten(2).argmax(-1, keepdim=True)
    return masks.flatten(2).gather(-1, highest).squeeze(-1)


def energy_inside(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """The share of each heatmap's positive part, bilinear at the masks' size, that lies in its mask, (B, L).

    As in Wang et al., Score-CAM, CVPR Workshops 2020. A heatmap without a positive part has 0.

    heatmaps: (B, L, h, w). masks: bool (B, L, H, W).
    """
    energy = _upsampled(heatmaps, masks).clamp(min=0).flatten(2)
    return (energy * masks.flatten(2)).sum(-1) / energy.sum(-1).clamp(min=1e-12)


def _localised(heatmaps: Tensor, masks: Tensor, targets: Tensor) -> Tensor:
    """(B, L, 3): pointing, energy and the mask's share of the image; NaN where a sample has no mask of a label."""
    found = torch.stack(
        [pointing_game(heatmaps, masks).float(), energy_inside(heatmaps, masks), masks.float().mean((2, 3))], dim=-1
    )
    return found.masked_fill(((targets != 1) | ~masks.flatten(2).any(-1))[..., None], torch.nan)


def _percent(localised: Sequence[Tensor]) -> dict[str, float]:
    """The mean over labels of the means over samples."""
    by_label = torch.cat(list(localised)).nanmean(0)
    values = (100 * by_label[~by_label.isnan().any(1)].mean(0)).tolist()
    return dict(zip(("pointing game", "energy inside", "chance"), values, strict=True))


def _upsampled(heatmaps: Tensor, masks: Tensor) -> Tensor:
    size = (masks.shape[-2], masks.shape[-1])
    return torch.nn.functional.interpolate(heatmaps.float(), size, mode="bilinear", align_corners=False)


def _largest(batch: Batch) -> Tensor:
    return batch.images if isinstance(batch.images, Tensor) else batch.images[0]
