"""What every data set hands over: samples, batches, and errors that say what to do."""

from __future__ import annotations

__all__ = ["FILLER", "Batch", "DataError", "Dataset", "Published", "Sample", "check_labels", "collate", "fingerprint"]

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate

from vac_lightning.names import is_printable

FILLER = -1
"""Index of a sample that only fills a batch: in training, that of a process for which a short batch left none."""


class DataError(ValueError):
    """Data that cannot be used; the message names the file or row, and the remedy."""


class Sample(NamedTuple):
    """One sample as a data set returns it.

    images: uint8 (C, H, W), one per source size, largest first.
    targets: int8 (L,) of 1 (positive), 0 (negative), -1 (unspecified).
    index: the sample's position in its split, or FILLER.
    """

    images: list[Tensor]
    targets: Tensor
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class Batch(NamedTuple):
    """What a data module hands to a task.

    images: uint8 (B, C, H, W), or a list of them, one per source size, largest first.
    targets: int8 (B, L) of 1, 0, -1 (unspecified).
    index: int64 (B,), positions in the split; makes evaluation exact whatever the sampler repeats.
    """

    images: Tensor | list[Tensor]
    targets: Tensor
    index: Tensor  # type: ignore[assignment]


class Published(NamedTuple):
    """What the authors of a data set say of one split, to check a copy of it against; None where they say nothing.

    images: files of images.
    samples: samples, more than images where an image has several.
    positive_ratio: p (L,), the share of samples that are positive for each label.
    """

    images: int | None = None
    samples: int | None = None
    positive_ratio: tuple[float, ...] | None = None


class Dataset(Protocol):
    """A map-style data set: one split, read from one place.

    labels: the L names of the labels.
    targets: int8 (N, L) of 1, 0, -1, known without reading an image.
    """

    labels: tuple[str, ...]
    targets: np.ndarray

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def source(self, index: int) -> str:
        """Where sample `index` comes from (file and box, or seed), for people and fingerprints."""
        ...


def check_labels(labels: Sequence[str]) -> None:
    """Check the names of labels, which become columns, lines of a table, and words in a figure.

    Markup in a label is no harm: wherever labels are shown, they are shown as text.

    Raises:
        DataError: a label that is empty, not a text, given twice, or holds control characters.
    """
    seen: set[str] = set()
    for position, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            problem = "is not a name"
        elif not is_printable(label):
            problem = "holds control characters"
        elif label in seen:
            problem = "is given twice"
        else:
            seen.add(label)
            continue
        raise DataError(f"label {position}, {label!r}, {problem}: rename it in the annotation file")


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of equal sizes into a batch."""
    images, targets, index = default_collate(list(samples))
    return Batch(images[0] if len(images) == 1 else images, targets, index)


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 (first 16 hex digits) of a split's labels, targets and sources: the same data, the same print."""
    digest = hashlib.sha256("\n".join(dataset.labels).encode())
    digest.update(np.ascontiguousarray(dataset.targets, dtype=np.int8).tobytes())
    for index in range(len(dataset)):
        digest.update(dataset.source(index).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()[:16]
