"""What goes wrong while a run trains, in one line that names what and where, with no process left behind."""

from __future__ import annotations

__all__ = ["explained"]

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl

from vac_lightning.commands.app import RunError
from vac_lightning.data.base import DataError
from vac_lightning.data.datamodule import DataModule
from vac_lightning.signals import Stopped
from vac_lightning.task import NonFiniteError


@contextmanager
def explained(data: DataModule, trainer: pl.Trainer) -> Iterator[None]:
    """Turn an error that training can meet into a RunError.

    Every process of a run raises Stopped and NonFiniteError alike: the first one says so, the others end quietly
    with code 0, for with another Lightning would kill the first before it is done. After any other error the
    processes that the first one started would wait for it for ever, and are ended.

    Raises:
        RunError: a loss or weight that is not finite, data that cannot be read, a loading process that died, a disk
            without room.
    """
    try:
        yield
    except (Stopped, NonFiniteError) as error:
        if not trainer.is_global_zero:
            raise SystemExit(0) from error
        if isinstance(error, NonFiniteError):
            raise RunError(_non_finite(error, data)) from error
        raise
    except BaseException as error:
        if kill := getattr(trainer.strategy.launcher, "kill", None):
            kill(signal.SIGKILL)
        message = _message(error, data)
        if message is None:
            raise
        raise RunError(message) from error


def _non_finite(error: NonFiniteError, data: DataModule) -> str:
    samples = [f"{index} ({data.split('train').source(index)})" for index in error.index]
    shown = ", ".join(samples[:8]) + (f" and {len(samples) - 8} more" if len(samples) > 8 else "")
    return f"{error}; samples: {shown or 'not known'}; the checkpoint before it is kept"


def _message(error: BaseException, data: DataModule) -> str | None:
    if isinstance(error, DataError):
        return str(error).rpartition("DataError: ")[2].strip()  # a loading process sends its traceback along
    if (full := _full_disk(error)) is not None:
        place = f" for {os.fsdecode(full.filename)}" if full.filename else ""
        return (
            f"no room on the disk{place} ({full.strerror}): every finished file was kept; make room and say the same"
            " words again, which go on from the last checkpoint"
        )
    if isinstance(error, RuntimeError) and (sample := data.sample_of_dead_worker(error)) is not None:
        return (
            f"a loading process died while it read {sample}: look at that file, or lower num_workers where the"
            " machine ran out of memory"
        )
    return None


def _full_disk(error: BaseException | None) -> OSError | None:
    """The error of a disk without room that this one is or comes of; torch.save raises one of its own after it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error
        error = error.__cause__ or error.__context__
    return None
