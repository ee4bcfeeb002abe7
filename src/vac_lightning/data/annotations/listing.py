"""Photographs as a table lists them: files by a column or a pattern, boxes by four columns."""

from __future__ import annotations

__all__ = ["fields", "listed_photos"]

import posixpath
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vac_lightning.data.annotations.columns import Column, Columns, text
from vac_lightning.data.annotations.records import below
from vac_lightning.data.base import DataError
from vac_lightning.data.reading import PhotoIndex


def listed_photos(
    columns: Columns, patterns: Sequence[str], base: Path, boxes: Sequence[str] | None, box_format: str
) -> PhotoIndex:
    """The photographs of all rows; rows with a path or box that is none, or that another row has, are refused.

    patterns: of the K files of an image, each a column, or a text with columns in braces.
    base: what paths are relative to, absolute.
    boxes: columns of x, y, w, h, or of left, top, right, bottom where the format is "xyxy"; None for whole images.
    """
    names, files = _files(columns, patterns, base)
    photos = PhotoIndex(base, names, files, _boxes(columns, boxes, box_format))
    _refuse_repeated(columns, photos)
    return photos


def fields(pattern: str, known: Container[str]) -> list[str]:
    """The columns that a pattern is filled in from; a column itself, where it is no pattern."""
    return [pattern] if pattern in known else _FIELD.findall(pattern) or [pattern]


def _files(columns: Columns, patterns: Sequence[str], base: Path) -> tuple[list[str], NDArray[np.int32]]:
    """Names relative to the base, and int32 (N, K) which of them are row i's files."""
    position: dict[str, int] = {}
    files = np.empty((len(columns), len(patterns)), np.int32)
    for k, pattern in enumerate(patterns):
        parts = fields(pattern, columns)
        paths = columns[pattern] if parts == [pattern] else _filled(columns, pattern, parts)
        numbers = np.empty(len(paths.values), np.int32)
        for i, value in enumerate(paths.values):
            try:
                numbers[i] = position.setdefault(_name(value, base, columns.file), len(position))
            except DataError:
                numbers[i] = -1

        def problem(row: int, paths: Column = paths, pattern: str = pattern, parts: Sequence[str] = parts) -> str:
            if empty := [part for part in parts if not text(columns.cell(part, row))]:
                return f"column {empty[0]!r} is empty (data.paths={pattern}): name a file, or take the row out"
            return _name(paths.values[paths.rows[row]], base, columns.where(row))  # says what is wrong by itself

        files[:, k] = numbers[paths.rows]
        columns.refuse(files[:, k] < 0, problem)
    return list(position), files


def _filled(columns: Columns, pattern: str, names: Sequence[str]) -> Column:
    """A pattern filled in from the cells of its columns; empty where one of them is."""
    cells = [columns[name] for name in names]
    different, rows = np.unique(np.stack([cell.rows for cell in cells], 1), axis=0, return_inverse=True)
    literal = _FIELD.split(pattern)[::2]
    texts = [list(map(text, cell.values)) for cell in cells]
    values = []
    for numbers in different.tolist():
        parts = [words[number] for words, number in zip(texts, numbers, strict=True)]
        whole = literal[0] + "".join(part + after for part, after in zip(parts, literal[1:], strict=True))
        values.append(whole if all(parts) else "")
    return Column(values, rows.reshape(-1).astype(np.int32))


def _name(value: Any, base: Path, place: object) -> str:
    """A cell as the name of a file below the base, each file by one name.

    Raises:
        DataError: no name, or one that leads elsewhere.
    """
    name = text(value)
    if not name:
        raise DataError(f"{place}: no file is named")
    if name.startswith("/") and name.startswith(f"{base.as_posix().rstrip('/')}/"):
        name = name[len(base.as_posix().rstrip("/")) :].lstrip("/")
    name = below(base, name, place)
    return posixpath.normpath(name) if "//" in name or "./" in name else name


def _boxes(columns: Columns, names: Sequence[str] | None, box_format: str) -> NDArray[np.float64]:
    """Boxes (N, 4) as x, y, w, h in pixels, NaN for the whole image; rows with impossible ones are refused."""
    if names is None:
        return np.full((len(columns), 4), np.nan)
    numbers, empty = np.empty((len(columns), 4)), np.empty((len(columns), 4), np.bool_)
    for j, name in enumerate(names):
        values, rows = columns[name]
        numbers[:, j] = np.array([_number(value) for value in values])[rows]
        empty[:, j] = np.array([text(value) == "" for value in values])[rows]
    if box_format == "xyxy":
        numbers[:, 2:] -= numbers[:, :2]
    with np.errstate(invalid="ignore"):
        ends = np.rint(numbers[:, :2] + numbers[:, 2:])
        drawn = (numbers[:, :2] >= 0).all(1) & (ends > np.rint(numbers[:, :2])).all(1)

    def problem(row: int) -> str:
        said = ", ".join(f"{name}={text(columns.cell(name, row))}" for name in names)
        if empty[row].any():
            fault = "is given in part: fill in all four, or none for the whole image"
        elif not np.isfinite(numbers[row]).all():
            fault = "is not four finite numbers: mend it, or leave all four empty for the whole image"
        elif (numbers[row, :2] < 0).any():
            fault = "begins outside the image, at a negative edge: clip it"
        elif (numbers[row, 2:] < 0).any() and box_format == "xyxy":
            fault = "has its corners swapped: give left, top, right, bottom, or set data.box_format=xywh"
        else:
            fault = f"is smaller than a pixel: mend it, or see if data.box_format={box_format} is right"
        return f"the box ({said}) {fault}"

    impossible = np.logical_not(empty.all(1) | (drawn & np.isfinite(numbers).all(1)))
    columns.refuse(impossible, problem)
    return numbers


def _number(value: Any) -> float:
    try:
        return np.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return np.nan


def _refuse_repeated(columns: Columns, photos: PhotoIndex) -> None:
    """Refuse rows of the same files and box as a row before."""
    first: dict[tuple[bytes, bytes], int] = {}
    again: dict[int, int] = {}
    often = np.bincount(photos.files[columns.sound, 0], minlength=1) > 1
    for row in np.flatnonzero(columns.sound & often[photos.files[:, 0]]).tolist():
        key = photos.files[row].tobytes(), photos.boxes[row].tobytes()
        if (before := first.setdefault(key, row)) != row:
            again[row] = before
    repeated = np.zeros(len(columns), np.bool_)
    repeated[list(again)] = True
    whole = np.isnan(photos.boxes).all()
    remedy = (
        "join their labels, or name the columns of boxes, data.boxes=[x,y,w,h]" if whole else "or join their labels"
    )
    columns.refuse(
        repeated,
        lambda row: f"the same file and box as {columns.where(again[row])}: take one of them out, {remedy}",
    )


_FIELD = re.compile(r"\{([^{}]*)\}")
