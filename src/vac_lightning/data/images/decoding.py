"""One image file to RGB pixels: whatever its format, mode and orientation, as little of it as is needed."""

from __future__ import annotations

__all__ = ["MAX_PIXELS", "ImageFile", "Pixels", "decode", "grey", "orientation", "processors"]

import io
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from vac_lightning.data.base import DataError

Pixels: TypeAlias = NDArray[np.uint8]

MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**26)
"""A larger image is refused before it is decoded, as Pillow does: a few kilobytes can unpack to all memory."""


class ImageFile:
    """An image file, opened: its bytes, format and size are known, its pixels not yet.

    Grey becomes three equal channels; a palette its colours; CMYK the colours Pillow makes of it; 16-bit keeps its
    high byte; alpha is dropped. A JPEG is decoded by simplejpeg, which gives Pillow's pixels bit for bit, and
    anything else, or a JPEG that is not quite in order, by Pillow.

    path: the file; its format is read from its content, not from its name.
    upright: turn as the EXIF orientation says; off, pixels come as stored, which is what annotations of most
        published data sets refer to. A TIFF comes upright in any case, as Pillow reads it.
    width, height: of the whole image in pixels, turned if it is.
    format, mode: such as "JPEG" and "RGB", in Pillow's words.

    Raises:
        DataError: the file is missing or no image, holds an animation, or more than MAX_PIXELS.
    """

    def __init__(self, path: str | Path, upright: bool = False) -> None:
        self.path = path
        with _blamed(path):
            if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe would be waited for, a device read for ever
                raise ValueError("a folder, pipe or device instead of a file")
            self.data = Path(path).read_bytes()
            if not self.data:
                raise ValueError("the file is empty")
            self._simple = self.data[:3] == _JPEG
            try:
                if not self._simple:
                    raise ValueError
                height, width, colours, _ = simplejpeg.decode_jpeg_header(self.data)
                self.format, self.mode = "JPEG", {"Gray": "L", "CMYK": "CMYK", "YCCK": "CMYK"}.get(colours, "RGB")
                self._simple = self.mode != "CMYK"
            except ValueError:  # no JPEG, or one that is not quite in order
                self._simple = False
                with Image.open(io.BytesIO(self.data)) as image:
                    (width, height), self.mode, self.format = image.size, image.mode, image.format or ""
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS} allowed, save it smaller")
            self.turn = orientation(self.data) if upright else 1
            self.width, self.height = (width, height) if self.turn < 5 else (height, width)
        self._last: tuple[tuple[int, bool], Pixels] | None = None

    def pixels(self, scale: float = 1.0, quick: bool = False) -> Pixels:
        """All of the image as RGB, uint8 (H, W, 3). Those of the last call are kept: do not change them.

        scale: a JPEG is decoded at 1, 2, 3 or 4 eighths of its size, the smallest that is not below this share, or
            whole: at 5 to 7 eighths libjpeg-turbo takes longer than that.
        quick: decode a JPEG with the faster, slightly inexact transform and up-sampling of libjpeg-turbo.

        Raises:
            DataError: the file cannot be decoded.
        """
        eighths = max(1, math.ceil(8 * scale)) if self._simple and scale <= 0.5 else 8
        if self._last is None or self._last[0] != (eighths, quick):
            self._last = None  # never two of them in memory
            with _blamed(self.path):
                pixels = _TURNS[self.turn](self._decoded(eighths, quick))
            self._last = (eighths, quick), np.ascontiguousarray(pixels)
        return self._last[1]

    def _decoded(self, eighths: int, quick: bool) -> Pixels:
        if self._simple:
            sides = (self.width, self.height) if self.turn < 5 else (self.height, self.width)
            width, height = (math.ceil(side * eighths / 8) for side in sides)
            least = {"min_width": width, "min_height": height} if eighths < 8 else {}
            try:
                return simplejpeg.decode_jpeg(self.data, fastdct=quick, fastupsample=quick, **least)
            except ValueError:  # cut short, or only stray bytes between its parts: Pillow tells one from the other
                pixels = _by_pillow(self.data)
                self._simple = False  # whatever is asked for next has this size
                return pixels
        return _by_pillow(self.data)


def decode(path: str | Path, upright: bool = False) -> Pixels:
    """All of an image file as RGB, uint8 (H, W, 3), see ImageFile.

    Raises:
        DataError: as ImageFile does, or the file cannot be decoded.
    """
    return ImageFile(path, upright).pixels()


def grey(pixels: Pixels) -> Pixels:
    """One channel (H, W) of RGB pixels: the brightest, so that a stain drawn in any one colour keeps its strength."""
    return np.asarray(pixels.max(2), np.uint8)


def orientation(data: bytes) -> int:
    """The EXIF orientation of an image file's bytes, 1 (as stored) to 8."""
    if data[:3] == _JPEG and b"Exif" not in data[:_HEADERS]:
        return 1
    with Image.open(io.BytesIO(data)) as image:
        turn = 1 if image.format == "TIFF" else image.getexif().get(0x0112, 1)
    return turn if turn in _TURNS else 1


def processors() -> int:
    """How many files this process can decode at once: the processors that it may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _blamed(path: str | Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # decoders raise anything on damaged bytes
        reason = re.sub(r" <_io.BytesIO object at \w+>", "", str(error)) or type(error).__name__
        remedy = "check data.root, fetch the file again, or take it out of the annotations"
        raise DataError(f"cannot read {path} ({reason}): {remedy}") from error


def _by_pillow(data: bytes) -> Pixels:
    image: Image.Image
    with Image.open(io.BytesIO(data)) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in ("JPEG", "MPO"):  # a camera's MPO holds previews beside the photograph
            raise ValueError(f"an animation or stack of {frames} frames, save the frame that is meant")
        if image.format == "EPS":  # a program, which Pillow has Ghostscript run
            raise ValueError("it is PostScript, save it as PNG")
        if image.mode == "F":
            raise ValueError("its pixels are floats of unknown range, save it with 8 bits a channel")
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
        if "transparency" in image.info:  # Pillow warns where such a palette goes to RGB directly
            image = image.convert("RGBA")
        return np.array(image.convert("RGB"))


_JPEG = b"\xff\xd8\xff"
_HEADERS = 1 << 17
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
