"""What a split holds, in numbers."""

from __future__ import annotations

__all__ = ["Overview", "overview"]

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vac_lightning.data.base import Dataset, Published
from vac_lightning.data.doctor import sources
from vac_lightning.data.images.inspection import FileFacts
from vac_lightning.data.reading import Photos


class Overview(NamedTuple):
    """The numbers of one split.

    samples: N.
    labels: the L names.
    positive, negative, unspecified: int64 (L,), samples by what they are for each label.
    images: distinct images; None where the split is not one of photographs.
    sizes: files by (width, height) in pixels, those that can be decoded.
    formats: files by format and mode, such as "JPEG RGB".
    turned: files whose EXIF orientation is another than as stored.
    published: what is published of the split.
    """

    samples: int
    labels: tuple[str, ...]
    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    unspecified: NDArray[np.int64]
    images: int | None
    sizes: Counter[tuple[int, int]]
    formats: Counter[str]
    turned: int
    published: Published

    @property
    def ratio(self) -> NDArray[np.float64]:
        """p, (L,): the share of samples that are positive for each label."""
        return self.positive / self.samples


def overview(split: Dataset, facts: Mapping[Path, FileFacts]) -> Overview:
    """The numbers of a split.

    facts: of its files; what is missing here is left out.
    """
    photos = split if isinstance(split, Photos) else None
    found = [facts[path] for path in sources.files(split) if path in facts and not facts[path].error]
    positive, negative, unspecified = ((split.targets == value).sum(0) for value in (1, 0, -1))
    return Overview(
        len(split),
        tuple(split.labels),
        positive,
        negative,
        unspecified,
        images=None if photos is None else len(sources.images(photos).files),
        sizes=Counter((fact.width, fact.height) for fact in found),
        formats=Counter(f"{fact.format} {fact.mode}" for fact in found),
        turned=sum(fact.turn != 1 for fact in found),
        published=(photos.published if photos is not None else None) or Published(),
    )
