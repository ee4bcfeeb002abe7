"""Bytes by key in one memory-mapped file, which any number of processes read while one adds to it."""

from __future__ import annotations

__all__ = ["Store"]

import errno
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray


class Store:
    """An LMDB environment in a folder. It is opened where it is used, so that a store pickles to its path.

    LMDB forbids a process to open one twice: whatever number of stores name a folder, they share what is open, and
    threads take turns. A forked process opens its own.

    Raises:
        OSError: the folder cannot be used, its file is damaged, or the disk is full; with the folder as `filename`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, keys: Iterable[bytes]) -> list[NDArray[np.uint8] | None]:
        """The values of keys, uint8 (bytes), copied; None for a key that is not there."""
        with _Turn(self.folder), _begin(self.folder) as transaction:
            return [None if (value := transaction.get(key)) is None else np.array(value) for key in keys]

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """The positions of the keys that are not there, of equal ones the first. What was open is opened anew, in case
        the folder was deleted under it."""
        first = {key: position for position, key in reversed(list(enumerate(keys)))}
        with _Turn(self.folder):
            _close(self.folder)
            if not _written(self.folder):
                return sorted(first.values())
            with _begin(self.folder) as transaction:
                return sorted(position for key, position in first.items() if transaction.get(key) is None)

    def put(self, items: Sequence[tuple[bytes, NDArray[np.uint8]]]) -> None:
        """Add all of the items or, on any error, none. One process at a time, see `kept.locked`."""
        if not items:
            return
        with _Turn(self.folder, writing=True):
            environment = _opened(self.folder, writable=True)
            page = environment.stat()["psize"]
            used = (environment.info()["last_pgno"] + 1) * page
            # A value may take a page more than its bytes, and copy the page of the tree that names it.
            room = used + 2 * sum(len(value) + 2 * page for _, value in items) + _TREE
            if environment.info()["map_size"] < room:
                # Of the addresses alone: the file grows by what is written, and other processes follow, see _begin.
                environment.set_mapsize(max(room, used + used // 4))
            with environment.begin(write=True) as transaction:
                transaction.cursor().putmulti((key, value.data) for key, value in items)

    def close(self) -> None:
        """Close the file in this process, where it is open; the next use opens it."""
        with _Turn(self.folder):
            _close(self.folder)


class _Turn:
    """This thread's turn with what is open, and LMDB's errors as OSErrors that name the folder."""

    def __init__(self, folder: Path, writing: bool = False) -> None:
        self.folder = folder
        self.writing = writing

    def __enter__(self) -> None:
        _turn.acquire()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        _turn.release()
        if isinstance(error, lmdb.Error):
            # A write that found room for its beginning alone is told as an I/O error.
            full = isinstance(error, lmdb.DiskError) or (self.writing and type(error) is lmdb.Error)
            number = errno.ENOSPC if full else errno.ENOMEM if isinstance(error, lmdb.MemoryError) else errno.EIO
            raise OSError(number, str(error).removeprefix(f"{self.folder}: "), str(self.folder)) from error


def _begin(folder: Path) -> lmdb.Transaction:
    environment = _opened(folder)
    try:
        return environment.begin(buffers=True)
    except lmdb.MapResizedError:  # another process made the file larger than what is mapped here
        environment.set_mapsize(0)
        return environment.begin(buffers=True)


def _opened(folder: Path, writable: bool = False) -> lmdb.Environment:
    path = str(folder)
    environment = _environments.get(path)
    if environment is not None and writable and environment.flags()["readonly"]:
        _close(folder)
        environment = None
    if environment is None:
        if writable:
            folder.mkdir(parents=True, exist_ok=True)
        elif not _written(folder):
            raise FileNotFoundError(errno.ENOENT, "the file is not there", path)
        environment = _open(path, writable, lock=True)
        _environments[path] = environment
        if writable:
            environment.reader_check()  # lets go of what killed readers held
        _check_length(folder, environment)
    return environment


def _written(folder: Path) -> bool:
    """Whether the file is there, and not empty as another process has just made it, or was killed when it had."""
    file = folder / _FILE
    return file.is_file() and file.stat().st_size > 0


def _open(path: str, writable: bool, lock: bool) -> lmdb.Environment:
    # A map of size 0 is as large as its last writer's. The map is never written through, which would be killed by
    # the first page that finds no room on the disk. Readahead stays on: a value is many pages in a row.
    try:
        return lmdb.open(path, map_size=0, readonly=not writable, create=False, max_readers=_READERS, lock=lock)
    except (lmdb.LockError, lmdb.ReadonlyError):
        if writable or not lock:
            raise
        return _open(path, writable, lock=False)  # somebody else's folder, in which we may not even note that we read


def _check_length(folder: Path, environment: lmdb.Environment) -> None:
    """A file cut short, as by a copy that was broken off, would kill whoever reads past its end."""
    expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if (folder / _FILE).stat().st_size < expected - _TREE:  # pages at the end may be unused, and never written
        _close(folder)
        raise OSError(errno.EIO, "the file is cut short", str(folder))


def _close(folder: Path) -> None:
    environment = _environments.pop(str(folder), None)
    if environment is not None:
        environment.close()


def _after_fork() -> None:
    """What was open belongs to the parent: LMDB lets a child do nothing but close it."""
    global _turn
    _turn = threading.RLock()
    for environment in _environments.values():
        environment.close()
    _environments.clear()


_FILE = "data.mdb"
_READERS = 4096  # loading processes of all runs on a machine that may read in the same microsecond
_TREE = 1 << 20  # bytes, more than the pages of the tree that one transaction adds to those of its values
_environments: dict[str, lmdb.Environment] = {}
_turn = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
