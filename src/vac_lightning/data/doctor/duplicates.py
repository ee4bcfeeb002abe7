"""Images that are there twice, within a split or across two, by the bytes of their files."""

from __future__ import annotations

__all__ = ["check_duplicates", "check_repeated"]

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path

import numpy as np

from vac_lightning.data.base import Dataset
from vac_lightning.data.doctor import sources
from vac_lightning.data.doctor.findings import Finding
from vac_lightning.data.images.inspection import FileFacts
from vac_lightning.data.reading import Photos
from vac_lightning.names import relative


def check_duplicates(splits: Mapping[str, Dataset], facts: Mapping[Path, FileFacts]) -> Iterator[Finding]:
    """Images of the same bytes: within a split a duplicate, in a later split than the first a leak.

    Where a data set is not one of photographs, its sources take the place of bytes.
    """
    earlier: dict[Hashable, str] = {}  # content -> where it was first
    for split_name, split in splits.items():
        here: dict[Hashable, str] = {}
        for content, image, sample in _contents(split, facts):
            if content in here:
                detail = f"the same image as {here[content]} of this split: it counts twice"
                yield Finding("warning", "duplicate", split_name, sample, image, detail=detail)
            elif content in earlier:
                detail = f"the same image as {earlier[content]}: one split knows samples of the other"
                yield Finding("warning", "leak", split_name, sample, image, detail=detail)
            here.setdefault(content, image)
        for content, image in here.items():
            earlier.setdefault(content, f"{image} of {split_name}")


def check_repeated(split_name: str, split: Photos) -> Iterator[Finding]:
    """Samples that are the same box of the same files as one before."""
    index = split.photos
    rows = np.column_stack([index.files, np.nan_to_num(index.boxes, nan=-np.inf)])
    _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    originals = first[group.reshape(-1)]
    for sample in np.flatnonzero(originals != np.arange(len(index))).tolist():
        path, box = index[sample]
        original = int(originals[sample])
        same = np.array_equal(split.targets[sample], split.targets[original])
        detail = f"the same file and box as sample {original}, with {'the same' if same else 'other'} labels"
        file = relative(split.root, *(path if isinstance(path, tuple) else (path,)))
        yield Finding("warning", "repeated sample", split_name, sample, file, box, detail=detail)


def _contents(split: Dataset, facts: Mapping[Path, FileFacts]) -> Iterator[tuple[Hashable, str, int]]:
    """Of every image: what it holds, its name, its first sample."""
    if not isinstance(split, Photos):
        yield from ((split.source(sample), split.source(sample), sample) for sample in range(len(split)))
        return
    paths = [split.photos.folder / file for file in split.photos.names]
    for row, sample in zip(*(part.tolist() for part in sources.images(split)), strict=True):
        of_image = [paths[file] for file in row]
        # A file that cannot be read is at least the same as itself.
        yield tuple(facts[path].digest or str(path) for path in of_image), relative(split.root, *of_image), sample
