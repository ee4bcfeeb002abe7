"""WIDER Attribute: one sample a person, 14 attributes that are positive, negative or unspecified."""

from __future__ import annotations

__all__ = ["wider"]

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vac_lightning.data.annotations import below, blame, record
from vac_lightning.data.base import DataError
from vac_lightning.data.reading import Box, Photo, Photos

_FOLDERS = ("wider_attribute_annotation", "Anno", "Annotations", ".")
_PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}
_TARGETS = {1: 1, -1: 0, 0: -1}  # as annotated: ours


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
    options: those of Photos: how a person's crop is read.

    Raises:
        DataError: an unknown role or split; files that are missing or malformed, or that name files outside Image/.
    """
    split = splits.get(role)
    if split not in _PARTS:
        roles, known = ", ".join(map(repr, splits)), ", ".join(map(repr, _PARTS))
        raise DataError(f"role={role!r} has split {split!r}: the roles are {roles}, each one of {known}")
    base, parts = Path(root).expanduser(), _PARTS[split]
    name = f"wider_attribute_{'test' if split == 'test' else 'trainval'}.json"
    file = next((path for folder in _FOLDERS if (path := base / folder / name).is_file()), None)
    missing = [str(path) for part in parts if not (path := base / "Image" / part).is_dir()]
    if file is None:
        missing.append(f"{base / name} (nor in {', '.join(folder + '/' for folder in _FOLDERS[:-1])} there)")
    if file is None or missing:
        raise DataError(f"not found: {' and '.join(missing)}. {_REMEDY}")
    with blame(file):
        content = json.loads(file.read_bytes())
        names = content["attribute_id_map"]
        labels = [str(names[key]) for key in sorted(names, key=int)]
        images = [image for image in content["images"] if image["file_name"].split("/")[0] in parts]
    photos: list[Photo] = []
    targets: list[list[int]] = []
    for image in images:
        name = image["file_name"]
        with record(f"{file}, image {name}"):
            folder = base / "Image"
            path = folder / below(folder, name, f"{file}, an image")
            for number, person in enumerate(image["targets"]):
                with record(f"{file}, image {name}, person {number}"):
                    photo, attributes = Photo(path, _box(person["bbox"])), _attributes(person["attribute"], len(labels))
                    photos.append(photo)
                    targets.append(attributes)
    if not photos:
        raise DataError(f"{file} has no person in an image of {' or '.join(parts)}/: fetch the file again")
    if not (first := base / "Image" / images[0]["file_name"]).is_file():
        raise DataError(f"not found: {first}, the first image of {split!r} that {file} names. {_REMEDY}")
    return Photos(photos, np.array(targets, np.int8), labels, sizes, base, role=role, **options)


_REMEDY = (
    "WIDER Attribute comes from the page of 'Human Attribute Recognition by Deep Hierarchical Contexts', "
    "http://mmlab.ie.cuhk.edu.hk/projects/WIDERAttribute: unpack its images (Image/) and its annotations "
    "into one folder, and point at it with data.root=FOLDER"
)


def _box(values: Sequence[float]) -> Box:
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise ValueError(f"the bbox {values} is not four finite numbers")
    x, y, w, h = values
    return float(x), float(y), float(w), float(h)


def _attributes(values: Sequence[Any], count: int) -> list[int]:
    if len(values) != count:
        raise ValueError(f"a person has {len(values)} attributes where attribute_id_map names {count}")
    if unknown := set(values) - _TARGETS.keys():
        raise ValueError(f"a person has the attribute value {unknown.pop()!r}, not 1, -1 or 0")
    return [_TARGETS[value] for value in values]
