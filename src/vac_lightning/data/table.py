"""A table of your own, CSV, TSV or Parquet: a row a sample, with its file or files, labels, box and split."""

from __future__ import annotations

__all__ = ["table"]

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vac_lightning.data.annotations.columns import Columns, header, read_columns, text
from vac_lightning.data.annotations.labelling import VALUES, Empty, Names, label_columns, multi_hot, named
from vac_lightning.data.annotations.listing import fields, listed_photos
from vac_lightning.data.annotations.partition import made_split, named_split, splits_of
from vac_lightning.data.annotations.records import needs_first_file
from vac_lightning.data.base import DataError
from vac_lightning.data.reading import PhotoIndex, Photos


def table(
    role: str,
    sizes: Sequence[int],
    *,
    table: str,
    root: str | None = None,
    paths: str | Sequence[str] = "path",
    labels: Sequence[Any] | None = None,
    label_column: str | None = None,
    separator: str = "|",
    label_names: Names | None = None,
    values: Mapping[str, Any] = VALUES,
    empty: Empty | None = None,
    boxes: Sequence[str] | None = None,
    box_format: Literal["xywh", "xyxy"] = "xywh",
    split_column: str | None = None,
    splits: Mapping[str, Any] = {"train": "train", "val": "val", "test": "test"},
    split_shares: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2},
    split_seed: int = 0,
    group_column: str | None = None,
    **options: Any,
) -> Photos:
    """One split of a table's samples; every cell that is used is checked, whatever its row's split.

    role: "train", "val" or "test"; `splits` maps it to a split's name, or to several.
    sizes: sides in pixels of the square images a sample holds.
    table: the file, .csv, .tsv or .parquet, relative to `root`.
    root: the folder that paths are relative to; by default the table's.
    paths: the column of files; a pattern such as "images/{id}.png", filled in from columns; or several of them, the
        files of one image, see `Photos.merge`.
    labels: the columns of labels; by default all other columns that hold labels' values, see `multi_hot`.
    label_column: instead, the column that lists a sample's labels, see `named`; `separator` is what stands between.
    label_names: names of the labels in their order, or a mapping to them from columns' names or listed codes.
    values: the cells that mean positive, negative and unspecified, in columns of labels.
    empty: what an empty cell means, "negative" or "unspecified"; by default unspecified in a label's column, and no
        label in `label_column`.
    boxes: four columns of numbers in pixels, all empty for the whole image; `box_format` says if the last two are
        width and height or the right and bottom edge.
    split_column: the column of splits' names; by default "split", where there is one.
    split_shares: without such a column, the splits to make and their shares of the samples, from `split_seed`. Samples
        of one file are never parted, nor those with the same value in `group_column`: see `made_split`.
    options: those of Photos: how an image is read.

    Raises:
        DataError: an unknown role; a table that is missing, broken, or names files outside `root`; a row with a value
            that is none, or that another row repeats.
        ValueError: words that contradict each other, or are not one of those above.
    """
    file, base = _located(table, root)
    patterns = [paths] if isinstance(paths, str) else list(paths)
    _check_words(patterns, boxes, box_format, labels, label_column, label_names, separator, empty)
    plain = header(file)
    split_column = split_column or ("split" if "split" in plain else None)
    single = {"split_column": split_column, "group_column": group_column, "label_column": label_column}
    taken = [("paths", name) for pattern in patterns for name in fields(pattern, plain)]
    taken += [("boxes", name) for name in boxes or ()]
    taken += [(word, name) for word, name in single.items() if name is not None]
    _check_names(file, plain, taken, labels or ())
    used = [name for _, name in taken]
    others = [name for name, is_plain in plain.items() if is_plain and name not in used]
    of_labels = [] if label_column else list(map(str, labels or others))
    columns = read_columns(file, used + of_labels)

    photos = listed_photos(columns, patterns, base, boxes, box_format)
    if label_column:
        found, targets = named(columns, label_column, separator, label_names, empty or "negative")
    else:
        of_labels = of_labels if labels else label_columns(columns, of_labels, values)
        targets = multi_hot(columns, of_labels, values, empty or "unspecified")
        found = _renamed(of_labels, label_names)
    if split_column:
        split_of = named_split(columns, split_column, splits)
    else:
        make = partial(made_split, group_column=group_column, cache_dir=options.get("cache_dir"))
        split_of = make(columns, photos, targets, splits=splits, shares=split_shares, seed=split_seed)
    kept = np.flatnonzero(columns.sound & np.isin(split_of, splits_of(splits, role)))
    photos = photos.take(kept)
    if not len(photos):
        word = "split_column" if split_column else "split_shares"
        raise DataError(f"{file} has no row for {role}: see data.splits and data.{word}")
    if needs_first_file(options):
        _check_first(columns, photos, role, base)
    return Photos(photos, targets[kept], found, sizes, base, role=role, **options)


def _located(table: str, root: str | None) -> tuple[Path, Path]:
    """The table, and the folder that paths are relative to; both absolute."""
    given = Path(table).expanduser()
    file = given.absolute() if root is None else Path(root).expanduser().absolute() / given
    if not file.is_file():
        raise DataError(f"not found: {file}. Point at a .csv, .tsv or .parquet file with data.table=FILE")
    return file, file.parent if root is None else Path(root).expanduser().absolute()


def _check_words(
    patterns: Sequence[str],
    boxes: Sequence[str] | None,
    box_format: str,
    labels: Any,
    label_column: str | None,
    label_names: Any,
    separator: str,
    empty: str | None,
) -> None:
    if not patterns:
        raise ValueError("data.paths=[]: name the column of files, or give a pattern")
    if box_format not in ("xywh", "xyxy"):
        raise ValueError(f"data.box_format={box_format}: choose xywh or xyxy")
    if boxes is not None and (isinstance(boxes, str) or len(boxes) != 4):
        raise ValueError(f"data.boxes={boxes}: name four columns, such as [x, y, w, h]")
    if labels and label_column:
        raise ValueError(f"data.labels and data.label_column={label_column}: say one of the two")
    if isinstance(labels, str):
        raise ValueError(f"data.labels={labels}: give a list of columns, or say data.label_column={labels}")
    if isinstance(label_names, str):
        raise ValueError(f"data.label_names={label_names}: give a list of names, or a mapping to them")
    if empty not in ("negative", "unspecified", None):
        raise ValueError(f"data.empty={empty}: choose negative or unspecified, or null")
    if not separator:
        raise ValueError("data.separator is empty: say what stands between the names in data.label_column")


def _check_names(
    file: Path, known: Mapping[str, bool], taken: Sequence[tuple[str, str]], labels: Sequence[Any]
) -> None:
    """Check that all columns asked for, by which word, are there, and that none of labels is something else too."""
    for word, name in [*taken, *(("labels", str(name)) for name in labels)]:
        if name not in known:
            some = ", ".join([*list(known)[:20], *(["..."] if len(known) > 20 else [])])
            hint = "; its cells are not parted by commas" if len(known) == 1 and ";" in some else ""
            raise DataError(f"{file} has no column {name!r}, which data.{word} asks for; it has {some}{hint}")
    if twice := [(word, name) for word, name in taken if name in map(str, labels)]:
        raise ValueError(f"data.labels and data.{twice[0][0]} both name the column {twice[0][1]!r}: choose one")


def _renamed(columns: Sequence[str], names: Names | None) -> list[str]:
    """The labels of columns: as they are named, or as `names` has it."""
    if names is None:
        return list(columns)
    if isinstance(names, Mapping):
        new = {text(column): text(name) for column, name in names.items()}
        if odd := [column for column in new if column not in columns]:
            raise ValueError(f"data.label_names: {odd[0]!r} is not a column of labels ({', '.join(columns)})")
        return [new.get(column, column) for column in columns]
    if len(names) != len(columns):
        raise ValueError(f"data.label_names has {len(names)} names for {len(columns)} columns of labels: name each")
    return list(map(text, names))


def _check_first(columns: Columns, photos: PhotoIndex, role: str, base: Path) -> None:
    """Check that the files of a role's first sample are there."""
    for name in (photos.names[number] for number in photos.files[0].tolist()):
        if not (base / name).is_file():
            raise DataError(
                f"not found: {base / name}, of the first sample of {role} that {columns.file} names. Its paths are"
                f" relative to {base}: set data.root=FOLDER to where they begin, or data.paths to what they are made of"
            )
