"""What a crop is kept under: another file, box, size or library, another key."""

from __future__ import annotations

__all__ = ["crop_keys"]

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vac_lightning.data.base import DataError


def crop_keys(
    names: Sequence[Path | str],
    files: NDArray[np.int32],
    boxes: NDArray[np.float64],
    sizes: Sequence[int],
    manner: Sequence[object],
) -> NDArray[np.uint8]:
    """What names the crops of N photographs at S sizes, uint8 (N, S, 16): a hash of all that decides their pixels.

    names: the files. Their absolute paths, sizes and times of change are part of it.
    files, boxes: (N, K) and (N, 4), see PhotoIndex.
    manner: all else that decides pixels, such as the reading and the versions of the libraries that do it.

    Raises:
        DataError: a file that is not there.
    """
    used, inverse = np.unique(files, return_inverse=True)
    positions: Any = inverse.reshape(files.shape).tolist()
    identities = [_identity(names[file]) for file in used]
    base = blake2b(repr((_VERSION, *manner)).encode(), digest_size=16)
    ends = [repr(size).encode() for size in sizes]
    keys = bytearray()
    for parts, box in zip(positions, boxes, strict=True):
        photo = base.copy()
        for part in parts:
            photo.update(identities[part])
        photo.update(b"whole" if np.isnan(box[0]) else box.tobytes())
        for end in ends:
            crop = photo.copy()
            crop.update(end)
            keys += crop.digest()
    return np.frombuffer(bytes(keys), np.uint8).reshape(len(files), len(sizes), 16)


def _identity(name: Path | str) -> bytes:
    try:
        found = os.stat(name)  # noqa: PTH116  # a Path takes three times as long, a hundred thousand times
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {name} ({getattr(error, 'strerror', None) or error}): check data.root, fetch the file again,"
            " or take it out of the annotations"
        ) from error
    return b"%s\0%d\0%d\0" % (os.fsencode(os.path.abspath(name)), found.st_size, found.st_mtime_ns)  # noqa: PTH100


_VERSION = 2  # of how crops are made here: another one makes other keys
