"""Indices of large annotation files, kept for the next run."""

from __future__ import annotations

__all__ = ["Index", "checked", "indexed"]

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from vac_lightning.data.annotations.records import below, is_collecting, record
from vac_lightning.data.base import DataError
from vac_lightning.data.keeping.places import kept_folder, locked
from vac_lightning.names import inside, is_printable
from vac_lightning.runs import write_atomically


class Index(NamedTuple):
    """What an annotation file says of whole images.

    labels: the L names of the labels.
    names: the N files, each once.
    targets: int8 (N, L) of 1 and 0.
    """

    labels: Sequence[str]
    names: Sequence[str]
    targets: NDArray[np.int8]


def indexed(file: Path, kind: str, make: Callable[[], Index], cache_dir: str | None = None) -> Index:
    """The index of a file as it was kept, or else made, and kept for the next run where that is possible.

    A kept index counts while the file has the path, size and time it was made of, and only if it is sound: what is
    stale or damaged is made again. Several processes make it once. Below a megabyte a file is read each time.

    kind: what the index depends on besides the file; one index of each kind is kept.
    cache_dir: see `kept_folder`.
    """
    status = file.stat()
    if status.st_size < _WORTH or is_collecting():  # who looks for errors looks at the file itself
        return make()
    stamp = np.array([_VERSION, status.st_size, status.st_mtime_ns], np.int64)
    digest = hashlib.blake2b(os.fsencode(file.absolute()) + b"\0" + kind.encode(), digest_size=12).hexdigest()
    path = kept_folder(cache_dir) / "index" / f"{digest}.npz"
    if (kept := _kept(path, stamp)) is not None:
        return kept
    with ExitStack() as turn:
        try:
            turn.enter_context(locked(path))
        except (OSError, NotImplementedError):  # a folder that cannot be written, or a disk without locks
            return make()
        if (kept := _kept(path, stamp)) is not None:
            return kept
        index = make()
        with suppress(OSError):
            write_atomically(path, lambda out: np.savez_compressed(out, stamp=stamp, **_arrays(index)))
        return index


def checked(index: Index, file: Path, folder: Path) -> Index:
    """The index, once every file it names is known to be below the folder, and named once.

    Raises:
        DataError: a name that is not; naming `file`, what the index was made of.
    """
    if _is_sound(index):
        return index
    first: dict[str, int] = {}
    for i, name in enumerate(index.names):
        with record(file):
            below(folder, name, f"{file}, image {i}")
            if first.setdefault(name, i) != i:
                raise DataError(f"{file}: images {first[name]} and {i} are both {name!r}: take one of them out")
    good = sorted(first.values())
    return Index(index.labels, [index.names[i] for i in good], index.targets[good])


_VERSION = 1  # of the arrays that are kept, and of how an index is made
_WORTH = 2**20  # bytes


def _arrays(index: Index) -> dict[str, Any]:
    # Names as one JSON text: as an array each would take the room of the longest.
    texts = (np.frombuffer(msgspec.json.encode(list(part)), np.uint8) for part in index[:2])
    return dict(zip(Index._fields, (*texts, index.targets), strict=True))


def _kept(path: Path, stamp: NDArray[np.int64]) -> Index | None:
    """The kept index, or None where there is none, or none that can be used."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["stamp"], stamp):
                return None
            labels, names = (msgspec.json.decode(arrays[part].tobytes(), type=list[str]) for part in Index._fields[:2])
            index = Index(labels, names, arrays["targets"])
    except (OSError, ValueError, LookupError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return None
    return index if _is_sound(index) else None


def _is_sound(index: Index) -> bool:
    labels, names, targets = index
    return (
        targets.dtype == np.int8
        and targets.shape == (len(names), len(labels))
        and targets.size > 0
        and bool((targets >> 1 == 0).all())
        and len(set(names)) == len(names)
        and all(inside(name) and is_printable(name) for name in names)
    )
