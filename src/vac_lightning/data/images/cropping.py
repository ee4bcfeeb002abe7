"""From a photograph to the squares a network sees: cropped to a box, squashed to a size."""

from __future__ import annotations

__all__ = ["Box", "Reading", "corners", "crop", "squashed"]

import math
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vac_lightning.data.images.decoding import ImageFile, Pixels

Box: TypeAlias = tuple[float, float, float, float]
Reading: TypeAlias = Literal["paper", "fast"]


def crop(file: ImageFile, box: Box | None = None, side: int | None = None, reading: Reading = "paper") -> Pixels:
    """The box (x, y, w, h) of an image, or all of it, uint8 (H, W, 3).

    Corners are rounded to whole pixels. A box that starts outside the image, or is empty, falls back to the
    whole image; one that starts inside and ends outside is clipped. The authors' code falls back only past
    the right and bottom edges, and pads with black whatever else lies outside.

    side: what both sides of the crop must have at least to be of use; read fast, a JPEG is decoded at the smallest
        scale of ImageFile.pixels that gives it. None, or read as in the paper: native resolution.

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
