"""COCO's format: an instances file, of any categories, to the presence of each category in each image."""

from __future__ import annotations

__all__ = ["presence"]

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec
import numpy as np

from vac_lightning.data.annotations.indexing import Index, checked
from vac_lightning.data.annotations.records import blame, record
from vac_lightning.data.base import DataError


def presence(file: Path, folder: Path, crowd: bool = True) -> Index:
    """Labels, image names and presence, 1 where an image has any annotation of a category and 0 elsewhere.

    Labels are the categories in the order of their ids, images are in the order of the file.

    folder: of the images; their names must lie below it.
    crowd: whether annotations of crowds count.

    Raises:
        DataError: a file that is malformed, that holds an id or an image twice, or that refers to what is not in it.
    """
    with blame(file):
        content = _content(file)
        categories = sorted(content.categories, key=lambda category: (isinstance(category.id, str), category.id))
        if not content.images or not categories:
            held = f"{len(content.images)} images and {len(categories)} categories"
            raise DataError(f"{file} holds {held}: give it at least one of both")
        row = _positions([image.id for image in content.images], "images", file)
        column = _positions([category.id for category in categories], "categories", file)
    annotations, count = content.annotations, len(content.annotations)
    rows = np.fromiter((row.get(each.image_id, -1) for each in annotations), np.int64, count)
    columns = np.fromiter((column.get(each.category_id, -1) for each in annotations), np.int64, count)
    known = (rows >= 0) & (columns >= 0)
    for stray in np.flatnonzero(~known).tolist():
        with record(file):
            raise _astray(annotations[stray], rows[stray] < 0, file)
    if not crowd:
        known &= np.fromiter((not each.iscrowd for each in annotations), bool, count)
    targets = np.zeros((len(row), len(column)), np.int8)
    targets[rows[known], columns[known]] = 1
    labels = [str(category.name) for category in categories]
    return checked(Index(labels, [image.file_name for image in content.images], targets), file, folder)


_Id: TypeAlias = int | float | str


class _Image(msgspec.Struct, gc=False):
    id: _Id
    file_name: str


class _Category(msgspec.Struct, gc=False):
    id: _Id
    name: str | int


class _Annotation(msgspec.Struct, gc=False):
    """A million of them: what is not named here, polygons above all, is passed over while it is read."""

    image_id: _Id
    category_id: _Id
    id: _Id | None = None
    iscrowd: bool | int | None = 0


class _Instances(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class _Records(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw]


_Kind = TypeVar("_Kind")


def _content(file: Path) -> _Instances:
    """What a file holds; where something in it is broken, its records are read one by one, to name those."""
    content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")  # as some editors begin a file in UTF-8
    try:
        return msgspec.json.decode(content, type=_Instances)
    except (msgspec.ValidationError, UnicodeDecodeError):
        parts = _decoded(content, _Records)
    return _Instances(
        _decoded_each(parts.images, _Image, f"{file}, images"),
        _decoded_each(parts.annotations, _Annotation, f"{file}, annotations"),
        _decoded_each(parts.categories, _Category, f"{file}, categories"),
    )


def _decoded_each(raws: Sequence[msgspec.Raw], kind: type[_Kind], place: str) -> list[_Kind]:
    found: list[_Kind] = []
    for number, raw in enumerate(raws):
        with record(f"{place}[{number}]"):
            found.append(_decoded(raw, kind))
    return found


def _decoded(content: bytes | msgspec.Raw, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        words = re.sub(r"Object missing required field `(\w+)`", r"the key '\1' is missing", str(error))
        raise ValueError(words.replace(" - at `$.", " in `").replace("`", "'")) from error


def _positions(ids: Sequence[_Id], kind: str, file: Path) -> dict[_Id, int]:
    """The position of each id."""
    position = {each: i for i, each in enumerate(ids)}
    if len(position) < len(ids):
        twice = next(each for i, each in enumerate(ids) if position[each] != i)
        raise DataError(f"{file}: {len(ids)} {kind} share {len(position)} ids, such as {twice!r}: give each its own id")
    return position


def _astray(annotation: _Annotation, image: bool, file: Path) -> DataError:
    key, value, kind = (
        ("image_id", annotation.image_id, "images") if image else ("category_id", annotation.category_id, "categories")
    )
    return DataError(
        f"{file}: annotation {annotation.id} has {key} {value!r}, which is no id of its {kind}: remove the annotation, "
        "or add what it refers to"
    )
