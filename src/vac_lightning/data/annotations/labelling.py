"""Labels as tables hold them: a column a label, or one column of names or codes."""

from __future__ import annotations

__all__ = ["VALUES", "label_columns", "multi_hot", "named"]

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vac_lightning.data.annotations.columns import Column, Columns, text
from vac_lightning.data.base import DataError

Empty: TypeAlias = Literal["negative", "unspecified"]
Names: TypeAlias = Sequence[Any] | Mapping[Any, Any]

VALUES: Mapping[str, Any] = {"positive": [1, True], "negative": [0, False], "unspecified": [-1]}
"""What the cells of a label's column mean, unless it is said otherwise."""

_MEANINGS = {"positive": 1, "negative": 0, "unspecified": -1}
_UNKNOWN = 2


def label_columns(columns: Columns, names: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Of these columns, those that hold labels: where most cells that are not empty have a label's value.

    Most, not all: a mistyped cell is then an error that names it, and does not silently cost a label.
    """
    known, found = _known(values, "unspecified"), []
    for name in names:
        column = columns[name]
        filled = np.array([text(value) != "" for value in column.values], np.bool_)[column.rows]
        labelled = filled & (_targets(column, known) != _UNKNOWN)
        if 2 * labelled.sum() > filled.sum():
            found.append(name)
    if not found:
        raise DataError(
            f"{columns.file}: no column holds 1, 0, -1 or nothing in its cells: name the columns of labels with"
            " data.labels=[...], or the one that lists them with data.label_column=NAME"
        )
    return found


def multi_hot(columns: Columns, names: Sequence[str], values: Mapping[str, Any], empty: Empty) -> NDArray[np.int8]:
    """Targets int8 (N, L) of 1, 0, -1 from a column a label; rows with other values are refused.

    values: the cells that mean "positive", "negative" and "unspecified", each one or a list; upper and lower case,
        and 1 and 1.0, are the same.
    empty: what an empty cell means.
    """
    known = _known(values, empty)
    targets = np.empty((len(columns), len(names)), np.int8)
    for j, name in enumerate(names):
        targets[:, j] = _targets(columns[name], known)
    unknown = targets == _UNKNOWN

    def problem(row: int) -> str:
        name = names[int(unknown[row].argmax())]
        return (
            f"column {name!r} has {columns.cell(name, row)!r}, not one of {', '.join(filter(None, known))}, or nothing:"
            " mend the cell, say in data.values what it means, or name the columns of labels with data.labels"
        )

    columns.refuse(unknown.any(1), problem)
    return targets


def named(
    columns: Columns, name: str, separator: str, label_names: Names | None, empty: Empty
) -> tuple[list[str], NDArray[np.int8]]:
    """Labels (L) and targets int8 (N, L) of 1, 0, -1 from one column that lists what is positive.

    A cell is a text with a separator between names (a space stands for any white space), a list as JSON, or, in
    Parquet, a list. What is not listed is negative; an empty list lists nothing.

    label_names: the labels in their order, which cells hold as they are or, where no name is itself a number, as
        positions from 0; or a mapping from what cells hold to the labels. None: what the cells hold, sorted.
    empty: what an empty cell means for all labels.
    """
    column = columns[name]
    listed = [_listed(value, separator) for value in column.values]
    codes, labels = _codes({code for cell in listed if isinstance(cell, list) for code in cell}, label_names)
    if not labels:
        raise DataError(f"{columns.file}: column {name!r} (data.label_column) lists no label in any row")
    of_value = np.zeros((len(listed), len(labels)), np.int8)
    problems: dict[int, str] = {}
    for i, cell in enumerate(listed):
        if cell is None:
            of_value[i] = _MEANINGS[empty]
        elif isinstance(cell, str):
            problems[i] = cell
        elif unknown := [code for code in cell if code not in codes]:
            problems[i] = f"lists {unknown[0]!r}, which data.label_names does not know: mend the cell, or add the name"
        else:
            of_value[i, [codes[code] for code in cell]] = 1
    broken = np.zeros(len(listed), np.bool_)
    broken[list(problems)] = True
    columns.refuse(broken[column.rows], lambda row: f"column {name!r} {problems[int(column.rows[row])]}")
    return labels, of_value[column.rows]


def _known(values: Mapping[str, Any], empty: str) -> dict[str, int]:
    """What a cell holds, as `_normal` has it -> 1, 0, -1."""
    if odd := [word for word in values if word not in _MEANINGS]:
        raise ValueError(f"data.values.{odd[0]}: choose positive, negative and unspecified")
    known = {"": _MEANINGS[empty]}
    for word, cells in values.items():
        for cell in cells if isinstance(cells, Sequence) and not isinstance(cells, str) else [cells]:
            if known.setdefault(_normal(cell), _MEANINGS[word]) != _MEANINGS[word]:
                raise ValueError(f"data.values.{word}={cell}: a cell means one thing; {cell!r} already means another")
    return known


def _targets(column: Column, known: Mapping[str, int]) -> NDArray[np.int8]:
    of_value = np.array([known.get(_normal(value), _UNKNOWN) for value in column.values], np.int8)
    targets: NDArray[np.int8] = of_value[column.rows]
    return targets


def _normal(value: Any) -> str:
    """A cell's text in lower case, and 1 for 1.0, as which pandas writes whole numbers where some are missing."""
    lower = text(value).lower()
    try:
        return text(float(lower))
    except ValueError:
        return lower


def _listed(value: Any, separator: str) -> list[str] | str | None:
    """The names that a cell lists, None where it is empty, or what is wrong with it."""
    if isinstance(value, tuple):
        items: Any = list(value)
    elif not (cell := text(value)):
        return None
    elif cell.startswith("[") and cell.endswith("]"):
        try:
            items = json.loads(cell)
        except (ValueError, RecursionError):
            return f"has {cell[:60]!r}, no list as JSON: write names in double quotes, or with data.separator between"
    else:
        items = cell.split() if separator == " " else cell.split(separator)
    if odd := [item for item in items if isinstance(item, bool) or not isinstance(item, str | int | float)]:
        return f"lists {odd[0]!r}, not a name: mend the cell"
    return list(filter(None, map(text, items)))


def _codes(met: set[str], label_names: Names | None) -> tuple[dict[str, int], list[str]]:
    """What a cell may list -> the label's position, and the labels."""
    if isinstance(label_names, Mapping):
        return {text(code): j for j, code in enumerate(label_names)}, list(map(text, label_names.values()))
    if label_names is None:
        labels = sorted(met)
        if all(map(str.isdecimal, met)):
            labels.sort(key=int)  # stable: 1 and 01 always stand in the same order
    else:
        labels = list(map(text, label_names))
    codes = {label: j for j, label in enumerate(labels)}
    if label_names is not None and not any(map(str.isdecimal, labels)):
        codes.update((str(j), j) for j in range(len(labels)))
    return codes, labels
