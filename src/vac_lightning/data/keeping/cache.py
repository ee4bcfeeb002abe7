"""Squashed crops kept between runs: a photograph is decoded once, whatever reads its crops afterwards."""

from __future__ import annotations

__all__ = ["CropCache", "Format"]

import errno
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from vac_lightning.data.base import DataError
from vac_lightning.data.images.decoding import Pixels, processors
from vac_lightning.data.keeping.places import kept_folder, locked
from vac_lightning.data.keeping.store import Store

log = logging.getLogger(__name__)

Format: TypeAlias = Literal["raw", "jpeg"]
CropReader: TypeAlias = Callable[[int, Sequence[int]], list[Tensor]]
"""(sample, sizes) -> its crop at these sizes, uint8 (C, s, s) each."""
_Scene: TypeAlias = dict[int, list[int]]
"""Samples of the same files -> positions among the sizes."""
_Entries: TypeAlias = list[tuple[bytes, Pixels]]
"""Keys and values."""

TRANSACTION, SECONDS = 32 << 20, 10.0
"""Bytes written at a time, or those of so many seconds: what a kill loses at most of what is made."""

JPEG_SHARE = 0.25
"""Of raw pixels, what photographs take as JPEG, by which room is judged; on MS-COCO 0.15 (objects) to 0.21 (images)."""


class CropCache:
    """The crops of N photographs at S sizes, shared with whatever else reads crops below the same root.

    root: of the data set; with the format it names the store.
    keys: uint8 (N, S, 16), see `keys.crop_keys`.
    sizes: S sides in pixels.
    channels: C, of every crop.
    format: "raw" keeps pixels as they are. "jpeg" takes about a fifth of the room and changes them (quality 95, full
        colour resolution; by 1 to 2 levels of 255 in the mean); reading one takes some thirty times as long.
    cache_dir: see `kept_folder`.

    Raises:
        ValueError: JPEG of other than 1 or 3 channels.
    """

    def __init__(
        self,
        root: Path,
        keys: NDArray[np.uint8],
        sizes: Sequence[int],
        channels: int,
        format: Format = "raw",
        cache_dir: str | None = None,
    ) -> None:
        if format == "jpeg" and channels not in (1, 3):
            raise ValueError(f"data.cache_format=jpeg keeps 1 or 3 channels and these images have {channels}: take raw")
        place = os.fsencode(root.absolute())
        name = f"{root.absolute().name or 'root'}-{blake2b(place, digest_size=4).hexdigest()}-{format}"
        self.store = Store(kept_folder(cache_dir) / "crops" / name)
        self.keys = keys
        self.sizes = tuple(sizes)
        self.channels = channels
        self.format = format

    def images(self, index: int) -> list[Tensor] | None:
        """The crops of sample `index`, uint8 (C, s, s) each, ours to change; None where they are not (any longer)
        there or damaged, which is said once."""
        keys = self.keys[index].tobytes()
        try:
            values = self.store.get(keys[start : start + 16] for start in range(0, len(keys), 16))
            return [self._decoded(value, size) for value, size in zip(values, self.sizes, strict=True)]
        except (OSError, ValueError) as error:
            folder = self.store.folder
            if folder not in _told_lost:
                _told_lost.add(folder)
                log.warning(
                    "the crop cache lost sample %d (%s) and maybe more, which are read from their files instead, the"
                    " same and slower: delete %s, and the next run makes it again",
                    *(index, error, folder),
                )
            return None

    def as_kept(self, image: Tensor) -> Tensor:
        """A crop (C, s, s) as reading it from here gives it."""
        return self._decoded(self._encoded(image), image.shape[-1])

    def fill(self, files: NDArray[np.int32], reader: Callable[[], CropReader]) -> int:
        """Make the crops that are not there; how many. Processes that come at the same time wait, and find them there.

        files: int32 (N, K), which files make a sample; samples of the same are read one after the other by one reader.
        reader: gives one, which a thread uses by itself.

        Raises:
            DataError: a file that cannot be decoded; a folder that cannot be used; a disk with too little room, before
                anything is written. What was written until an error, or a kill, is kept.
        """
        keys = [bytes(key) for key in self.keys.reshape(-1, 16)]
        try:
            if not self.store.missing(keys):
                return 0
            with locked(self.store.folder):
                missing = self.store.missing(keys)  # what another process has left for us
                try:
                    return self._make(missing, files, reader) if missing else 0
                finally:
                    self.store.close()
        except OSError as error:
            raise DataError(self._explained(error)) from error

    def _make(self, missing: Sequence[int], files: NDArray[np.int32], reader: Callable[[], CropReader]) -> int:
        self._check_room(missing)
        scenes = _by_scene(missing, files, len(self.sizes))
        kept, made, held, since = 0, _Entries(), 0, time.monotonic()
        with _told(len(missing), len(scenes), self.store.folder) as tell, closing(self._read(scenes, reader)) as read:
            try:
                for crops in read:
                    made += crops
                    held += sum(len(value) for _, value in crops)
                    if held >= TRANSACTION or time.monotonic() - since > SECONDS:
                        full, made, held, since = made, [], 0, time.monotonic()
                        self.store.put(full)
                        tell(kept := kept + len(full))
            finally:
                self.store.put(made)
                tell(kept := kept + len(made))
        return kept

    def _read(self, scenes: Iterable[_Scene], reader: Callable[[], CropReader]) -> Generator[_Entries, None, None]:
        """Keys and values of the crops of scene after scene, read in threads that are a few scenes ahead."""

        def entries(scene: _Scene) -> _Entries:
            read = reader()
            return [
                (self.keys[index, position].tobytes(), self._encoded(image))
                for index, wanted in scene.items()
                for position, image in zip(wanted, read(index, [self.sizes[i] for i in wanted]), strict=True)
            ]

        threads = processors()
        ahead: deque[Future[_Entries]] = deque()
        pool = ThreadPoolExecutor(threads, "crops")
        try:
            for scene in scenes:
                ahead.append(pool.submit(entries, scene))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _encoded(self, image: Tensor) -> Pixels:
        """A crop (C, s, s) as the bytes that are kept."""
        if self.format == "raw":
            return np.asarray(image.numpy(), np.uint8).reshape(-1)
        colours, sampling = ("RGB", "444") if self.channels == 3 else ("GRAY", "Gray")
        pixels = image.permute(1, 2, 0).contiguous().numpy()
        data = simplejpeg.encode_jpeg(pixels, quality=95, colorspace=colours, colorsubsampling=sampling)
        return np.frombuffer(data, np.uint8)

    def _decoded(self, value: Pixels | None, size: int) -> Tensor:
        if value is None:
            raise ValueError("not there")
        if self.format == "jpeg":
            image = simplejpeg.decode_jpeg(value, colorspace="RGB" if self.channels == 3 else "GRAY")
            value = np.ascontiguousarray(image.transpose(2, 0, 1))
        return torch.from_numpy(value.reshape(self.channels, size, size))

    def _check_room(self, missing: Sequence[int]) -> None:
        share = 1.0 if self.format == "raw" else JPEG_SHARE
        values = (self.channels * self.sizes[position % len(self.sizes)] ** 2 for position in missing)
        needed = sum(_pages(share * count) for count in values)
        self.store.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.store.folder).free
        if needed > free:
            raise DataError(
                f"data.cache=true needs {'about ' if share < 1 else ''}{_readable(needed)} for {len(missing)} crops in"
                f" {self.store.folder}, where {_readable(free)} are free: {self._remedy()}"
            )

    def _remedy(self) -> str:
        jpeg = "" if self.format == "jpeg" or self.channels not in (1, 3) else "data.cache_format=jpeg, "
        return f"make room, or say data.cache_dir=FOLDER of another disk, {jpeg}fewer small_sizes, or data.cache=false"

    def _explained(self, error: OSError) -> str:
        place, reason = error.filename or self.store.folder, error.strerror or error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"no room for the crop cache in {place} ({reason}); what was made is kept: {self._remedy()}"
        if error.errno == errno.ENOMEM:
            return f"the crop cache in {place} cannot be mapped ({reason}): raise ulimit -v, or say data.cache=false"
        if error.errno == errno.EIO:
            return f"the crop cache in {place} cannot be used ({reason}): delete that folder, or say data.cache=false"
        return f"no crop cache can be kept in {place} ({reason}): say data.cache_dir=FOLDER, or data.cache=false"


def _by_scene(missing: Sequence[int], files: NDArray[np.int32], sizes: int) -> list[_Scene]:
    """Positions (sample * S + size) by the files they are read from, in the order of their first samples."""
    scenes: dict[bytes, _Scene] = {}
    for position in missing:
        index, size = divmod(position, sizes)
        scenes.setdefault(files[index].tobytes(), {}).setdefault(index, []).append(size)
    return list(scenes.values())


@contextmanager
def _told(crops: int, scenes: int, folder: Path) -> Iterator[Callable[[int], None]]:
    """Say what is made, how far it is (in a terminal), and how it ended."""
    from rich.console import Console  # not for loading processes, which only read
    from rich.progress import Progress

    console, began, done = Console(stderr=True), time.monotonic(), 0
    log.info("crop cache: making %d crops of %d photographs in %s", crops, scenes, folder)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("crops", total=crops)

        def tell(kept: int) -> None:
            nonlocal done
            done = kept
            progress.update(task, completed=kept)

        try:
            yield tell
        finally:
            log.info("crop cache: %d of %d crops kept, %.1f s", done, crops, time.monotonic() - began)


def _pages(length: float) -> int:
    """Bytes on the disk for a value of this length, with its place in the tree."""
    return -(-(int(length) + 16) // 4096) * 4096 + 160


def _readable(count: int) -> str:
    number, unit = next((count / scale, unit) for scale, unit in _UNITS if count >= scale)
    return f"{number:.1f} {unit} ({count} bytes)"


_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (0, "bytes"))
_told_lost: set[Path] = set()
