"""Names that others chose, of runs, labels and files: what may be in them, and how they are shown."""

from __future__ import annotations

__all__ = ["inside", "is_printable", "relative", "shown"]

import unicodedata
from os.path import splitdrive
from pathlib import Path


def is_printable(text: str) -> bool:
    """Whether a text holds nothing that steers a terminal or breaks a line."""
    return text.isprintable() or not any(map(_steers, text))  # the first is the same of most texts, and quick


def shown(text: str) -> str:
    """A text as it may be printed: what steers a terminal stands there as its escape, ESC as \\x1b."""
    return "".join(char.encode("unicode_escape").decode() if _steers(char) else char for char in text)


def inside(path: str) -> bool:
    """Whether a path, taken from a folder, stays in it by its letters alone; links in the folder may lead anywhere."""
    parts = path.replace("\\", "/").split("/")  # the first is empty where a path begins at a root
    return parts[0] != "" and ".." not in parts and "\0" not in path and not splitdrive(path)[0]


def relative(root: Path, *paths: Path) -> str:
    """Files as people know them: from the root where they lie below it, several joined by " + "."""
    return " + ".join((path.relative_to(root) if path.is_relative_to(root) else path).as_posix() for path in paths)


_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of writing, and with it what a name seems to be."""


def _steers(char: str) -> bool:
    # Cc: control characters; Zl, Zp: line separators; Cs: halves of characters, which no file of text can hold.
    return char in _TURNS or unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs")
