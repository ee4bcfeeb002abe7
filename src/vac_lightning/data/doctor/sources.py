"""Which files the samples of a split are read from."""

from __future__ import annotations

__all__ = ["Images", "files", "images"]

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vac_lightning.data.base import Dataset
from vac_lightning.data.reading import Photos


class Images(NamedTuple):
    """The M distinct images of a split of photographs.

    files: int32 (M, K), the K files of an image, as positions in the split's `photos.names`.
    first: int64 (M,), the first sample of each.
    """

    files: NDArray[np.int32]
    first: NDArray[np.int64]


def images(split: Photos) -> Images:
    """The distinct images, in the order of their first samples."""
    rows, first = np.unique(split.photos.files, axis=0, return_index=True)
    order = np.argsort(first)
    return Images(rows[order], first[order])


def files(split: Dataset) -> list[Path]:
    """The distinct files of a split; none where it is not one of photographs. Reads none of them."""
    if not isinstance(split, Photos):
        return []
    return [split.photos.folder / split.photos.names[file] for file in np.unique(split.photos.files).tolist()]
