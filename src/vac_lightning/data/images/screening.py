"""Image files that cannot be read, found before training and left out: `data.on_bad_image=skip`."""

from __future__ import annotations

__all__ = ["LeftOut", "screened"]

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from vac_lightning.data.base import DataError
from vac_lightning.data.images.inspection import inspect_files
from vac_lightning.data.keeping.places import kept_folder, locked
from vac_lightning.names import relative

log = logging.getLogger(__name__)


class LeftOut(NamedTuple):
    """A file that cannot be read.

    file: relative to the root where it lies inside.
    reason: why, in one line.
    samples: how many were left out with it; a sample of several such files counts with the first.
    """

    file: str
    reason: str
    samples: int


def screened(
    folder: Path,
    names: Sequence[str],
    files: NDArray[np.int32],
    *,
    root: Path,
    upright: bool = False,
    cache_dir: str | None = None,
) -> tuple[NDArray[np.bool_], list[LeftOut]]:
    """Which samples can be read, bool (N,), and the files that cannot.

    Every file is decoded once. That it could be read is kept, by path, size and time of last change, for the next run;
    one that could not is looked at each time, so that one put right counts at once.

    folder, names: file i is folder / names[i].
    files: int32 (N, K), the files of each sample.
    root: of the data set; what is kept is kept by it.
    upright, cache_dir: as those of Photos.

    Raises:
        DataError: no sample is left.
    """
    used = np.unique(files)
    paths = [folder / names[file] for file in used.tolist()]
    reasons = _unreadable(paths, root, upright, cache_dir)
    broken = np.zeros(len(names), bool)
    broken[used[list(reasons)]] = True
    hits = broken[files]
    keep = np.logical_not(hits.any(1))
    samples = np.bincount(files[np.arange(len(files)), hits.argmax(1)][~keep], minlength=len(names))
    left_out = [
        LeftOut(relative(root, paths[i]), reason, int(samples[used[i]])) for i, reason in sorted(reasons.items())
    ]
    if len(files) and not keep.any():
        raise DataError(f"none of {len(files)} samples can be read; the first: {left_out[0].reason}")
    return keep, left_out


def _unreadable(paths: Sequence[Path], root: Path, upright: bool, cache_dir: str | None) -> dict[int, str]:
    """Position -> reason of every file that cannot be read."""
    name = hashlib.blake2b(os.fsencode(root.absolute()), digest_size=16).hexdigest()
    place: Path | None = kept_folder(cache_dir) / "inspected" / name
    found: dict[int, str] = {}
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(place))  # type: ignore[arg-type]
            readable = _kept(place)  # type: ignore[arg-type]
        except OSError as error:
            log.warning("what is found in images is not kept for the next run (%s): set data.cache_dir=FOLDER", error)
            place, readable = None, set()
        keys = [_key(path, upright) for path in paths]  # before they are read: what changes meanwhile is read again
        left = [i for i, key in enumerate(keys) if key not in readable]
        with _shown(len(left), root) as show:
            for start in range(0, len(left), _BATCH):
                batch = left[start : start + _BATCH]
                facts = inspect_files([paths[i] for i in batch], upright=upright)
                found |= {i: fact.error for i, fact in zip(batch, facts, strict=True) if fact.error}
                if place is not None:
                    _keep(place, [keys[i] for i in batch if i not in found])
                show(len(batch))
    return found


def _key(path: Path, upright: bool) -> bytes:
    """16 bytes that stand for a file as it is, and for how it is read; none for one that is not there."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return b""
    how = f"\0{stat.st_size}\0{stat.st_mtime_ns}\0{upright}\0{PIL.__version__}\0{simplejpeg.__version__}"
    return hashlib.blake2b(os.fsencode(path.absolute()) + how.encode(), digest_size=_KEY).digest()


def _kept(place: Path) -> set[bytes]:
    """The keys of files found readable. They stand one after the other: damage can only make one unknown."""
    content = place.read_bytes() if place.exists() else b""
    whole = len(content) // _KEY * _KEY
    if whole < len(content):  # a process was killed while it wrote
        os.truncate(place, whole)
    return {content[start : start + _KEY] for start in range(0, whole, _KEY)}


def _keep(place: Path, keys: Sequence[bytes]) -> None:
    try:
        with place.open("ab") as file:
            file.write(b"".join(keys))
    except OSError as error:
        log.warning("%s cannot be written (%s): these images are inspected again in the next run", place, error)


@contextmanager
def _shown(count: int, root: Path) -> Iterator[Callable[[int], None]]:
    """Progress over so many files, on a terminal; in a log one line."""
    if count > _MANY:
        log.info("inspecting %d images of %s", count, root)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=count <= _MANY or not console.is_terminal) as progress:
        task = progress.add_task("inspecting images", total=count)
        yield lambda done: progress.advance(task, done)


_BATCH = 512  # files between two looks at the progress, and at most to inspect again after a kill
_KEY = 16
_MANY = 100  # files that take a while: fewer, such as those known to be bad, are not worth a line
