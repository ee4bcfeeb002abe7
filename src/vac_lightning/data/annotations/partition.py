"""The splits of a table: those that a column names, or ones made here and kept as a file."""

from __future__ import annotations

__all__ = ["made_split", "named_split", "splits_of"]

import csv
import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vac_lightning.data.annotations.columns import Columns, text
from vac_lightning.data.annotations.records import blame
from vac_lightning.data.annotations.splitting import stratified
from vac_lightning.data.base import DataError
from vac_lightning.data.keeping.places import kept_folder
from vac_lightning.data.reading import PhotoIndex
from vac_lightning.runs import write_atomically

log = logging.getLogger(__name__)


def splits_of(splits: Mapping[str, Any], role: str) -> list[str]:
    """The names of the splits that play a role: a name, or several."""
    value = splits.get(role)
    names = [text(name) for name in (value if isinstance(value, list | tuple) else [value])]
    if not all(names):
        known = ", ".join(map(repr, splits))
        raise DataError(f"role={role!r} has no split: use one of {known}, or add it to data.splits")
    return names


def named_split(columns: Columns, name: str, splits: Mapping[str, Any]) -> NDArray[np.str_]:
    """The split (N,) that a column names for each row; rows of a split that `splits` does not have are refused."""
    values, rows = columns[name]
    known = sorted({split for role in splits for split in splits_of(splits, role)})
    names = np.array(list(map(text, values)), np.str_)
    unknown = ~np.isin(names, known)

    def problem(row: int) -> str:
        return (
            f"column {name!r} has {str(names[rows[row]])!r}, not one of {', '.join(known)}: mend the cell, or name the"
            " split in data.splits, under a word of your own if it is to be left out: +data.splits.unused=NAME"
        )

    columns.refuse(unknown[rows], problem)
    split_of: NDArray[np.str_] = names[rows]
    return split_of


def made_split(
    columns: Columns,
    photos: PhotoIndex,
    targets: np.ndarray,
    *,
    splits: Mapping[str, Any],
    shares: Mapping[str, float],
    seed: int,
    group_column: str | None = None,
    cache_dir: str | None = None,
) -> NDArray[np.str_]:
    """The split (N,) of each row, stratified by labels at first and as it was made ever after; "" for refused rows.

    Rows that share a file, or a value of the group column, are not parted; shares are those of such groups. The split
    is kept beside the table as TABLE.split.csv or, where nothing can be written there, in `kept_folder`; that of a
    table with broken rows is not kept.

    Raises:
        DataError: a kept split of other rows, shares or seed, or one that cannot be kept.
        ValueError: shares that do not add up to 1, or make no split for a role.
    """
    used = _checked_shares(shares, splits)
    sound = np.flatnonzero(columns.sound)
    split_of = np.full(len(columns), "", f"<U{max(map(len, used))}")
    if not len(sound):
        return split_of
    keys, complete = _keys(photos.take(sound)), len(sound) == len(columns)
    made_of = f"# made by data.split_shares={json.dumps(used)} data.split_seed={seed} data.group_column={group_column}"
    beside = columns.file.with_name(f"{columns.file.name}.split.csv")
    place = beside if beside.is_file() else _elsewhere(columns.file, cache_dir)
    if place.is_file():
        split_of[sound] = _read(place, keys, made_of, list(used), complete)
        return split_of
    groups = _together(photos.files[sound], _groups(columns, group_column)[sound])
    parts = stratified(_of_groups(targets[sound], groups), list(used.values()), seed)[groups]
    split_of[sound] = np.array(list(used))[parts]
    if complete:
        _keep(beside, place, _content(made_of, _titles(photos), keys, split_of.tolist()))
    return split_of


def _checked_shares(shares: Mapping[str, float], splits: Mapping[str, Any]) -> dict[str, float]:
    used = {text(name): float(share) for name, share in shares.items() if share}
    if not all(share > 0 for share in used.values()) or abs(sum(used.values()) - 1) > 1e-6 or len(used) < 2:
        given = ", ".join(f"{name}: {share}" for name, share in shares.items())
        raise ValueError(f"data.split_shares={{{given}}}: give two or more shares that add up to 1; 0 makes no split")
    for role in splits:
        if odd := [name for name in splits_of(splits, role) if name not in used]:
            raise ValueError(
                f"data.splits.{role}={odd[0]}: data.split_shares makes {', '.join(used)}; choose one of them, give"
                f" {odd[0]} a share, or name the table's own column of splits with data.split_column"
            )
    return used


def _elsewhere(file: Path, cache_dir: str | None) -> Path:
    """Where a table's split is kept among other things that are, by where the table lies."""
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:16]
    return kept_folder(cache_dir) / "splits" / f"{file.name}.{digest}.csv"


def _keep(beside: Path, elsewhere: Path, content: str) -> None:
    """Whole or not at all; processes that start at once make the same."""
    try:
        _write(beside, content)
    except OSError:
        try:
            _write(elsewhere, content)
        except OSError as error:
            raise DataError(
                f"the split cannot be kept, neither as {beside} nor as {elsewhere} ({error.strerror}): point at a"
                " folder with data.cache_dir=FOLDER, or give the table a column split"
            ) from error


def _write(path: Path, content: str) -> None:
    write_atomically(path, lambda file: file.write(content.encode()))
    log.info("the table comes without a split: one was made, and is kept in %s", path)


def _groups(columns: Columns, name: str | None) -> NDArray[np.int64]:
    """Numbers (N,) from 0, alike for rows with the same value of a column; rows without one have their own."""
    own = np.arange(len(columns))
    if name is None:
        return own
    values, rows = columns[name]
    empty = np.array([text(value) == "" for value in values])[rows]
    return np.where(empty, len(values) + own, rows)


def _together(files: NDArray[np.int32], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers (N,) from 0, alike for rows that share one of their K files (N, K) or the group, or are linked so."""
    things = np.concatenate([files, groups[:, None] + int(files.max(initial=0)) + 1], 1, dtype=np.int64)
    lowest = np.arange(things.max(initial=0) + 1)
    while True:
        of_row = lowest[things].min(1)
        spread = lowest.copy()
        np.minimum.at(spread, things, of_row[:, None])
        if (spread == lowest).all():
            return np.unique(of_row, return_inverse=True)[1].reshape(-1).astype(np.int64)
        lowest = spread


def _of_groups(targets: np.ndarray, groups: NDArray[np.int64]) -> NDArray[np.int8]:
    """1 where any sample of a group is positive, int8 (G, L)."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    positive: NDArray[np.int8] = np.maximum.reduceat((targets == 1).astype(np.int8)[order], starts, axis=0)
    return positive


def _keys(photos: PhotoIndex) -> list[tuple[str, ...]]:
    """The files and the box of each photo, as they stand in a kept split."""
    files = [[photos.names[file] for file in row] for row in photos.files.tolist()]
    if np.isnan(photos.boxes).all():
        return list(map(tuple, files))
    return [(*names, *map(_number, box)) for names, box in zip(files, photos.boxes.tolist(), strict=True)]


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(value).removesuffix(".0")


def _titles(photos: PhotoIndex) -> list[str]:
    files = photos.files.shape[1]
    paths = ["path"] if files == 1 else [f"path_{number}" for number in range(1, files + 1)]
    return [*paths, *([] if np.isnan(photos.boxes).all() else "xywh"), "split"]


def _content(made_of: str, columns: Sequence[str], keys: Sequence[tuple[str, ...]], splits: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    text.write(made_of + "\n")
    writer.writerow(columns)
    writer.writerows((*key, split) for key, split in zip(keys, splits, strict=True))
    return text.getvalue()


def _read(path: Path, keys: Sequence[tuple[str, ...]], made_of: str, names: Sequence[str], complete: bool) -> list[str]:
    """The splits of samples, from a file that has these alone, or more where they are not complete."""
    remedy = "delete it, and a split is made anew (which changes what is tested on), or give the table a column split"
    with blame(path):
        first, newline, rest = path.read_bytes().decode("utf-8-sig").partition("\n")
        if first.startswith("#") and first.rstrip() != made_of:
            raise DataError(f"{path} was {first[2:].rstrip()}, not {made_of[10:]}: say the same, or {remedy}")
        lines = io.StringIO(rest if first.startswith("#") else first + newline + rest, newline="")
        try:
            records = list(csv.reader(lines, strict=True))[1:]  # below the names of the columns
        except csv.Error as error:
            raise ValueError(error) from error
        kept = {tuple(row[:-1]): row[-1] for row in records if row}
    if odd := next((split for split in kept.values() if split not in names), None):
        raise DataError(f"{path} names the split {odd!r}, not one of {', '.join(names)}: mend it, or {remedy}")
    if missing := next((key for key in keys if key not in kept), None):
        raise DataError(f"{path} does not fit the table, it lacks {' '.join(missing)}: {remedy}")
    if complete and len(kept) != len(keys):
        raise DataError(f"{path} does not fit the table, it has {len(kept)} samples for {len(keys)}: {remedy}")
    return [kept[key] for key in keys]
