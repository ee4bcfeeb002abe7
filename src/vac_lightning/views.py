"""From a transform word ("none", "f", "fs", "tr", ...) to the views of a batch and the pairs that must agree."""

from __future__ import annotations

__all__ = ["Pair", "ViewPlan", "Views", "labels_at_once"]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint

from vac_lightning.losses import attention_consistency
from vac_lightning.transforms import Compose, Flip, Rotate, Scale, Size, Transform, Translate

Sampler = Callable[[Generator, Size], Transform]
IDENTITY = Compose()
MAX_ELEMENTS = 2**25
"""Of each tensor that two sets of heatmaps are compared with (128 MiB in single precision)."""


class Slot(NamedTuple):
    """A run of views of one size: those at positions start to stop - 1 of that size's forward pass."""

    size: int
    start: int
    stop: int


@dataclass(frozen=True)
class Pair:
    """Two sets of views whose heatmaps must agree: transform(heatmaps of a) = heatmaps of b."""

    name: str
    a: Slot
    b: Slot
    transform: Transform
    weight: float = 1.0


@dataclass(frozen=True)
class ViewPlan:
    """The views of one batch.

    groups: image size in pixels -> the transforms of the views of that size; one group is one forward pass,
        and its first view is the untransformed image.
    pairs: what the consistency loss compares.
    """

    groups: Mapping[int, tuple[Transform, ...]]
    pairs: tuple[Pair, ...]

    def images(self, sources: Tensor | Sequence[Tensor]) -> dict[int, Tensor]:
        """Float sources (B, C, H, W), one or one per size -> size -> (V * B, 3, size, size), view by view.

        A size that no source has is made from the largest source. Views keep its memory layout.
        """
        by_size = {source.shape[-1]: source for source in ([sources] if isinstance(sources, Tensor) else sources)}
        largest = by_size[max(by_size)]
        # What turns or resizes an image may lay it out anew; convolutions are fast on the layout they are made for.
        channels_last = largest.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        images = {}
        for size, transforms in self.groups.items():
            image = by_size[size] if size in by_size else Scale(size).image(largest)
            views = [transform.image(image) for transform in transforms]
            images[size] = (views[0] if len(views) == 1 else torch.cat(views)).contiguous(memory_format=layout)
        return images

    def consistency(self, heatmaps: Mapping[int, Tensor], norm: str = "mse") -> dict[str, Tensor]:
        """Heatmaps by size, (V * B, L, h, w) each -> the unweighted consistency loss of every pair by name.

        As many labels at once as `labels_at_once` allows; where these are not all, each chunk is compared again in the
        backward pass, so that memory beyond the heatmaps does not grow with L.
        """
        return {pair.name: self._compare(pair, heatmaps, norm) for pair in self.pairs}

    def aligned(self, pair: Pair, heatmaps: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """The two heatmap sets of a pair, (n * B, L, h, w) each, the first one moved by the transform."""
        return pair.transform.heatmap(self._select(pair.a, heatmaps)), self._select(pair.b, heatmaps)

    def mean_logits(self, logits: Mapping[int, Tensor]) -> Tensor:
        """Logits by size, (V * B, L) each -> their mean over the views of all sizes, (B, L), of single precision."""
        return torch.cat([_precise(logits[size]).unflatten(0, (len(self.groups[size]), -1)) for size in logits]).mean(0)

    def mean_heatmaps(self, heatmaps: Mapping[int, Tensor]) -> Tensor:
        """Heatmaps by size, (V * B, L, h, w) each -> their mean over the views of all sizes, at the largest's grid.

        Every view's heatmaps are brought back by the inverse of its transform, and those of a smaller grid made larger
        bilinearly. A cell is the mean over the views that show it whole; the untransformed image shows all.
        """
        grid = heatmaps[max(self.groups)].shape[-2:]
        total = count = torch.zeros(())
        for size, transforms in self.groups.items():
            for transform, shown in zip(transforms, heatmaps[size].chunk(len(transforms)), strict=True):
                back = transform.inverse()
                aligned = back.heatmap(_precise(shown))
                seen = back.visible((shown.shape[-2], shown.shape[-1])).to(aligned)[None, None]
                if aligned.shape[-2:] != grid:
                    aligned, seen = (F.interpolate(x, size=grid, mode="bilinear") for x in (aligned, seen))
                seen = (seen > 1 - 1e-4).to(aligned)
                total, count = total + seen * aligned, count + seen
        return total / count

    def _compare(self, pair: Pair, heatmaps: Mapping[int, Tensor], norm: str) -> Tensor:
        a, b = self._select(pair.a, heatmaps), self._select(pair.b, heatmaps)
        compare = partial(_consistency, transform=pair.transform, norm=norm)
        rows, labels = a.shape[:2]
        at_once = labels_at_once(rows, _cells(a.shape[-2], b.shape[-2]) * _cells(a.shape[-1], b.shape[-1]))
        if labels <= at_once:
            return compare(a, b)
        chunks = zip(a.split(at_once, 1), b.split(at_once, 1), strict=True)
        means = [
            checkpoint(compare, x, y, use_reentrant=False, preserve_rng_state=False) * (x.shape[1] / labels)
            for x, y in chunks
        ]
        return torch.stack(means).sum()

    def _select(self, slot: Slot, heatmaps: Mapping[int, Tensor]) -> Tensor:
        stacked = heatmaps[slot.size]
        batch = len(stacked) // len(self.groups[slot.size])
        return stacked[slot.start * batch : slot.stop * batch]


class Views:
    """A transform set: the letters of `transform`, composed.

    "none" is the image alone. Letters of `letters` (t, r, f by default) compose into one transform, the first
    letter first: two views, one pair. "s" shows every view at a second size too, and adds the pair "s". So "fs"
    gives the four views and three pairs of the authors' code: flip at the large size, flip at the small size, and
    scale, which compares all large views with all small ones.

    Args:
        transform: "none", or distinct letters out of `letters` and "s".
        size: side of the large images in pixels; evaluation sees this size alone.
        small_sizes: sides to draw the second size from, once a batch.
        letters: letter -> sampler (generator, heatmap grid) -> transform, drawn once a batch for each size.
        weights: "large", "small" and "scale": of the pairs at the large size, at the small size, and between the
            sizes. A pair that stands alone, as in "f" or "s", weighs 1: the authors give weights for "fs" only.

    Raises:
        ValueError: for a letter that is unknown or given twice, or a size that does not fit.
    """

    def __init__(
        self,
        transform: str,
        size: int,
        small_sizes: Sequence[int],
        letters: Mapping[str, Sampler],
        weights: Mapping[str, float],
    ) -> None:
        allowed = {*letters, "s"}
        chosen = "" if transform == "none" else transform
        if not transform or set(chosen) - allowed or len(set(chosen)) < len(chosen):
            letters_allowed = ", ".join(sorted(allowed))
            raise ValueError(
                f"transform={transform!r}: expected none, or distinct letters out of {letters_allowed}, such as fs"
            )
        if "s" in chosen and (not small_sizes or not all(0 < small < size for small in small_sizes)):
            raise ValueError(
                f"small_sizes={list(small_sizes)}: expected one or more sizes above 0 and below {size} pixels"
            )
        self.transform = transform
        self.size = size
        self.small_sizes = tuple(small_sizes) if "s" in chosen else ()
        self._moves = chosen.replace("s", "")
        self._samplers = {letter: letters[letter] for letter in self._moves}
        self._weights = dict(weights)

    @property
    def sizes(self) -> tuple[int, ...]:
        """All image sizes that may be shown, in pixels, largest first."""
        return (self.size, *sorted(self.small_sizes, reverse=True))

    def plan(self, generator: Generator, grid: Callable[[int], Size]) -> ViewPlan:
        """Draw the views of one batch; `grid` tells the heatmap grid (h, w) of an image size."""
        shown = [self.size]
        if self.small_sizes:
            shown.append(self.small_sizes[int(torch.randint(len(self.small_sizes), (), generator=generator))])
        # Every size draws from the same random numbers: what does not depend on the grid is the same at both.
        state = generator.get_state()
        moves = {size: self._draw(generator.set_state(state), grid(size)) for size in shown}
        groups = {size: (IDENTITY, *moves[size]) for size in shown}
        weights = self._weights if self._moves and self.small_sizes else dict.fromkeys(self._weights, 1.0)
        pairs = []
        if self._moves:
            for size, place in zip(shown, ("large", "small"), strict=False):
                name = f"{self._moves}_{place}" if self.small_sizes else self._moves
                pairs.append(Pair(name, Slot(size, 0, 1), Slot(size, 1, 2), moves[size][0], weights[place]))
        if self.small_sizes:
            large, small = shown
            # Moved views can be compared across sizes only where both sizes were moved alike, which a shift by
            # whole cells of two different grids is not.
            stop = len(groups[large]) if moves[large] == moves[small] else 1
            pairs.append(Pair("s", Slot(large, 0, stop), Slot(small, 0, stop), Scale(small), weights["scale"]))
        return ViewPlan(groups, tuple(pairs))

    def test_plan(self, grid: Callable[[int], Size]) -> ViewPlan:
        """The views of every batch at test time, of which nothing is drawn; `grid` as in `plan`.

        Of "f" the mirror, of "r" the three quarter turns, of "t" the shifts by one cell up, down, left and right,
        whatever is drawn for them in training; of any other letter the transform that its sampler draws from seed 0;
        of "s" every small size. Letters multiply: each size shows every choice of one or none of each letter's.

        Raises:
            ValueError: a grid so small that one cell is the whole image.
        """
        groups = {}
        for size in self.sizes:
            cells = grid(size)
            choices = [(None, *_at_test(letter, draw, cells)) for letter, draw in self._samplers.items()]
            groups[size] = tuple(_composed([move for move in moves if move]) for moves in product(*choices))
        return ViewPlan(groups, ())

    def _draw(self, generator: Generator, grid: Size) -> tuple[Transform, ...]:
        drawn = [sampler(generator, grid) for sampler in self._samplers.values()]
        return (_composed(drawn),) if drawn else ()


def labels_at_once(rows: int, cells: int) -> int:
    """The labels whose (rows, labels, cells) elements stay within MAX_ELEMENTS; at least one."""
    return max(MAX_ELEMENTS // (rows * cells), 1)


def _consistency(a: Tensor, b: Tensor, transform: Transform, norm: str) -> Tensor:
    moved = transform.heatmap(a)
    visible = transform.visible((moved.shape[-2], moved.shape[-1]))
    return attention_consistency(moved, b, norm=norm, visible=None if visible.all() else visible)  # type: ignore[arg-type]


def _cells(a: int, b: int) -> int:
    """The intervals between all cell edges of two partitions of one side, see losses.attention_consistency."""
    return a + b - math.gcd(a, b)


def _at_test(letter: str, sampler: Sampler, grid: Size) -> Sequence[Transform]:
    """The transforms of one letter that test views show."""
    if letter == "f":
        return (Flip(),)
    if letter == "r":
        return (Rotate(90), Rotate(180), Rotate(270))
    if letter != "t":
        return (sampler(Generator().manual_seed(0), grid),)
    if min(grid) < 2:
        raise ValueError(f"a heatmap grid of {grid[0]} x {grid[1]} has no shift by one cell: use larger images")
    row, column = 1 / grid[0], 1 / grid[1]
    return (Translate(-row, 0), Translate(row, 0), Translate(0, -column), Translate(0, column))


def _composed(transforms: Sequence[Transform]) -> Transform:
    return transforms[0] if len(transforms) == 1 else Compose(tuple(transforms))


def _precise(x: Tensor) -> Tensor:
    """Single precision at least: means are not rounded to half."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
