"""What goes wrong while a run trains, in one line that names what and where, with no process left behind."""

from __future__ import annotations

__all__ = ["explained", "recorded"]

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import pytorch_lightning as pl

from vac_lightning.commands import credentials, memory
from vac_lightning.commands.app import RunError, UsageError, leave_process_group
from vac_lightning.data.base import DataError
from vac_lightning.data.datamodule import DataModule
from vac_lightning.names import shown
from vac_lightning.signals import Stopped, stop_requests
from vac_lightning.status import StatusFile
from vac_lightning.task import NonFiniteError


@contextmanager
def explained(data: DataModule, trainer: pl.Trainer, less_memory: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Turn an error that training can meet into a RunError.

    An error that every process of a run raises alike is told by the first one; the others end quietly with code 0.
    After any other error the processes that the first one started would wait for it for ever, and are ended.

    less_memory: the words with which the run takes less memory, asked for where it ran out of it.

    Raises:
        RunError: a loss or weight that is not finite, data that cannot be read, a loading process that died, a disk
            without room, memory that was not to be had.
    """
    stop_requests.last_act = lambda: _end_other_processes(trainer)
    try:
        yield
    except BaseException as error:
        alike = isinstance(error, NonFiniteError) or (isinstance(error, Stopped) and error.agreed)
        if alike:
            leave_process_group()
        else:
            _end_other_processes(trainer)
        if alike and not trainer.is_global_zero:
            raise SystemExit(0) from error
        message = _message(error, data, less_memory)
        if message is None:
            raise
        raise RunError(message) from error
    finally:
        stop_requests.deferred = False


@contextmanager
def recorded(status: StatusFile, always: bool) -> Iterator[None]:
    """Write into status.json how a run ended that has no results.

    always: even where it ended before it began to train, as in a sweep, of which nobody reads every line; a single
        run leaves no file for words that cannot be used.
    """
    try:
        yield
    except (Stopped, Exception) as error:
        # A finished run that was only to be overwritten is finished still.
        if (status.begun or always) and not status.run.finished:
            with suppress(OSError):  # a full disk, say: what is raised tells more
                if isinstance(error, Stopped):
                    status.end("stopped")
                else:
                    status.end("failed", _one_line(error))
        raise


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0].strip() if lines else ""
    known = isinstance(error, RunError | UsageError)
    return shown(credentials.redacted(text if known else f"{type(error).__name__}: {text}"))


def _end_other_processes(trainer: pl.Trainer) -> None:
    """Kill the processes that Lightning started for this run, if this is the one that started them."""
    processes = getattr(trainer.strategy.launcher, "procs", [])
    for process in processes:
        process.kill()
        process.wait()
    processes.clear()  # or Lightning's observer kills this process for their exit codes


def _non_finite(error: NonFiniteError, data: DataModule) -> str:
    samples = [f"{index} ({data.split('train').source(index)})" for index in error.index]
    shown = ", ".join(samples[:8]) + (f" and {len(samples) - 8} more" if len(samples) > 8 else "")
    return f"{error}; samples: {shown or 'not known'}; the checkpoint before it is kept"


def _message(error: BaseException, data: DataModule, less_memory: Callable[[], Sequence[str]]) -> str | None:
    if isinstance(error, NonFiniteError):
        return _non_finite(error, data)
    if isinstance(error, DataError):
        return str(error).rpartition("DataError: ")[2].strip()  # a loading process sends its traceback along
    if (full := _full_disk(error)) is not None:
        place = f" for {os.fsdecode(full.filename)}" if full.filename else ""
        return (
            f"no room on the disk{place} ({full.strerror}): every finished file was kept; make room and say the same"
            " words again, which go on from the last checkpoint"
        )
    if (sample := data.sample_of_dead_worker(error)) is not None:
        return (
            f"a loading process died while it read {sample}: look at that file, or lower num_workers where the"
            " machine ran out of memory"
        )
    return memory.message(error, less_memory)


def _full_disk(error: BaseException | None) -> OSError | None:
    """The error of a disk without room that this one is or comes of; torch.save raises one of its own after it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error
        error = error.__cause__ or error.__context__
    return None
