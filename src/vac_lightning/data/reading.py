"""Photographs from disk as a data set: cropped to a box, squashed to every source size, kept where that is asked."""

from __future__ import annotations

__all__ = ["Box", "Photo", "PhotoIndex", "Photos", "corners", "crop", "merged", "squashed"]

import math
import os
from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import PIL
import simplejpeg
import torch
import torch.utils.data
from numpy.typing import NDArray
from torch import Tensor

from vac_lightning.data.augmentation import Augmentation, augment
from vac_lightning.data.base import DataError, Published, Sample
from vac_lightning.data.images.cropping import Box, Reading, corners, crop, squashed
from vac_lightning.data.images.decoding import ImageFile, Pixels, grey
from vac_lightning.data.images.screening import LeftOut, screened
from vac_lightning.data.keeping.cache import CropCache, Format
from vac_lightning.data.keeping.keys import crop_keys
from vac_lightning.names import relative


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
        self.files = (files if files.ndim == 2 else files[:, None]).astype(np.int32, copy=False)
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
        """The photos at these positions, or where a mask (N,) is true; names of no others are kept."""
        used, files = np.unique(self.files[keep], return_inverse=True)
        names = [self.names[file] for file in used.tolist()]
        files = files.reshape(-1, self.files.shape[1])
        return PhotoIndex(self.folder, names, files.astype(np.int32), self.boxes[keep])

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
    cache: keep the squashed crops of all samples between runs, and make those that are missing now; see `CropCache`.
    cache_format: "raw", or "jpeg": smaller, slower, and other pixels by a little.
    cache_dir: where what is kept between runs lies, see `kept_folder`.
    on_bad_image: "raise" where an image that cannot be read is met, or "skip": inspect all of them first, and leave
        out the samples of those; `left_out` then lists them, out of `inspected` files.
    published: what is published of this split.

    Raises:
        ValueError: `targets` is not (N, L), `sizes` is not one or more positive sides, a word is not one of those
            above, or augmentation is to change crops that are kept as they are.
        DataError: no sample is left; there is no place for the cache, or a file of it cannot be read.
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
        cache: bool = False,
        cache_format: Format = "raw",
        cache_dir: str | None = None,
        on_bad_image: Literal["raise", "skip"] = "raise",
        published: Published | None = None,
    ) -> None:
        if targets.shape != (shape := (len(photos), len(labels))):
            raise ValueError(f"targets is {targets.shape}: give a row a photo and a column a label, {shape}")
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes={list(sizes)}: give one or more sides in pixels, such as [224, 192]")
        _check_words(reading=reading, merge=merge, on_bad_image=on_bad_image, cache=cache, cache_format=cache_format)
        if merge == "rgb" and any(not isinstance(path, Path) and len(path) not in (3, 4) for path, _ in photos[:1]):
            raise ValueError("data.merge=rgb: give red, green, blue and, where there is one, yellow, or take stack")
        self.augmentation = augmentation if role == "train" else None
        if cache and self.augmentation is not None:
            raise ValueError(
                "data.cache=true keeps crops squashed, and in training augmentation needs them at native resolution:"
                " say augmentation=none, or data.cache=false"
            )
        self.photos = photos if isinstance(photos, PhotoIndex) else PhotoIndex.of(photos)
        self.targets = targets.astype(np.int8, copy=False)
        self.on_bad_image = on_bad_image
        self.inspected, self.left_out = 0, list[LeftOut]()
        if on_bad_image == "skip":
            index = self.photos
            self.inspected = len(np.unique(index.files))
            keep, self.left_out = screened(
                index.folder, index.names, index.files, root=root, upright=upright, cache_dir=cache_dir
            )
            if self.left_out:
                self.photos, self.targets = index.take(keep), self.targets[keep]
        self.labels = tuple(labels)
        self.sizes = tuple(sorted(sizes, reverse=True))
        self.root = root
        self.reading: Reading = reading
        self.upright = upright
        self.merge = merge
        self.cache_dir = cache_dir
        self.published = published
        self._last: tuple[Any, tuple[ImageFile, ...]] | None = None
        self.cache = self._filled_cache(cache_format) if cache else None

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
        if self.cache is None:
            return self._read(index, self.sizes)
        kept = self.cache.images(index)
        if kept is not None:
            return kept
        return [self.cache.as_kept(image) for image in self._read(index, self.sizes)]

    def crop(self, index: int) -> Pixels:
        """The box of sample `index`, uint8 (H, W, C): of native resolution, or, read fast, at least as large as the
        largest size needs it."""
        photo = self.photos[index]
        side = self.sizes[0] if self.reading == "fast" and self.augmentation is None else None
        try:
            parts = [crop(file, photo.box, side, self.reading) for file in self._opened(photo.path)]
        except DataError as error:
            skip = "" if self.on_bad_image == "skip" else "; data.on_bad_image=skip leaves such images out"
            raise DataError(f"sample {index}: {error}{skip}") from error
        if len(parts) == 1:
            return parts[0]
        if len({part.shape for part in parts}) > 1:
            shapes = ", ".join(f"{part.shape[1]} x {part.shape[0]}" for part in parts)
            raise DataError(f"sample {index} ({self.source(index)}): its files differ in size ({shapes})")
        return merged([grey(part) for part in parts], self.merge)

    def source(self, index: int) -> str:
        """The files of sample `index`, relative to the root where they lie inside it, and its box."""
        path, box = self.photos[index]
        name = relative(self.root, *(path if isinstance(path, tuple) else (path,)))
        return name if box is None else f"{name} [{', '.join(f'{value:.12g}' for value in box)}]"

    def _read(self, index: int, sizes: Sequence[int]) -> list[Tensor]:
        """The images of sample `index` at these sizes from its files, uint8 (C, s, s)."""
        pixels = self.crop(index)
        if self.augmentation is not None:
            pixels = augment(self.augmentation, pixels).image
        return [squashed(pixels, size, self.reading) for size in sizes]

    def _filled_cache(self, format: Format) -> CropCache:
        files = self.photos.files
        channels = files.shape[1] if self.merge == "stack" and files.shape[1] > 1 else 3
        made_by = [simplejpeg.__version__, PIL.__version__]
        if self.reading == "fast":  # which decodes no more than its largest size needs
            made_by += [torch.__version__, str(self.sizes[0])]
        manner = [self.reading, self.upright, self.merge, channels, format, *made_by]
        names = [os.path.join(self.photos.folder, name) for name in self.photos.names]  # noqa: PTH118
        keys = crop_keys(names, files, self.photos.boxes, self.sizes, manner)
        cache = CropCache(self.root, keys, self.sizes, channels, format, self.cache_dir)
        cache.fill(files, lambda: copy(self)._read)  # each with a last file of its own
        return cache

    def _opened(self, path: Path | tuple[Path, ...]) -> tuple[ImageFile, ...]:
        """The files of a photo; the last one's stay open, because people of a scene follow one another in its order."""
        if self._last is None or self._last[0] != path:
            self._last = None  # never two of them in memory
            paths = path if isinstance(path, tuple) else (path,)
            self._last = path, tuple(ImageFile(one, self.upright) for one in paths)
        return self._last[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}


def merged(parts: Sequence[Pixels], merge: str) -> Pixels:
    """One image (H, W, C) of greys (H, W)."""
    if merge == "stack":
        return np.stack(parts, -1)
    red, green, blue, *yellow = parts
    if yellow:
        half = yellow[0] // 2
        red, green = (part + np.minimum(half, 255 - part) for part in (red, green))
    return np.stack([red, green, blue], -1)


def _check_words(**words: Any) -> None:
    for word, value in words.items():
        if value not in _WORDS[word]:
            raise ValueError(f"data.{word}={value}: choose {' or '.join(map(str, _WORDS[word])).lower()}")


_WORDS: dict[str, tuple[Any, ...]] = {
    "reading": ("paper", "fast"),
    "merge": ("stack", "rgb"),
    "on_bad_image": ("raise", "skip"),
    "cache": (True, False),
    "cache_format": ("raw", "jpeg"),
}
_WHOLE = (math.nan,) * 4
