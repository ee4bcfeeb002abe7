"""Augmentation through albumentations: one draw a sample, which boxes and masks follow."""

from __future__ import annotations

__all__ = ["Augmentation", "Augmented", "augment", "compose"]

import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from vac_lightning.data.base import DataError
from vac_lightning.data.images.decoding import Pixels

Augmentation: TypeAlias = Callable[..., Mapping[str, Any]]
"""A transform of albumentations, or any function image=(H, W, C) -> {"image": (H', W', C)}, uint8."""


class Augmented(NamedTuple):
    """What `augment` gives.

    image: uint8 (H', W', C).
    boxes: float64 (n, 4), x, y, w, h in pixels, inside the image.
    kept: int64 (n,), which of the boxes given these are; one that left the image, or whose side fell below a pixel,
        is dropped.
    masks: (K, H', W') of the type given.
    """

    image: Pixels
    boxes: NDArray[np.float64]
    kept: NDArray[np.int64]
    masks: NDArray[Any]


def compose(**transforms: Any) -> Any:
    """Transforms of albumentations by name, one after the other; one that is None is left out.

    The names are words: `augmentation.mirror=null` leaves out the mirror, `augmentation.mirror.p=0.2` makes it rarer.
    """
    import albumentations  # seconds to import, and not needed where nothing is augmented

    return albumentations.Compose([transform for transform in transforms.values() if transform is not None])


def augment(
    augmentation: Augmentation,
    image: Pixels,
    boxes: NDArray[np.float64] | None = None,
    masks: NDArray[Any] | None = None,
) -> Augmented:
    """Draw once, and change an image, its boxes and its masks alike.

    What is drawn follows torch's generator alone, which the data module seeds by (seed, epoch, sample).

    Args:
        augmentation: a transform; of albumentations where boxes or masks are given.
        image: uint8 (H, W, C).
        boxes: (N, 4), x, y, w, h in pixels; what lies outside the image is cut off first.
        masks: (K, H, W).

    Raises:
        ValueError: the augmentation gives no uint8 (H', W', C), or is a function of images alone.
        DataError: it takes no images of C channels.
    """
    boxes = np.empty((0, 4)) if boxes is None else np.asarray(boxes, np.float64)
    masks = np.empty((0, *image.shape[:2]), bool) if masks is None else masks
    given: dict[str, Any] = {"image": np.array(image)}
    whole = augmentation
    if len(boxes) or len(masks):
        whole, augmentation = _with_boxes(augmentation)
        given |= {"bboxes": boxes, "index": np.arange(len(boxes))}
        if len(masks):
            given["masks"] = masks.astype(np.uint8) if masks.dtype == bool else masks
    _reseed(augmentation)
    channels = image.shape[2]
    try:
        changed = whole(**given)
    except (TypeError, ValueError) as error:
        if channels == 3:
            raise
        raise DataError(
            f"augmentation: {error} These images have {channels}: leave that transform out, such as by"
            " augmentation.colour=null"
        ) from error
    pixels: Any = changed["image"]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[2:] != (channels,):
        raise ValueError(f"augmentation must return uint8 (H, W, {channels}): leave out Normalize and ToTensorV2")
    moved = np.asarray(changed["masks"]) if len(masks) else np.empty((0, *pixels.shape[:2]))
    return Augmented(
        np.ascontiguousarray(pixels),
        np.asarray(changed.get("bboxes", boxes), np.float64).reshape(-1, 4),
        np.asarray(changed.get("index", ()), np.int64).reshape(-1),
        moved.astype(masks.dtype),
    )


def _with_boxes(augmentation: Augmentation) -> tuple[Any, Any]:
    """What albumentations must know of boxes around the augmentation, and the augmentation inside it: a copy, because
    it is changed there."""
    import albumentations

    if not isinstance(augmentation, albumentations.BasicTransform | albumentations.BaseCompose):
        raise ValueError(f"augmentation={augmentation!r}: boxes and masks follow albumentations' transforms alone")
    known = albumentations.BboxParams("coco", label_fields=["index"], clip=True, min_width=1, min_height=1)
    inside = deepcopy(augmentation)
    return albumentations.Compose([inside], bbox_params=known), inside


def _reseed(augmentation: Augmentation) -> None:
    """Albumentations keeps generators of its own, which every worker of every epoch would start with alike."""
    if reseed := getattr(augmentation, "set_random_state", None):
        seed = int(torch.randint(2**62, ()))
        reseed(np.random.default_rng(seed), random.Random(seed))
