"""Multi-scale crops from the corners and the centre, as a transform of albumentations."""

from __future__ import annotations

__all__ = ["CornerCrop"]

from collections.abc import Sequence
from typing import Any

from albumentations.augmentations.crops.transforms import BaseCrop
from albumentations.core.transforms_interface import BaseTransformInitSchema


class CornerCrop(BaseCrop):
    """A crop at one of the four corners or the centre, its width and height drawn independently of each other.

    SRN (Zhu et al., CVPR 2017, Sec. 4) resizes an image to 256 x 256, crops it so with sides out of 256, 224, 192, 168
    and 128 pixels, and resizes the crop to 224 x 224. As shares of the image the sides hold at every size, and the
    first resizing, which would blur, is left out. Each side and each place is as likely as the others, which the
    paper does not say.

    Args:
        shares: of the image's width and height to draw from, above 0 and at most 1.
        p: probability of any crop.

    Raises:
        ValueError: shares that are none, or out of range.
    """

    class InitSchema(BaseTransformInitSchema):
        shares: Sequence[float]

    def __init__(self, shares: Sequence[float] = (1.0, 0.875, 0.75, 0.65625, 0.5), p: float = 1.0) -> None:
        super().__init__(p=p)
        if not shares or not all(0 < share <= 1 for share in shares):
            raise ValueError(f"shares={list(shares)}: give shares of the side above 0 and at most 1, such as [1, 0.5]")
        self.shares = tuple(shares)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        h, w = (max(1, round(side * self.py_random.choice(self.shares))) for side in (height, width))
        left, top = self.py_random.choice(
            ((0, 0), (width - w, 0), (0, height - h), (width - w, height - h), ((width - w) // 2, (height - h) // 2))
        )
        return {"crop_coords": (left, top, left + w, top + h)}
