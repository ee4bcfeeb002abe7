"""What is kept between runs (crops, indices, what was found in files): where it lies, and whose turn it is to write."""

from __future__ import annotations

__all__ = ["kept_folder", "locked"]

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


def kept_folder(cache_dir: str | None = None) -> Path:
    """The folder of what is kept, which can be deleted at any time when no run uses it.

    cache_dir: the folder, or None for $VAC_CACHE, else $XDG_CACHE_HOME/vac_lightning, else ~/.cache/vac_lightning.

    Raises:
        OSError: there is no home folder, as for a bare user id in a container.
    """
    try:
        return _folder(cache_dir)
    except RuntimeError as error:
        raise OSError(f"nothing can be kept between runs ({error}): set VAC_CACHE or data.cache_dir=FOLDER") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path` against other processes, waiting for it; a process that dies lets it go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log.info("waiting for another process that is making %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _folder(cache_dir: str | None) -> Path:
    if cache_dir := cache_dir or os.environ.get("VAC_CACHE"):
        return Path(cache_dir).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "vac_lightning"
