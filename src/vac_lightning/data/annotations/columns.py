"""The columns of a table, CSV, TSV or Parquet: the distinct values of each, and which of them stands in every row."""

from __future__ import annotations

__all__ = ["Column", "Columns", "header", "read_columns", "text"]

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vac_lightning.data.annotations.records import record
from vac_lightning.data.base import DataError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PARQUET = ".parquet"


class Column(NamedTuple):
    """A column by its distinct values, so that each is read and checked once, however many rows hold it.

    values: texts; of Parquet also numbers, booleans, tuples (lists), and None for a cell that holds nothing.
    rows: int32 (N,), the position in `values` of each row's.
    """

    values: list[Any]
    rows: NDArray[np.int32]


class Columns:
    """Some columns of a table of N rows.

    file: the table.
    places: int64 (N,), where rows stand: lines of a text file from 1, as an editor shows them; rows of Parquet from 0.
    sound: bool (N,), false for rows that were refused.
    """

    def __init__(self, file: Path, columns: dict[str, Column], places: NDArray[np.int64]) -> None:
        self.file = file
        self.places = places
        self.sound = np.ones(len(places), np.bool_)
        self._columns = columns

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> Column:
        return self._columns[name]

    def cell(self, name: str, row: int) -> Any:
        values, rows = self._columns[name]
        return values[rows[row]]

    def where(self, row: int) -> str:
        """The row, for a message."""
        return f"{self.file}, {_place(self.file, int(self.places[row]))}"

    def refuse(self, rows: NDArray[np.bool_], problem: Callable[[int], str]) -> None:
        """Refuse the rows where the mask (N,) is true, saying what is wrong with each: see `record`."""
        for row in np.flatnonzero(rows & self.sound).tolist():
            self.sound[row] = False
            with record(self.where(row)):
                raise DataError(f"{self.where(row)}: {problem(row)}")


def header(file: Path) -> dict[str, bool]:
    """The names of a table's columns, in their order, and whether a column holds texts, numbers or booleans only.

    A first column without a name, as pandas writes its index, is left out.

    Raises:
        DataError: a file of another format, broken, without columns, or with column names that are missing or given
            twice.
    """
    if file.suffix.lower() == _PARQUET:
        with _parquet(file) as source:
            schema = source.schema_arrow
            names, plain = list(schema.names), [_is_plain(kind) for kind in schema.types]
    else:
        names = _names(next(_records(file), (1, []))[1])
        plain = [True] * len(names)
    seen: set[str] = set()
    for number, name in enumerate(names):
        if name in seen:
            raise DataError(f"{file}: two columns are named {name!r}: rename one of them")
        if not name and number:
            raise DataError(f"{file}: column {number + 1} has no name: give it one in the first line")
        seen.add(name)
    if not seen - {""}:
        raise DataError(f"{file} has no columns: the first line of a table names them")
    return {name: is_plain for name, is_plain in zip(names, plain, strict=True) if name}


def read_columns(file: Path, names: Sequence[str]) -> Columns:
    """The columns of these names, which the table's header has.

    Raises:
        DataError: a file that is broken, not UTF-8, holds no rows, or a row of too few or too many cells.
    """
    read = _read_parquet if file.suffix.lower() == _PARQUET else _read_text
    columns = read(file, list(dict.fromkeys(names)))
    if not len(columns):
        raise DataError(f"{file} has no rows: the table is empty below the names of its columns")
    return columns


def text(value: Any) -> str:
    """A cell as text without space around it; "" for one that holds nothing, and no fraction on whole numbers."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    return str(value).strip()


class _Positions(dict[Any, int]):
    """The distinct values met so far, each with its position."""

    def __missing__(self, value: Any) -> int:
        self[value] = position = len(self)
        return position


def _read_text(file: Path, names: list[str]) -> Columns:
    records = _records(file)
    all_names = _names(next(records)[1])
    at = [all_names.index(name) for name in names]
    seen = [_Positions() for _ in names]
    numbers: list[list[NDArray[np.int32]]] = [[] for _ in names]
    places: list[int] = []
    while chunk := list(islice(records, _CHUNK)):
        rows = [row for place, row in chunk if _fits(file, place, row, all_names)]
        places += [place for place, row in chunk if len(row) == len(all_names)]
        cells = list(zip(*rows, strict=True)) or [()] * len(all_names)
        for column, positions, found in zip(at, seen, numbers, strict=True):
            found.append(np.fromiter(map(positions.__getitem__, cells[column]), np.int32, len(rows)))
    empty = np.empty(0, np.int32)
    columns = {
        name: Column(list(positions), np.concatenate([empty, *found]))
        for name, positions, found in zip(names, seen, numbers, strict=True)
    }
    return Columns(file, columns, np.array(places, np.int64))


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The line on which each record of a text file begins, and its cells; the header first, no blank lines."""
    if (delimiter := _DELIMITERS.get(file.suffix.lower())) is None:
        known = ", ".join([*_DELIMITERS, _PARQUET])
        raise DataError(f"{file}: a table's name ends in one of {known}: rename it, or save it as one of them")
    data = _bytes(file)
    if (nul := data.find(b"\0")) >= 0 and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{file}, line {_line(data, nul)}: a NUL byte, which no text holds; save the table anew")
    lines = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    begin = 1
    try:
        for row in reader:
            if row:
                yield begin, row
            begin = reader.line_num + 1
    except UnicodeDecodeError as error:
        line = _line(data, _first_undecodable(data))
        raise DataError(f"{file}, line {line}: not UTF-8; save the table as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{file}, line {begin}: {error}; mend the quotes of the record that begins there") from error


def _names(row: list[str]) -> list[str]:
    return [name.strip() for name in row]


def _fits(file: Path, place: int, row: list[str], names: list[str]) -> bool:
    if len(row) == len(names):
        return True
    where = f"{file}, line {place}"
    with record(where):
        raise DataError(
            f"{where}: {len(row)} cells where the header names {len(names)} columns; mend the line, and put quotes"
            " around cells that hold the delimiter"
        )
    return False


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; make it readable") from error


def _first_undecodable(data: bytes) -> int:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _line(data: bytes, offset: int) -> int:
    """The line that a byte stands on, from 1, whichever way lines end."""
    before = data[:offset].replace(b"\r\n", b"\n")
    return 1 + before.count(b"\n") + before.count(b"\r")


def _place(file: Path, number: int) -> str:
    return f"row {number} (counted from 0)" if file.suffix.lower() == _PARQUET else f"line {number}"


@contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    """The Parquet file, opened; what goes wrong with it inside the block is blamed on it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{file}: Parquet is read by pyarrow: pip install 'vac_lightning[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(file) as source:
            yield source
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        line = " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as Parquet: {line}; it is damaged or none, save it anew") from error


def _read_parquet(file: Path, names: list[str]) -> Columns:
    with _parquet(file) as source:
        count, columns = source.metadata.num_rows, {}
        for name in names:  # one at a time, as Arrow's are larger than ours
            columns[name] = _encoded(source.read(columns=[name]).column(name))
            if (rows := len(columns[name].rows)) != count:
                raise ValueError(f"{count} rows, and {rows} in the column {name!r}")
    return Columns(file, columns, np.arange(count, dtype=np.int64))


def _encoded(column: Any) -> Column:
    import pyarrow

    kind = column.type
    if not _is_plain(kind):
        positions = _Positions()
        cells = (tuple(cell) if isinstance(cell, list) else cell for cell in column.to_pylist())
        rows = np.fromiter((positions[_hashable(cell)] for cell in cells), np.int32, len(column))
        return Column(list(positions), rows)
    if pyarrow.types.is_dictionary(kind):
        column = column.cast(kind.value_type)  # parts of a file may number the same words differently
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    rows = encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    return Column([*values, None] if encoded.null_count else values, rows.astype(np.int32))


def _hashable(cell: Any) -> Any:
    """A cell of lists or other things within, as something a dictionary takes."""
    try:
        hash(cell)
    except TypeError:
        return str(cell)
    return cell


def _is_plain(kind: Any) -> bool:
    """Whether an Arrow type is that of texts, numbers or booleans."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    tests = (types.is_boolean, types.is_integer, types.is_floating, types.is_string, types.is_large_string)
    return any(test(kind) for test in tests)


_CHUNK = 500
"""Records held as lists of texts at a time: with many, Python's garbage collector takes longer than the reading."""
