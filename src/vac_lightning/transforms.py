"""Transforms that act on images and on heatmaps alike, so that T(g(I)) = g(T(I)) can be asked for (paper, Sec. 3.2)."""

from __future__ import annotations

__all__ = [
    "Compose",
    "Flip",
    "Rotate",
    "Scale",
    "Transform",
    "Translate",
    "random_flip",
    "random_quarter_turn",
    "random_rotate",
    "random_translate",
]

import math
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Size = tuple[int, int]


class Transform(Protocol):
    """One geometric transform T with its parameters fixed.

    image: T on images (B, C, H, W), H = W; what comes in from outside is 0.
    heatmap: T on attention heatmaps (B, L, h, w), h = w, in the same relative coordinates.
    visible: bool (h, w) on the CPU, True where T(heatmap) comes from inside the original.
    inverse: what brings T(heatmap) back, except where T moved it out of sight.
    """

    def image(self, x: Tensor) -> Tensor: ...

    def heatmap(self, m: Tensor) -> Tensor: ...

    def visible(self, size: Size) -> Tensor: ...

    def inverse(self) -> Transform: ...


@dataclass(frozen=True)
class Flip:
    """Mirror left and right: exact on every grid."""

    def image(self, x: Tensor) -> Tensor:
        return x.flip(-1)

    heatmap = image

    def visible(self, size: Size) -> Tensor:
        return torch.ones(size, dtype=torch.bool)

    def inverse(self) -> Flip:
        return self


@dataclass(frozen=True)
class Translate:
    """Shift by a share of the side, positive down and to the right.

    Exact where the shift is a whole number of pixels or cells, bilinear otherwise.
    """

    dy: float
    dx: float

    def image(self, x: Tensor) -> Tensor:
        rows, columns = self.dy * x.shape[-2], self.dx * x.shape[-1]
        if _whole(rows) and _whole(columns):
            return _shift(x, round(rows), round(columns))
        return _warp(x, [[1.0, 0.0, -2 * self.dx], [0.0, 1.0, -2 * self.dy]])

    heatmap = image

    def visible(self, size: Size) -> Tensor:
        return _seen(self.image(torch.ones(1, 1, *size, dtype=torch.float32)))

    def inverse(self) -> Translate:
        return Translate(-self.dy, -self.dx)


@dataclass(frozen=True)
class Rotate:
    """Turn counter-clockwise about the centre: exact for quarter turns, bilinear otherwise."""

    degrees: float

    def image(self, x: Tensor) -> Tensor:
        if self.degrees % 90 == 0:
            return x.rot90(int(self.degrees // 90), (-2, -1))
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        return _warp(x, [[cos, -sin, 0.0], [sin, cos, 0.0]])

    heatmap = image

    def visible(self, size: Size) -> Tensor:
        return _seen(self.image(torch.ones(1, 1, *size, dtype=torch.float32)))

    def inverse(self) -> Rotate:
        return Rotate(-self.degrees)


@dataclass(frozen=True)
class Scale:
    """Resize the whole image to `size` x `size` pixels.

    In relative coordinates nothing moves, so a heatmap stays as it is; only the grid on which the network
    answers changes. `losses.attention_consistency` compares heatmaps of two grids exactly.
    """

    size: int

    def image(self, x: Tensor) -> Tensor:
        if x.shape[-2:] == (self.size, self.size):
            return x
        return F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)

    def heatmap(self, m: Tensor) -> Tensor:
        return m

    def visible(self, size: Size) -> Tensor:
        return torch.ones(size, dtype=torch.bool)

    def inverse(self) -> Transform:
        """The identity: no heatmap was moved, and the image's size before is not known."""
        return Compose()


@dataclass(frozen=True)
class Compose:
    """Several transforms, the first one first; `Compose()` is the identity."""

    transforms: tuple[Transform, ...] = ()

    def image(self, x: Tensor) -> Tensor:
        return reduce(lambda value, transform: transform.image(value), self.transforms, x)

    def heatmap(self, m: Tensor) -> Tensor:
        return reduce(lambda value, transform: transform.heatmap(value), self.transforms, m)

    def visible(self, size: Size) -> Tensor:
        mask = torch.ones(size, dtype=torch.bool)
        for transform in self.transforms:
            mask = _seen(transform.heatmap(mask[None, None].float())) & transform.visible(size)
        return mask

    def inverse(self) -> Compose:
        return Compose(tuple(transform.inverse() for transform in reversed(self.transforms)))


def random_flip(generator: Generator, grid: Size) -> Flip:
    """The mirror; there is nothing to draw."""
    return Flip()


def random_translate(generator: Generator, grid: Size, max_shift: float = 0.3, whole_cells: bool = True) -> Translate:
    """A shift of at most `max_shift` of the side each way, never zero.

    `whole_cells` keeps to whole cells of the heatmap grid (h, w), where translation is exact; at least one
    cell is allowed however small `max_shift` is. The paper does not publish its range; 0.3 is ours.

    Raises:
        ValueError: `max_shift` is out of range, or the grid so small that one cell is the whole image.
    """
    if not 0 < max_shift < 1:
        raise ValueError(f"max_shift={max_shift}: expected a share of the side between 0 and 1")
    if not whole_cells:
        dy, dx = ((2 * torch.rand(2, generator=generator, dtype=torch.float32) - 1) * max_shift).tolist()
        return Translate(dy, dx)
    if min(grid) < 2:
        raise ValueError(f"a heatmap grid of {grid[0]} x {grid[1]} has no shift by whole cells: use larger images")
    reach = [max(1, int(max_shift * cells + 1e-6)) for cells in grid]
    choices = (2 * reach[0] + 1) * (2 * reach[1] + 1)
    middle = choices // 2
    draw = int(torch.randint(choices - 1, (), generator=generator))
    rows, columns = divmod(draw + (draw >= middle), 2 * reach[1] + 1)
    return Translate((rows - reach[0]) / grid[0], (columns - reach[1]) / grid[1])


def random_quarter_turn(generator: Generator, grid: Size) -> Rotate:
    """90, 180 or 270 degrees, each as likely: exact on square grids. The paper does not publish its range."""
    return Rotate(90.0 * int(torch.randint(1, 4, (), generator=generator)))


def random_rotate(generator: Generator, grid: Size, max_degrees: float = 30.0) -> Rotate:
    """An angle uniform in [-max_degrees, max_degrees], heatmaps interpolated bilinearly."""
    if not 0 < max_degrees <= 180:
        raise ValueError(f"max_degrees={max_degrees}: expected an angle above 0 and at most 180")
    return Rotate(float((2 * torch.rand((), generator=generator, dtype=torch.float32) - 1) * max_degrees))


def _whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6


def _shift(x: Tensor, rows: int, columns: int) -> Tensor:
    height, width = x.shape[-2:]
    shifted = torch.zeros_like(x)
    shifted[..., max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = x[
        ..., max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return shifted


def _warp(x: Tensor, inverse: list[list[float]]) -> Tensor:
    # Mixed precision would round the coordinates to half a pixel of an image of 224.
    precise = x if x.dtype == torch.float64 else x.float()
    with torch.autocast(x.device.type, enabled=False):
        theta = torch.tensor([inverse], dtype=precise.dtype, device=x.device).expand(len(x), 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        warped = F.grid_sample(precise, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.to(x.dtype)


def _seen(warped_ones: Tensor) -> Tensor:
    """Cells that are made of the original alone; half-covered ones would mix in the padding."""
    return warped_ones[0, 0] > 1 - 1e-4
