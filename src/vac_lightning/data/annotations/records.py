"""Annotation files: blame for what is wrong in them, record by record, and the paths they name."""

from __future__ import annotations

__all__ = ["below", "blame", "collected", "is_collecting", "needs_first_file", "record", "split_of"]

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from vac_lightning.data.base import DataError
from vac_lightning.names import inside, is_printable


@contextmanager
def blame(place: object) -> Iterator[None]:
    """Blame `place`, a file or a record in it, for missing keys and wrong values met inside the block.

    Raises:
        DataError: naming `place` and the key, in place of a KeyError, TypeError, ValueError, OSError or the like.
    """
    try:
        yield
    except DataError:
        raise
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        what = f"the key {error} is missing" if isinstance(error, KeyError) else error
        remedy = "the file is damaged or of another format, fetch it again or mend it"
        if isinstance(error, OSError) and error.strerror:  # the system's, not a library's word for damage
            what, remedy = error.strerror, "check that it is there and yours to read"
        raise DataError(f"{place}: {what}; {remedy}") from error


@contextmanager
def record(place: object) -> Iterator[None]:
    """`blame` for one record of many: where errors are `collected`, it is noted and the block ends there.

    So a record is added to what was read as the last act of the block, or not at all.
    """
    try:
        with blame(place):
            yield
    except DataError as error:
        errors = _errors.get()
        if errors is None:
            raise
        errors.append(error)


@contextmanager
def collected() -> Iterator[list[DataError]]:
    """Inside the block, broken records are left out and their errors listed, where they are otherwise raised."""
    errors: list[DataError] = []
    token = _errors.set(errors)
    try:
        yield errors
    finally:
        _errors.reset(token)


def is_collecting() -> bool:
    """Whether errors are being `collected`."""
    return _errors.get() is not None


def needs_first_file(options: Mapping[str, Any]) -> bool:
    """Whether a split whose first file is not there is refused at once.

    Not where every file is looked at anyway: where errors are `collected`, and where what cannot be read is left out.

    options: those of Photos.
    """
    return not is_collecting() and options.get("on_bad_image") != "skip"


def below(folder: Path, name: str, place: object) -> str:
    """The name of a file in an annotation, once it is known to lead nowhere but below the folder it is relative to.

    place: what names the file, for the message. Links in the folder may lead anywhere.

    Raises:
        DataError: a name that leads out of the folder, or holds characters that no name of a file should.
    """
    if not is_printable(name):
        raise DataError(
            f"{place} names the file {name!r}, with control characters or bytes that are no UTF-8: rename the file"
        )
    if not inside(name):
        raise DataError(f"{place} names the file {name!r}, outside {folder}: take the record out, or mend its path")
    return name


def split_of(role: str, splits: Mapping[str, Any], known: Iterable[str] | None = None) -> str:
    """The name of the split that plays a role.

    known: the splits that there are, where they are given.

    Raises:
        DataError: a role without a split, or with one that is not known.
    """
    split = splits.get(role)
    if not split:
        raise DataError(f"role={role!r} has no split: use one of {_listed(splits)}, or add it to data.splits")
    if known is not None and split not in list(known):
        raise DataError(
            f"role={role!r} has split {split!r}: the roles are {_listed(splits)}, each one of {_listed(known)}"
        )
    return str(split)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


_errors: ContextVar[list[DataError] | None] = ContextVar("errors", default=None)
