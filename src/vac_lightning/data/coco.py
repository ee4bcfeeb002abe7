"""MS-COCO, and any data set in its format: labels are the categories present in an image."""

from __future__ import annotations

__all__ = ["coco"]

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vac_lightning.data.annotations import below, blame
from vac_lightning.data.base import DataError
from vac_lightning.data.reading import Photo, Photos


def coco(
    role: str,
    sizes: Sequence[int],
    *,
    root: str,
    splits: Mapping[str, str],
    annotations: str | None = None,
    images: str | None = None,
    **options: Any,
) -> Photos:
    """One split of a data set in COCO's format.

    Every category of the file is a label, in the order of their ids, and every image is a sample. A label is
    positive where the image has any annotation of it, a crowd too, and negative elsewhere, also in images
    without annotations: the presence the paper evaluates, as the authors' code reads it.

    role: "train", "val" or "test"; `splits` maps it to a split's name, such as "train2014".
    sizes: sides in pixels of the square images a sample holds.
    root: the folder that the patterns are relative to.
    annotations: pattern of the instances file, by default "annotations/instances_{split}.json".
    images: pattern of the image folder, by default "{split}", else "images/{split}".
    options: those of Photos: how an image is read.

    Raises:
        DataError: an unknown role; files that are missing, malformed, or name unknown images or
            categories or files outside their folder.
    """
    split = splits.get(role)
    if not split:
        known = ", ".join(map(repr, splits))
        raise DataError(f"role={role!r} has no split: use one of {known}, or add it to data.splits")
    base = Path(root).expanduser()
    patterns = [images] if images else ["{split}", "images/{split}"]
    folders = [base / pattern.replace("{split}", split) for pattern in patterns]
    folder = next(filter(Path.is_dir, folders), None)
    file = base / (annotations or "annotations/instances_{split}.json").replace("{split}", split)
    missing = [] if file.is_file() else [str(file)]
    missing += [] if folder else [" or ".join(map(str, folders))]
    if folder is None or missing:
        raise DataError(f"not found: {' and '.join(missing)}. {_remedy(split)}")
    with blame(file):
        labels, names, targets = _index(json.loads(file.read_bytes()), file)
        photos = [Photo(folder / below(folder, name, f"{file}, image {i}")) for i, name in enumerate(names)]
    if not (first := folder / names[0]).is_file():
        raise DataError(f"not found: {first}, the first image that {file} names. {_remedy(split)}")
    return Photos(photos, targets, labels, sizes, base, role=role, **options)


def _index(content: dict[str, Any], file: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Labels (L), image names (N) and targets int8 (N, L) of an instances file."""
    categories = sorted(content["categories"], key=lambda category: category["id"])
    images, annotations = content["images"], content["annotations"]
    if not images or not categories:
        count = f"{len(images)} images and {len(categories)} categories"
        raise DataError(f"{file} holds {count}: give it at least one of both")
    rows = _positions(annotations, "image_id", images, "images", file)
    columns = _positions(annotations, "category_id", categories, "categories", file)
    targets = np.zeros((len(images), len(categories)), np.int8)
    targets[rows, columns] = 1
    labels = [str(category["name"]) for category in categories]
    return labels, [image["file_name"] for image in images], targets


def _positions(
    annotations: list[dict[str, Any]], key: str, records: list[dict[str, Any]], kind: str, file: Path
) -> np.ndarray:
    """For every annotation, the position among `records` of the one whose id is its `key`."""
    position = {record["id"]: i for i, record in enumerate(records)}
    if len(position) < len(records):
        raise DataError(f"{file}: {len(records)} {kind} share {len(position)} ids: give each its own id")
    found = np.fromiter((position.get(a[key], -1) for a in annotations), np.int64, len(annotations))
    if (found < 0).any():
        stray = annotations[int(found.argmin())]
        raise DataError(
            f"{file}: annotation {stray.get('id')} has {key} {stray[key]!r}, which is no id "
            f"of its {kind}: remove the annotation, or add what it refers to"
        )
    return found


def _remedy(split: str) -> str:
    year = split[-4:] if split[-4:].isdecimal() else "2014"
    return (
        f"MS-COCO comes from https://cocodataset.org/#download: unpack annotations_trainval{year}.zip, "
        f"train{year}.zip and val{year}.zip into one folder, and point at it with data.root=FOLDER; "
        "for other data in this format set data.annotations and data.images, patterns relative to data.root"
    )
