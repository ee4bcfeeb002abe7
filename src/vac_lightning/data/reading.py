"""Photographs from disk: decoded once, cropped to a box, squashed to every source size."""

from __future__ import annotations

__all__ = ["Augmentation", "Box", "Photo", "Photos", "below", "blame", "read_photo"]

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.utils.data
from PIL import Image
from torch import Tensor

from vac_lightning.data.base import DataError, Sample
from vac_lightning.names import inside

Box: TypeAlias = tuple[float, float, float, float]
Augmentation: TypeAlias = Callable[..., Mapping[str, Any]]


class Photo(NamedTuple):
    """One sample on disk: a file, and the box (x, y, w, h) in pixels to crop from it, or None for all."""

    path: Path
    box: Box | None = None


class Photos(torch.utils.data.Dataset[Sample]):
    """A map-style data set of photographs.

    photos: N files with their boxes.
    targets: int8 (N, L) of 1, 0, -1 (unspecified).
    labels: the L names of the labels.
    sizes: sides in pixels of the square images a sample holds. The crop is squashed to each (aspect ratio not
        kept, as in the authors' code), by bicubic interpolation: the authors leave the filter to Pillow's default,
        which is bicubic today and was nearest neighbour before Pillow 7.
    root: what `source` names files relative to, so that a data set has one fingerprint wherever it lies.
    augmentation: an albumentations transform of the crop, uint8 (H, W, 3), before it is squashed.

    Raises:
        ValueError: `targets` is not (N, L), or `sizes` is not one or more positive sides.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        targets: np.ndarray,
        labels: Sequence[str],
        sizes: Sequence[int],
        root: Path,
        augmentation: Augmentation | None = None,
    ) -> None:
        if targets.shape != (shape := (len(photos), len(labels))):
            raise ValueError(f"targets is {targets.shape}: give a row a photo and a column a label, {shape}")
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes={list(sizes)}: give one or more sides in pixels, such as [224, 192]")
        self.photos = photos
        self.targets = targets.astype(np.int8, copy=False)
        self.labels = tuple(labels)
        self.sizes = tuple(sorted(sizes, reverse=True))
        self.root = root
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`: uint8 images (3, s, s), largest first, and int8 targets (L,).

        Raises:
            DataError: the file is missing or cannot be decoded; the message names it and the sample.
        """
        index = range(len(self))[index]
        try:
            crop = read_photo(*self.photos[index])
        except DataError as error:
            raise DataError(f"sample {index}: {error}") from error
        if self.augmentation is not None:
            crop = _augmented(crop, self.augmentation)
        images = [_squashed(crop, size) for size in self.sizes]
        return Sample(images, torch.tensor(self.targets[index]), index)

    def source(self, index: int) -> str:
        """The file of sample `index`, relative to the root where it lies inside it, and its box."""
        path, box = self.photos[index]
        name = (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()
        return name if box is None else f"{name} [{', '.join(f'{value:.12g}' for value in box)}]"


def read_photo(path: str | Path, box: Box | None = None) -> Image.Image:
    """The box (x, y, w, h) of a photograph, or all of it, as an RGB image of native resolution.

    Corners are rounded to whole pixels. A box that starts outside the image, or is empty, falls back to the
    whole image; one that starts inside and ends outside is clipped. The authors' code falls back only past
    the right and bottom edges, and pads with black whatever else lies outside.

    Pixels are taken as stored, which is what boxes refer to: EXIF orientation is not applied, alpha is
    dropped, 16-bit grey keeps its high byte.

    Raises:
        DataError: the file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return _rgb(image.crop(_corners(box, image.width, image.height)))
    except Exception as error:  # decoders raise anything on damaged bytes
        remedy = "check data.root, fetch the file again, or take it out of the annotations"
        raise DataError(f"cannot read {path} ({error}): {remedy}") from error


def below(folder: Path, name: str, record: object) -> Path:
    """The file `name` of an annotation, below the folder it is relative to; links there may lead anywhere.

    record: what names the file, for the message.

    Raises:
        DataError: a name that leads out of the folder.
    """
    if not inside(name):
        raise DataError(f"{record} names the file {name!r}, outside {folder}: take the record out, or mend its path")
    return folder / name


@contextmanager
def blame(place: object) -> Iterator[None]:
    """Blame `place`, a file or a record in it, for missing keys and wrong values met inside the block.

    Raises:
        DataError: naming `place` and the key, in place of a KeyError, TypeError, ValueError or the like.
    """
    try:
        yield
    except DataError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"the key {error} is missing" if isinstance(error, KeyError) else error
        remedy = "the file is damaged or of another format, fetch it again or mend it"
        raise DataError(f"{place}: {what}; {remedy}") from error


def _corners(box: Box | None, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the box inside a width x height image."""
    if box is not None:
        x, y, w, h = box
        left, top, right, bottom = round(x), round(y), min(round(x + w), width), min(round(y + h), height)
        if 0 <= left < right and 0 <= top < bottom:
            return left, top, right, bottom
    return 0, 0, width, height


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floats of unknown range, save it with 8 bits a channel")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if "transparency" in image.info:  # Pillow warns where such a palette goes to RGB directly
        image = image.convert("RGBA")
    return image.convert("RGB")


def _augmented(image: Image.Image, augmentation: Augmentation) -> Image.Image:
    # Albumentations keeps generators of its own, which every worker of every epoch would start with alike.
    if reseed := getattr(augmentation, "set_random_state", None):
        seed = int(torch.randint(2**62, ()))
        reseed(np.random.default_rng(seed), random.Random(seed))
    pixels = augmentation(image=np.array(image))["image"]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[2:] != (3,):
        raise ValueError("augmentation must return uint8 (H, W, 3): leave out Normalize and ToTensorV2")
    return Image.fromarray(pixels)


def _squashed(image: Image.Image, size: int) -> Tensor:
    pixels = np.array(image.resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
