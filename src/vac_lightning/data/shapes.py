"""Synthetic scenes of shapes, colours and textures: a multi-label data set drawn from a seed, without files."""

from __future__ import annotations

__all__ = ["Shapes", "shapes"]

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray
from torch import Tensor

from vac_lightning.data.augmentation import Augmentation, augment
from vac_lightning.data.base import DataError, Sample
from vac_lightning.data.reading import squashed


def shapes(
    role: str,
    sizes: Sequence[int],
    *,
    scenes: Mapping[str, int],
    seed: int = 0,
    difficulty: float = 0.5,
    objects: tuple[int, int] = (2, 4),
    augmentation: Augmentation | None = None,
) -> Shapes:
    """The split `role` of the data set.

    role: "train", "val" or "test"; each draws from a stream of its own.
    sizes: source sizes in pixels; scenes are drawn at the largest.
    scenes: role -> number of scenes N.
    difficulty: 0 (vivid colours, bold textures, little clutter) to 1; the targets do not depend on it.
    objects: fewest and most objects in a scene; of many, some may find no room and are left out, labels and all.
    augmentation: an albumentations transform of the scene, uint8 (S, S, 3); in training only.

    Raises:
        DataError: an argument is out of range.
    """
    if role not in _STREAMS or role not in scenes:
        raise DataError(f"role={role!r} is no split here; use one of {[name for name in _STREAMS if name in scenes]}")
    if not sizes or min(sizes) < _SMALLEST:
        raise DataError(f"sizes={list(sizes)}: give at least one size, each of {_SMALLEST} pixels or more")
    augmentation = augmentation if role == "train" else None
    options: dict[str, Any] = {"seed": seed, "difficulty": difficulty, "objects": objects}
    return Shapes(role, max(sizes), scenes[role], augmentation=augmentation, **options)


class Shapes:
    """N scenes of a few objects before a cluttered background; a label is positive when some object has it.

    Each object has a shape, a colour and a texture. None of them depends on orientation, position or size, so labels
    survive mirroring, rotation, shifts and scaling. Clutter has colours and textures too, but does not count.
    A seed gives the same pixels on every machine and in every process: below the vertices all is integer arithmetic.

    groups: label group -> its labels.
    labels: the L labels, group after group.
    targets: int8 (N, L) of 1 and 0.

    Raises:
        DataError: an argument is out of range.
    """

    groups: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "shape": ("circle", "square", "triangle", "star", "cross", "ring"),
            "colour": ("red", "orange", "yellow", "green", "blue", "purple"),
            "texture": ("plain", "striped", "checked", "dotted", "grained"),
        }
    )
    labels: tuple[str, ...] = tuple(label for group in groups.values() for label in group)

    def __init__(
        self,
        role: str,
        size: int,
        count: int,
        *,
        seed: int,
        difficulty: float,
        objects: tuple[int, int],
        augmentation: Augmentation | None = None,
    ) -> None:
        few, most = objects
        if count < 1:
            raise DataError(f"scenes[{role!r}]={count}: ask for at least 1 scene")
        if seed < 0:
            raise DataError(f"seed={seed}: give a seed of 0 or more")
        if not isinstance(difficulty, int | float) or not 0 <= difficulty <= 1:
            raise DataError(f"difficulty={difficulty}: give a number from 0 (easy) to 1 (hard)")
        if not 1 <= few <= most <= _MOST:
            raise DataError(f"objects=({few}, {most}): give (fewest, most) with 1 <= fewest <= most <= {_MOST}")
        self.role, self.size, self.seed, self.difficulty, self.objects = role, size, seed, difficulty, (few, most)
        self.augmentation = augmentation
        self.targets = np.zeros((count, len(self.labels)), np.int8)
        for index in range(count):
            for item in self._scene(index)[0]:
                self.targets[index, self._positions(item)] = 1
        self._drawn: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        """Scene `index` as one image, uint8 (3, S, S), augmented where there is an augmentation."""
        index = range(len(self))[index]
        image = self._drawn.get(index)
        if image is None:
            image = np.ascontiguousarray(self._draw(index)[0].transpose(2, 0, 1))
            if len(self._drawn) < _MEMORY // image.nbytes:
                self._drawn[index] = image
        if self.augmentation is None:
            pixels = torch.from_numpy(image.copy())
        else:
            pixels = squashed(augment(self.augmentation, image.transpose(1, 2, 0)).image, self.size)
        return Sample([pixels], torch.from_numpy(self.targets[index].copy()), index)

    def masks(self, index: int) -> Tensor:
        """Where the objects of each label are visible in scene `index` as drawn, bool (L, S, S)."""
        _, owner, items = self._draw(range(len(self))[index])
        masks = np.zeros((len(self.labels), self.size, self.size), bool)
        for number, item in enumerate(items):
            masks[self._positions(item)] |= owner == number
        return torch.from_numpy(masks)

    def source(self, index: int) -> str:
        """All that decides the pixels of scene `index`."""
        return (
            f"shapes seed={self.seed} split={self.role} index={range(len(self))[index]} size={self.size} "
            f"difficulty={self.difficulty} objects={self.objects[0]}-{self.objects[1]}"
        )

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker draws for itself: cheaper than sending it what is drawn.
        return {**self.__dict__, "_drawn": {}}

    def _positions(self, item: _Item) -> list[int]:
        return [self.labels.index(label) for label in (item.shape, item.colour, item.texture)]

    def _scene(self, index: int) -> tuple[list[_Item], Generator]:
        """The objects of a scene, and the generator to draw it with."""
        rng = Generator(PCG64(SeedSequence([self.seed, _STREAMS[self.role], index])))
        return _place(rng, *self.objects), rng

    def _draw(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int8], list[_Item]]:
        items, rng = self._scene(index)
        return *_paint(items, rng, self.size, round(256 * self.difficulty)), items


_STREAMS = {"train": 0, "val": 1, "test": 2}
_SMALLEST = 32  # pixels: textures of smaller scenes fall through the pixel grid
_MOST = 6  # objects: more would seldom find room
_MEMORY = 256 << 20  # bytes of drawn scenes kept
_UNIT = 4096  # lengths are in 1/4096 of the side, angles in 1/4096 of a turn, draws in 1/4096 of their range
_RADIUS = (700, 920)  # of objects
_TRIES = 64  # places tried for an object
_CLEARANCE = 205  # in 1/256 of the sum of two radii: objects may overlap a little, none hides another
_FRACTION = 4  # fractional bits of a vertex in pixels
_RIM = (24, 24, 24)  # around objects and clutter alike: a rim that only objects had would give their colours away
_HUES = {"red": 0, "orange": 122, "yellow": 244, "green": 372, "blue": 1010, "purple": 1140}  # of 1536 a turn

_Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


class _Item(NamedTuple):
    """An object: its three labels, centre, radius and orientation."""

    shape: str
    colour: str
    texture: str
    x: int
    y: int
    radius: int
    angle: int


def _place(rng: Generator, few: int, most: int) -> list[_Item]:
    """Objects uniformly over the scene and apart from each other; one that finds no room is left out."""
    count = int(rng.integers(few, most + 1))
    groups = Shapes.groups.values()
    kinds = rng.integers(0, [len(group) for group in groups], (count, 3)).tolist()
    angles = rng.integers(0, _UNIT, count).tolist()
    items: list[_Item] = []
    for kind, angle, tries in zip(kinds, angles, rng.integers(0, _UNIT, (count, _TRIES, 3)).tolist(), strict=True):
        shape, colour, texture = (group[k] for group, k in zip(groups, kind, strict=True))
        for across, down, large in tries:
            radius = _between(*_RADIUS, large)
            x, y = _between(radius, _UNIT - radius, across), _between(radius, _UNIT - radius, down)
            if all((x - o.x) ** 2 + (y - o.y) ** 2 >= (_CLEARANCE * (radius + o.radius) >> 8) ** 2 for o in items):
                items.append(_Item(shape, colour, texture, x, y, radius, angle))
                break
    return items


def _paint(items: Sequence[_Item], rng: Generator, size: int, hard: int) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """A scene's pixels, uint8 (S, S, 3), and which object each pixel shows or -1 for none, int8 (S, S).

    hard: the difficulty in 1/256. Only the last draws depend on the size, so a scene looks alike at all sizes.
    """
    owner, textures = np.full((size, size), -1, np.int8), Shapes.groups["texture"]
    ground = rng.integers(90, 210, (6, 6, 1)) + rng.integers(-40, 41, (6, 6, 3))
    grain = _spread(rng.integers(0, 256, (40, 40), np.uint8), size)
    light = _spread(rng.integers(255 - (hard * 220 >> 8), 256, (3, 3, 3)).astype(np.uint8), size)
    strokes = rng.integers(0, _UNIT, (1 + (hard * int(rng.integers(2, 5)) >> 8), 9)).tolist()
    kinds = rng.integers(0, (len(_HUES), len(textures)), (1 + len(strokes), 2)).tolist()
    looks = rng.integers(0, _UNIT, (1 + len(strokes) + len(items), 8)).tolist()
    things = [
        (*_bend(stroke, size), tuple(_HUES)[c], textures[t]) for stroke, (c, t) in zip(strokes, kinds, strict=False)
    ]
    things += [(_outline(item, size), 0, item.colour, item.texture) for item in items]

    shade = _shade(textures[kinds[-1][1]], (0, 0, size, size), size, grain, looks[-1])
    image = (_spread(ground.astype(np.uint8), size) * (1024 - shade)[..., None] >> 10).astype(np.uint8)
    rim = max(1, size // 64)
    for number, ((outline, width, colour, texture), look) in enumerate(zip(things, looks, strict=False), -len(strokes)):
        if width:
            cv2.polylines(image, outline, False, _RIM, width + 2 * rim, cv2.LINE_AA, _FRACTION)
        mask, box = _cover(outline, size, width)
        left, top, right, bottom = box
        _lay(image[top:bottom, left:right], _fill(colour, texture, box, size, grain, look, hard), mask)
        if not width:
            cv2.polylines(image, outline, True, _RIM, rim, cv2.LINE_AA, _FRACTION)
            owner[top:bottom, left:right][mask >= 128] = number

    noise = rng.integers(0, 256, image.shape, np.uint8) * np.uint16(6 + (hard * 48 >> 8)) >> 8
    return np.minimum((image * light.astype(np.uint16) >> 8) + noise, 255).astype(np.uint8), owner


def _between(low: int, high: int, draw: int) -> int:
    """A draw scaled to low <= value < high."""
    return low + ((high - low) * draw >> 12)


def _spread(grid: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A coarse grid over the whole scene; of OpenCV's interpolations the exact one is the same on every machine."""
    return np.asarray(cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)


def _bend(stroke: Sequence[int], size: int) -> tuple[list[NDArray[np.int32]], int]:
    """A bent stroke of clutter: 4 vertices, int32 (4, 2) in 1/16 pixel, and its width in pixels."""
    points = np.array(stroke[:8], np.int32).reshape(4, 2)
    points[1:] = points[0] + (points[1:] - points[0]) // 2
    return [(points * size << _FRACTION) >> 12], max(2, _between(60, 150, stroke[8]) * size // 1000)


def _outline(item: _Item, size: int) -> list[NDArray[np.int32]]:
    """The contours of an object, each int32 (points, 2) in 1/16 pixel."""
    cos, sin = _turn(item.angle)
    pose, centre = np.array([[cos, sin], [-sin, cos]]) * item.radius, np.array([item.x, item.y]) << 12
    contours = [(contour @ pose >> 16) + centre for contour in _CONTOURS[item.shape]]
    return [(contour * size >> 24 - _FRACTION).astype(np.int32) for contour in contours]


def _turn(angle: int) -> tuple[int, int]:
    """Cosine and sine in 1/65536: rounded before any use, so that the last bit of a maths library decides nothing."""
    turn = 2 * math.pi * angle / _UNIT
    return round(65536 * math.cos(turn)), round(65536 * math.sin(turn))


def _cover(outline: Sequence[NDArray[np.int32]], size: int, width: int = 0) -> tuple[NDArray[np.uint8], _Box]:
    """Coverage, uint8 (h, w), of filled contours, or of strokes of a width, and the box it fills."""
    points = np.concatenate(outline) >> _FRACTION
    left, top = np.clip(points.min(0) - 1 - width, 0, size - 1).tolist()
    right, bottom = np.clip(points.max(0) + 2 + width, 1, size).tolist()
    mask = np.zeros((bottom - top, right - left), np.uint8)
    inside = [contour - np.array([left << _FRACTION, top << _FRACTION], np.int32) for contour in outline]
    if width:
        cv2.polylines(mask, inside, False, 255, width, cv2.LINE_AA, _FRACTION)
    else:
        cv2.fillPoly(mask, inside, 255, cv2.LINE_AA, _FRACTION)
    return mask, (left, top, right, bottom)


def _fill(
    colour: str, texture: str, box: _Box, size: int, grain: NDArray[np.uint8], look: Sequence[int], hard: int
) -> NDArray[np.int32]:
    """A colour darkened by a texture, int32 (h, w, 3); the difficulty brings hues together and fades both."""
    reach = 20 + (hard * 41 >> 8)  # at difficulty 1 neighbours meet
    hue = _HUES[colour] + _between(-reach, reach, look[5])
    value, vivid = _between(150, 256, look[6]), _between(120 - (hard * 110 >> 8), 256 - (hard * 220 >> 8), look[7])
    tone = np.empty(3, np.int32)
    for channel, own in enumerate((0, 512, 1024)):
        away = abs((hue - own + 768) % 1536 - 768)
        tone[channel] = value * (255 - vivid * min(255, max(0, away - 256)) // 255) // 255
    contrast = 216 - (hard * 84 >> 8)
    return tone * (65536 - contrast * _shade(texture, box, size, grain, look))[..., None] >> 16


def _shade(texture: str, box: _Box, size: int, grain: NDArray[np.uint8], look: Sequence[int]) -> NDArray[np.int32]:
    """How dark a texture is, 0 to 255 as int32 (h, w), at the orientation, period and phase of a look."""
    left, top, right, bottom = box
    if texture == "plain":
        return np.full((bottom - top, right - left), look[0] >> 4, np.int32)
    if texture == "grained":
        return np.clip(2 * grain[top:bottom, left:right].astype(np.int32) - 128, 0, 255)
    wave = _between(90, 154, look[2]) * size  # in 1/1000 pixel
    along, across = (1000 * part // wave for part in _turn(look[1]))
    x, y = np.arange(left, right, dtype=np.int32), np.arange(top, bottom, dtype=np.int32)[:, None]
    u = np.abs((x * along + y * across + 16 * look[3] >> 8 & 255) - 128)  # triangle waves, 0 to 128
    v = np.abs((y * along - x * across + 16 * look[4] >> 8 & 255) - 128)
    shade: NDArray[np.int32]
    if texture == "striped":
        shade = 8 * u - 384
    elif texture == "checked":
        shade = ((u - 64) * (v - 64) >> 3) + 128
    else:
        shade = 6800 - u * u - v * v >> 4
    return shade.clip(0, 255)


def _lay(patch: NDArray[np.uint8], fill: NDArray[np.int32], mask: NDArray[np.uint8]) -> None:
    """Lay a fill (h, w, 3) over a patch of the image, in place, where the mask (h, w) covers it."""
    cover = mask[..., None].astype(np.int32)
    patch[:] = patch + ((fill - patch) * (cover + (cover >> 7)) >> 8)


def _polygon(*radii: float) -> NDArray[np.int64]:
    """Vertices, int64 (n, 2) in 1/4096 of the object's radius, at even angles around its centre."""
    turns = [2 * math.pi * k / len(radii) for k in range(len(radii))]
    points = [(r * math.cos(turn), r * math.sin(turn)) for r, turn in zip(radii, turns, strict=True)]
    vertices: NDArray[np.int64] = np.rint(_UNIT * np.array(points)).astype(np.int64)
    return vertices


_CROSS = [(7, 2), (2, 2), (2, 7), (-2, 7), (-2, 2), (-7, 2), (-7, -2), (-2, -2), (-2, -7), (2, -7), (2, -2), (7, -2)]
_CONTOURS = {
    "circle": [_polygon(*[0.84] * 48)],
    "square": [_polygon(*[1.0] * 4)],
    "triangle": [_polygon(*[1.0] * 3)],
    "star": [_polygon(*[1.0, 0.4] * 5)],
    "cross": [560 * np.array(_CROSS)],
    "ring": [_polygon(*[0.9] * 48), _polygon(*[0.5] * 48)],  # the second contour is a hole
}
