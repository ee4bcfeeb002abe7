"""What can be wrong with photographs, once their files were inspected: damage, names, boxes."""

from __future__ import annotations

__all__ = ["check_boxes", "check_files"]

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from vac_lightning.data.doctor import sources
from vac_lightning.data.doctor.findings import Finding
from vac_lightning.data.images.inspection import FileFacts
from vac_lightning.data.reading import Photos, corners
from vac_lightning.names import relative


def check_files(
    split_name: str, split: Photos, facts: Mapping[Path, FileFacts], skips: bool = False
) -> Iterator[Finding]:
    """Files that cannot be decoded; that are not what their name says; that are stored turned; that do not fit.

    skips: a run leaves out what cannot be decoded, so that it is no error.
    """
    index = split.photos
    used, position, count = np.unique(index.files, return_index=True, return_counts=True)
    for file, at, samples in zip(used.tolist(), position.tolist(), count.tolist(), strict=True):
        path = index.folder / index.names[file]
        fact, where = facts[path], (split_name, at // index.files.shape[1], relative(split.root, path))
        if fact.error:
            detail = f"{fact.error} (samples it concerns: {samples})"
            yield Finding("warning" if skips else "error", f"{fact.problem} file", *where, detail=detail)
            continue
        if (said := _formats().get(path.suffix.lower())) not in (None, _FAMILY.get(fact.format, fact.format)):
            yield Finding("warning", "suffix", *where, detail=f"named as {said}, its content is {fact.format}")
        if fact.turn != 1 and not split.upright:
            detail = f"EXIF orientation {fact.turn} is not followed: if it should be upright, say data.upright=true"
            yield Finding("warning", "turned", *where, detail=detail)
    if index.files.shape[1] > 1:
        yield from _misfits(split_name, split, facts)


def check_boxes(split_name: str, split: Photos, facts: Mapping[Path, FileFacts]) -> Iterator[Finding]:
    """Boxes that are empty, outside or partly outside their image, or larger than it, once in whole pixels."""
    index = split.photos
    sides = np.zeros((len(index.names), 2))
    for file in np.unique(index.files).tolist():
        fact = facts[index.folder / index.names[file]]
        sides[file] = fact.width, fact.height
    width, height = sides[index.files[:, 0]].T
    x, y, w, h = index.boxes.T
    left, top, right, bottom = (np.rint(edge) for edge in (x, y, x + w, y + h))
    kinds = {
        "box not finite": ~np.isfinite(index.boxes).all(1),
        "box empty": (left >= right) | (top >= bottom),
        "box outside": (left >= width) | (top >= height) | (right <= 0) | (bottom <= 0),
        "box larger than image": (right - left > width) | (bottom - top > height),
        "box partly outside": (left < 0) | (top < 0) | (right > width) | (bottom > height),
    }
    kind = np.select(list(kinds.values()), list(kinds), "")
    kind[np.isnan(x) | (width == 0)] = ""  # no box; no size to compare with
    for sample in np.flatnonzero(kind != "").tolist():
        path, box = index[sample]
        file = relative(split.root, *(path if isinstance(path, tuple) else (path,)))
        size = int(width[sample]), int(height[sample])
        finite = kind[sample] != "box not finite"
        effect = "a run would stop at it"
        if finite:
            whole = corners(box, *size) == (0, 0, *size)
            effect = "a run sees the whole image" if whole else "a run sees the part inside"
        detail = f"the image is {size[0]} x {size[1]}: {effect}"
        severity = "warning" if finite else "error"
        yield Finding(severity, str(kind[sample]), split_name, sample, file, box, detail=detail)


def _misfits(split_name: str, split: Photos, facts: Mapping[Path, FileFacts]) -> Iterator[Finding]:
    """Images whose several files differ in size."""
    for row, sample in zip(*(part.tolist() for part in sources.images(split)), strict=True):
        paths = [split.photos.folder / split.photos.names[file] for file in row]
        found = {(facts[path].width, facts[path].height) for path in paths if not facts[path].error}
        if len(found) > 1:
            detail = f"its files differ in size: {', '.join(f'{w} x {h}' for w, h in sorted(found))}"
            yield Finding("error", "sizes differ", split_name, sample, relative(split.root, *paths), detail=detail)


@cache
def _formats() -> dict[str, str]:
    """The format that a suffix stands for."""
    return {suffix: _FAMILY.get(name, name) for suffix, name in Image.registered_extensions().items()}


_FAMILY = {"MPO": "JPEG", "DIB": "BMP"}
"""Formats that share a suffix with the one they extend."""
