"""MATLAB files of version 5 (-v6 and -v7): numbers, texts, and cells of them.

SciPy reads them too, but a single damaged byte can make it end the process.
"""

from __future__ import annotations

__all__ = ["Value", "variables"]

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vac_lightning.data.base import DataError

Value: TypeAlias = "NDArray[np.generic] | str | list[Value] | None"


def variables(file: Path, names: Collection[str]) -> dict[str, Value]:
    """The variables of these names, as many of them as the file has.

    Numbers are an array as stored, a row of characters is a text, cells are a list in MATLAB's order, columns first.
    What is neither (structs, sparse and complex numbers, several rows of characters) is None.

    Raises:
        DataError: a file that is damaged, or of another format or version.
    """
    content = file.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if content.startswith(b"\x89HDF") or (order and struct.unpack(f"{order}H", content[124:126])[0] == 0x200):
        raise DataError(f"{file} is a MATLAB file of version 7.3 (HDF5): save it with -v7, or fetch the original again")
    if order is None:
        raise DataError(f"{file} is no MATLAB file of version 5: fetch it again, or save it with -v7")
    found: dict[str, Value] = {}
    try:
        for matrix in _matrices(memoryview(content)[128:], order):
            name, value = _named(matrix, order, names)
            if name in names:
                found[name] = value
    except (OverflowError, RecursionError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{file} is a damaged MATLAB file ({error}): fetch it again") from error
    return found


_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-", 16: "utf-8", 17: "utf-16-", 18: "utf-32-"}
_ENDIAN = {"<": "le", ">": "be"}
_CELL, _CHAR, _NUMERIC = 1, 4, range(6, 16)  # classes of matrices
_IS_COMPLEX = 0x800
_LARGEST = 2**30  # bytes of one variable: what is larger is no annotation


def _matrices(data: memoryview, order: str) -> Iterator[memoryview]:
    at = 0
    while at < len(data):
        kind, part, at = _element(data, at, order)
        if kind == _COMPRESSED:
            unpacking = zlib.decompressobj()
            part = memoryview(unpacking.decompress(part, _LARGEST))
            if unpacking.unconsumed_tail:
                raise ValueError(f"a variable is larger than {_LARGEST} bytes")
            kind, part, _ = _element(part, 0, order)
        if kind != _MATRIX:
            raise ValueError(f"an element of kind {kind} where a variable was expected")
        yield part


def _element(data: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """What kind of element begins at a place, its bytes, and where the next one begins."""
    kind, size = struct.unpack_from(f"{order}II", data, at)
    begin, after = at + 8, at + 8 + size
    if kind >> 16:  # a small one holds both numbers in one, and its bytes in the place of the second
        kind, size, begin, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
    elif kind != _COMPRESSED:
        after += -size % 8
    if begin + size > min(after, len(data)):
        raise ValueError("it ends too early")
    return kind, data[begin : begin + size], after


def _named(data: memoryview, order: str, names: Collection[str] | None = None) -> tuple[str, Value]:
    """The name and value of a matrix; of one whose name is not wanted, no value."""
    if not data:
        return "", None  # an empty cell
    _, flags, at = _element(data, 0, order)
    _, dimensions, at = _element(data, at, order)
    _, raw, at = _element(data, at, order)
    name = bytes(raw).decode("latin-1")
    if names is not None and name not in names:
        return name, None
    (flag,) = struct.unpack_from(f"{order}I", flags)
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"a variable has the size {shape}")
    if flag & 0xFF == _CELL:
        return name, _cells(data, at, order, math.prod(shape))
    if (flag & 0xFF != _CHAR and flag & 0xFF not in _NUMERIC) or flag & _IS_COMPLEX:
        return name, None
    kind, content, _ = _element(data, at, order)
    if kind not in (_TEXTS if flag & 0xFF == _CHAR else _NUMBERS):
        raise ValueError(f"data of the kind {kind}")
    if flag & 0xFF == _CHAR:
        if shape[0] > 1 or len(shape) > 2:
            return name, None
        coding = _TEXTS[kind]
        return name, bytes(content).decode(coding + _ENDIAN[order] if coding.endswith("-") else coding)
    return name, np.frombuffer(content, order + _NUMBERS[kind]).reshape(shape, order="F")


def _cells(data: memoryview, at: int, order: str, count: int) -> list[Value]:
    values: list[Value] = []
    while len(values) < count:
        kind, part, at = _element(data, at, order)
        if kind != _MATRIX:
            raise ValueError(f"an element of kind {kind} where a cell was expected")
        values.append(_named(part, order)[1])
    return values
