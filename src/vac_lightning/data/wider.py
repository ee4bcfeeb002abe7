"""WIDER Attribute: one sample a person, 14 attributes that are positive, negative or unspecified."""

from __future__ import annotations

__all__ = ["wider"]

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vac_lightning.data import obtaining
from vac_lightning.data.annotations.records import below, blame, needs_first_file, record, split_of
from vac_lightning.data.base import DataError, Published
from vac_lightning.data.reading import Box, PhotoIndex, Photos

_FOLDERS = ("wider_attribute_annotation", "Anno", "Annotations", ".")
_PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}
_TARGETS = {1: 1, -1: 0, 0: -1}  # as annotated: ours
# 57,524 people in all, and no count of them by split; the ratios are those in the code of the attention paper.
_RATIO = "0.5669 0.2244 0.0502 0.2260 0.2191 0.4647 0.0699 0.1542 0.0816 0.3621 0.1005 0.0330 0.2682 0.0543"
_PUBLISHED = {
    "train": Published(images=5509),
    "val": Published(images=1362),
    "trainval": Published(images=6871, positive_ratio=tuple(map(float, _RATIO.split()))),
    "test": Published(images=6918),
}


def wider(
    role: str,
    sizes: Sequence[int],
    *,
    root: str,
    splits: Mapping[str, str],
    **options: Any,
) -> Photos:
    """One split of WIDER Attribute (Li, Huang, Loy, Tang, ECCV 2016), a sample for each annotated person.

    Attributes annotated 1, -1, 0 are targets 1 (positive), 0 (negative), -1 (unspecified).

    role: "train", "val" or "test"; `splits` maps it to "train", "val", "trainval" (what the paper trains on)
        or "test". Training and validation share a file: an image's split is the folder its name begins with.
    sizes: sides in pixels of the square images a sample holds.
    root: the folder that holds Image/ and, in any of the usual places, the two annotation files.
    options: those of Photos: how a person's crop is read. As in the paper, a box that is empty or starts outside
        its image falls back to the whole image, see `crop`.

    Raises:
        DataError: an unknown role or split; files that are missing or malformed, or that name files outside Image/.
    """
    split = split_of(role, splits, _PARTS)
    base, parts = Path(root).expanduser(), _PARTS[split]
    name = f"wider_attribute_{'test' if split == 'test' else 'trainval'}.json"
    file = next((path for folder in _FOLDERS if (path := base / folder / name).is_file()), None)
    missing = [str(path) for part in parts if not (path := base / "Image" / part).is_dir()]
    if file is None:
        missing.append(f"{base / name} (nor in {', '.join(folder + '/' for folder in _FOLDERS[:-1])} there)")
    if file is None or missing:
        raise DataError(f"not found: {' and '.join(missing)}. {obtaining.WIDER}")
    labels, photos, targets = _people(file, parts, base / "Image")
    if not len(photos):
        raise DataError(f"{file} has no person in an image of {' or '.join(parts)}/: fetch the file again")
    first = photos.folder / photos.names[0]
    if needs_first_file(options) and not first.is_file():
        raise DataError(f"not found: {first}, the first image of {split!r} that {file} names. {obtaining.WIDER}")
    return Photos(photos, targets, labels, sizes, base, role=role, published=_PUBLISHED[split], **options)


def _people(file: Path, parts: Sequence[str], folder: Path) -> tuple[list[str], PhotoIndex, NDArray[np.int8]]:
    """Labels, and the people of these parts with their targets int8 (N, L)."""
    with blame(file):
        content = _json(file.read_bytes())
        ids = content["attribute_id_map"]
        labels, images = [str(ids[key]) for key in sorted(ids, key=int)], list(content["images"])
    names: dict[str, int] = {}
    files: list[int] = []
    boxes: list[Box] = []
    targets: list[list[int]] = []
    for number, image in enumerate(images):
        with record(f"{file}, image {number}"):
            name = image["file_name"]
            if name.split("/")[0] not in parts:
                continue
            below(folder, name, f"{file}, image {number}")
            people = list(image["targets"])
            position = names.setdefault(name, len(names))
            for i, person in enumerate(people):
                with record(f"{file}, image {name}, person {i}"):
                    box, attributes = _box(person["bbox"]), _attributes(person["attribute"], len(labels))
                    files.append(position)
                    boxes.append(box)
                    targets.append(attributes)
    photos = PhotoIndex(folder, list(names), np.array(files, np.int32), np.array(boxes, np.float64).reshape(-1, 4))
    return labels, photos, np.array(targets, np.int8).reshape(-1, len(labels))


def _json(content: bytes) -> Any:
    """Read quickly, or, where it holds NaN, which is no JSON, by Python, so that the person who has it can be named."""
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        return json.loads(content)


def _box(values: Sequence[float]) -> Box:
    """x, y, w, h in pixels. One that is empty, or outside the image, is no error: it falls back to the whole image."""
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise ValueError(f"the bbox {values} is not four finite numbers")
    x, y, w, h = map(float, values)
    if not (math.isfinite(x + w) and math.isfinite(y + h)):
        raise ValueError(f"the bbox {values} ends at no finite number")
    return x, y, w, h


def _attributes(values: Sequence[Any], count: int) -> list[int]:
    if len(values) != count:
        raise ValueError(f"a person has {len(values)} attributes where attribute_id_map names {count}")
    if unknown := set(values) - _TARGETS.keys():
        raise ValueError(f"a person has the attribute value {unknown.pop()!r}, not 1, -1 or 0")
    return [_TARGETS[value] for value in values]
