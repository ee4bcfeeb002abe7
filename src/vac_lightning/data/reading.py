"""Photographs from disk: decoded, cropped to a box, squashed to every source size."""

from __future__ import annotations

__all__ = ["Augmentation", "Box", "Photo", "PhotoIndex", "Photos", "corners", "crop", "squashed"]

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vac_lightning.data.base import DataError, Sample
from vac_lightning.data.decoding import ImageFile, Pixels, grey

Box: TypeAlias = tuple[float, float, float, float]
Augmentation: TypeAlias = Callable[..., Mapping[str, Any]]
Reading: TypeAlias = Literal["paper", "fast"]


class Photo(NamedTuple):
    """One sample on disk.

    path: its file; or several files, each a channel or a part of the colours.
    box: (x, y, w, h) in pixels to crop from it, or None for all.
    """

    path: Path | tuple[Path, ...]
    box: Box | None = None


class PhotoIndex(Sequence[Photo]):
    """Photos by columns: quick to make, to keep and to hand to a loading process, however many there are.

    folder: what the names are relative to.
    names: the files, each once.
    files: int32 (N, K), which of the names are photo i's; K is 1 but where several files make an image.
    boxes: float64 (N, 4), x, y, w, h; NaN for all of the image.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], files: NDArray[np.int32], boxes: NDArray[np.float64] | None = None
    ) -> None:
        self.folder = folder
        self.names = list(names)
        self.files = files.astype(np.int32, copy=False).reshape(len(files), -1)
        self.boxes = np.full((len(files), 4), np.nan) if boxes is None else boxes

    @classmethod
    def of(cls, photos: Iterable[Photo]) -> PhotoIndex:
        """The index of photos one by one."""
        position: dict[str, int] = {}
        files, boxes = [], []
        for path, box in photos:
            paths = path if isinstance(path, tuple) else (path,)
            files.append([position.setdefault(str(one), len(position)) for one in paths])
            boxes.append(_WHOLE if box is None else box)
        return cls(Path(), list(position), np.array(files, np.int32), np.array(boxes, np.float64).reshape(-1, 4))

    def take(self, keep: NDArray[Any]) -> PhotoIndex:
        """The photos at these positions, or where a mask (N,) is true."""
        return PhotoIndex(self.folder, self.names, self.files[keep], self.boxes[keep])

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Photo: ...

    @overload
    def __getitem__(self, index: slice) -> list[Photo]: ...

    def __getitem__(self, index: int | slice) -> Photo | list[Photo]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        paths = tuple(self.folder / self.names[file] for file in self.files[index])
        x, y, w, h = self.boxes[index].tolist()
        return Photo(paths if len(paths) > 1 else paths[0], None if math.isnan(x) else (x, y, w, h))


class Photos(torch.utils.data.Dataset[Sample]):
    """A map-style data set of photographs.

    photos: N files with their boxes.
    targets: int8 (N, L) of 1, 0, -1 (unspecified).
    labels: the L names of the labels.
    sizes: sides in pixels of the square images a sample holds; the crop is squashed to each (aspect ratio not
        kept, as in the authors' code), see `squashed`.
    root: what `source` names files relative to, so that a data set has one fingerprint wherever it lies.
    role: "train", "val" or "test".
    reading: "paper" or "fast", see `crop` and `squashed`.
    upright: turn photographs as their EXIF orientation says; off, they are taken as stored.
    merge: of a photo of several files, "stack" makes each a channel; "rgb" takes them for red, green, blue and,
        where there is a fourth, yellow, half of which is added to red and to green.
    augmentation: an albumentations transform of the crop, uint8 (H, W, C), before it is squashed; in training only.
    cache_dir: where what is kept between runs lies, see `kept_folder`.

    Raises:
        ValueError: `targets` is not (N, L), `sizes` is not one or more positive sides, or a word is not one of those
            above.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        targets: np.ndarray,
        labels: Sequence[str],
        sizes: Sequence[int],
        root: Path,
        *,
        role: str = "train",
        reading: Reading = "paper",
        upright: bool = False,
        merge: Literal["stack", "rgb"] = "stack",
        augmentation: Augmentation | None = None,
        cache_dir: str | None = None,
    ) -> None:
        if targets.shape != (shape := (len(photos), len(labels))):
            raise ValueError(f"targets is {targets.shape}: give a row a photo and a column a label, {shape}")
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes={list(sizes)}: give one or more sides in pixels, such as [224, 192]")
        for word, value, known in (("reading", reading, ("paper", "fast")), ("merge", merge, ("stack", "rgb"))):
            if value not in known:
                raise ValueError(f"data.{word}={value}: choose {' or '.join(known)}")
        if merge == "rgb" and any(not isinstance(path, Path) and len(path) not in (3, 4) for path, _ in photos[:1]):
            raise ValueError("data.merge=rgb: give red, green, blue and, where there is one, yellow, or take stack")
        self.photos = photos if isinstance(photos, PhotoIndex) else PhotoIndex.of(photos)
        self.targets = targets.astype(np.int8, copy=False)
        self.labels = tuple(labels)
        self.sizes = tuple(sorted(sizes, reverse=True))
        self.root = root
        self.reading: Reading = reading
        self.upright = upright
        self.merge = merge
        self.augmentation = augmentation if role == "train" else None
        self.cache_dir = cache_dir
        self._last: tuple[Any, tuple[ImageFile, ...]] | None = None

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`: uint8 images (C, s, s), largest first, and int8 targets (L,).

        Raises:
            DataError: a file is missing or cannot be decoded; the message names it and the sample.
        """
        index = range(len(self))[index]
        return Sample(self.images(index), torch.tensor(self.targets[index]), index)

    def images(self, index: int) -> list[Tensor]:
        """The images of sample `index`, uint8 (C, s, s), largest first."""
        pixels = self.crop(index)
        if self.augmentation is not None:
            pixels = _augmented(pixels, self.augmentation)
        return [squashed(pixels, size, self.reading) for size in self.sizes]

    def crop(self, index: int) -> Pixels:
        """The box of sample `index`, uint8 (H, W, C): of native resolution, or, read fast, at least as large as the
        largest size needs it."""
        photo = self.photos[index]
        side = self.sizes[0] if self.reading == "fast" and self.augmentation is None else None
        try:
            parts = [crop(file, photo.box, side, self.reading) for file in self._opened(photo.path)]
        except DataError as error:
            raise DataError(f"sample {index}: {error}") from error
        if len(parts) == 1:
            return parts[0]
        if len({part.shape for part in parts}) > 1:
            shapes = ", ".join(f"{part.shape[1]} x {part.shape[0]}" for part in parts)
            raise DataError(f"sample {index} ({self.source(index)}): its files differ in size ({shapes})")
        return _merged([grey(part) for part in parts], self.merge)

    def source(self, index: int) -> str:
        """The files of sample `index`, relative to the root where they lie inside it, and its box."""
        path, box = self.photos[index]
        paths = path if isinstance(path, tuple) else (path,)
        name = " + ".join(
            (one.relative_to(self.root) if one.is_relative_to(self.root) else one).as_posix() for one in paths
        )
        return name if box is None else f"{name} [{', '.join(f'{value:.12g}' for value in box)}]"

    def _opened(self, path: Path | tuple[Path, ...]) -> tuple[ImageFile, ...]:
        """The files of a photo; the last one's stay open, because people of a scene follow one another in its order."""
        if self._last is None or self._last[0] != path:
            self._last = None  # never two of them in memory
            paths = path if isinstance(path, tuple) else (path,)
            self._last = path, tuple(ImageFile(one, self.upright) for one in paths)
        return self._last[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}


def crop(file: ImageFile, box: Box | None = None, side: int | None = None, reading: Reading = "paper") -> Pixels:
    """The box (x, y, w, h) of an image, or all of it, uint8 (H, W, 3).

    Corners are rounded to whole pixels. A box that starts outside the image, or is empty, falls back to the
    whole image; one that starts inside and ends outside is clipped. The authors' code falls back only past
    the right and bottom edges, and pads with black whatever else lies outside.

    side: what both sides of the crop must have at least to be of use; read fast, a JPEG is decoded at the smallest
        eighth of its size that gives it. None, or read as in the paper: native resolution.

    Raises:
        DataError: the file cannot be decoded.
    """
    left, top, right, bottom = corners(box, file.width, file.height)
    scale = 1.0 if side is None or reading == "paper" else side / min(right - left, bottom - top)
    pixels = file.pixels(scale, quick=reading == "fast")
    height, width = pixels.shape[:2]
    if (width, height) != (file.width, file.height):
        across, down = width / file.width, height / file.height
        left, right = math.floor(left * across), math.ceil(right * across)
        top, bottom = math.floor(top * down), math.ceil(bottom * down)
    return pixels[top:bottom, left:right]


def corners(box: Box | None, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in whole pixels of the box inside a width x height image, see `crop`."""
    if box is not None:
        x, y, w, h = box
        left, top, right, bottom = round(x), round(y), min(round(x + w), width), min(round(y + h), height)
        if 0 <= left < right and 0 <= top < bottom:
            return left, top, right, bottom
    return 0, 0, width, height


def squashed(pixels: Pixels, size: int, reading: Reading = "paper") -> Tensor:
    """A crop (H, W, C) squashed to uint8 (C, size, size) by the bicubic filter that widens where it shrinks.

    "paper": Pillow's. The authors leave the filter to Pillow's default, which is bicubic today and was nearest
    neighbour before Pillow 7.
    "fast": torch's, whose rounding differs by a level or two.
    """
    if reading == "fast":
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        return nn.functional.interpolate(image, (size, size), mode="bicubic", antialias=True)[0].contiguous()
    layers = [pixels] if pixels.shape[2] == 3 else [pixels[..., c] for c in range(pixels.shape[2])]
    resized = [np.array(Image.fromarray(layer).resize((size, size), Image.Resampling.BICUBIC)) for layer in layers]
    whole = resized[0].transpose(2, 0, 1) if pixels.shape[2] == 3 else np.stack(resized)
    return torch.from_numpy(whole).contiguous()


def _merged(parts: Sequence[Pixels], merge: str) -> Pixels:
    """One image (H, W, C) of greys (H, W)."""
    if merge == "stack":
        return np.stack(parts, -1)
    red, green, blue, *yellow = parts
    if yellow:
        half = yellow[0] // 2
        red, green = (part + np.minimum(half, 255 - part) for part in (red, green))
    return np.stack([red, green, blue], -1)


def _augmented(pixels: Pixels, augmentation: Augmentation) -> Pixels:
    # Albumentations keeps generators of its own, which every worker of every epoch would start with alike.
    if reseed := getattr(augmentation, "set_random_state", None):
        seed = int(torch.randint(2**62, ()))
        reseed(np.random.default_rng(seed), random.Random(seed))
    changed: Any = augmentation(image=np.array(pixels))["image"]
    channels = pixels.shape[2]
    if not isinstance(changed, np.ndarray) or changed.dtype != np.uint8 or changed.shape[2:] != (channels,):
        raise ValueError(f"augmentation must return uint8 (H, W, {channels}): leave out Normalize and ToTensorV2")
    return np.asarray(changed, np.uint8)


_WHOLE = (math.nan,) * 4
