"""What image files hold and whether they can be read: every file decoded to its end, in threads."""

from __future__ import annotations

__all__ = ["FileFacts", "inspect_files"]

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from vac_lightning.data.base import DataError
from vac_lightning.data.images.decoding import ImageFile, orientation, processors
from vac_lightning.names import shown


class FileFacts(NamedTuple):
    """What is known of one image file.

    width, height: in pixels, turned if upright; 0 where the file cannot be decoded.
    format, mode: such as "JPEG" and "RGB"; empty where they are unknown.
    turn: the EXIF orientation, 1 (as stored) to 8.
    digest: BLAKE2b of the file's bytes, in hex; empty unless asked for, or where they cannot be read.
    error: in one line, why the file cannot be decoded; empty where it can.
    problem: the kind of that error: "missing", "empty", "truncated", "animated" or "unreadable".
    """

    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    turn: int = 1
    digest: str = ""
    error: str = ""
    problem: str = ""


def inspect_files(
    paths: Sequence[Path],
    *,
    digests: bool = False,
    upright: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[FileFacts]:
    """Facts about every file, in the order of the paths. Memory: per thread one file, a JPEG at an eighth of its size.

    digests: of the files' bytes too.
    upright: sizes after the EXIF orientation.
    threads: how many decode at once; None for as many as there are processors for us.
    progress: called with the number of files done and of all, now and then; what it raises ends the inspection.
    """
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    facts: list[FileFacts] = []
    pool = ThreadPoolExecutor(threads or processors())
    try:
        for chunk in pool.map(lambda chunk: [_facts(path, digests, upright) for path in chunk], chunks):
            facts += chunk
            if progress is not None:
                progress(len(facts), len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    return facts


def _facts(path: Path, digests: bool, upright: bool) -> FileFacts:
    facts = FileFacts()
    try:
        file = ImageFile(path, upright)
        digest = hashlib.blake2b(file.data, digest_size=16).hexdigest() if digests else ""
        facts = FileFacts(format=file.format, mode=file.mode, digest=digest)
        # Of a JPEG all codes are read at any scale, and they are what a damaged file lacks.
        file.pixels(scale=0.0, quick=True)
        return facts._replace(width=file.width, height=file.height, turn=_turn(file.data))
    except DataError as error:
        return facts._replace(error=shown(str(error)), problem=_problem(error.__cause__))


def _turn(data: bytes) -> int:
    try:
        return orientation(data)
    except Exception:  # Pillow raises anything on damaged EXIF, which harms nobody who does not turn by it
        return 1


def _problem(error: BaseException | None) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    text = str(error).lower()
    return next((kind for sign, kind in _SIGNS.items() if sign in text), "unreadable")


_SIGNS = {"the file is empty": "empty", "animation": "animated", "truncated": "truncated", "broken data": "truncated"}
_CHUNK = 16  # files between two looks at the progress
