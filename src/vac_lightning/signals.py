"""SIGTERM and SIGINT as an orderly end: at once where nothing is under way, after the step where something is."""

from __future__ import annotations

__all__ = ["GRACE_SECONDS", "StopRequests", "Stopped", "stop_requests"]

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 25.0
"""Schedulers kill what has not ended 30 seconds after SIGTERM."""


class Stopped(BaseException):
    """A signal asked this process to end. Not an Exception, so that a sweep ends with its job.

    code: the exit code, 128 + the signal's number: 143 for SIGTERM, 130 for SIGINT (Ctrl-C).
    agreed: whether all processes of a run end alike, at the same place.
    """

    def __init__(self, number: int, agreed: bool = False) -> None:
        self.signal = signal.Signals(number)
        self.code = 128 + number
        self.agreed = agreed
        super().__init__(f"stopped by {self.signal.name}")


class StopRequests:
    """Signals that ask this process to end.

    While `heeded`, a signal raises Stopped where the process is. While `deferred` too, the first one is only kept as
    `asked`, for the training loop to save and end by itself; the second raises at once. So it is where the first was
    handed on to other processes, which end by themselves. Whatever happens, the process ends with the stated code
    `GRACE_SECONDS` after SIGTERM or SIGINT, after `last_act`: what it wrote is whole at any moment.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.deferred = False
        self.last_act: Callable[[], None] = _nothing
        self._deadline: threading.Timer | None = None
        self._handed_on: Callable[[int], bool] = _to_nobody
        self._others: tuple[int, ...] = ()

    @contextmanager
    def heeded(self, *others: int, handed_on: Callable[[int], bool] | None = None) -> Iterator[None]:
        """Heed signals inside the block; only the main thread of a process can.

        others: signals besides SIGTERM and SIGINT, whose sender sets the time that is left. Where there are some, a
            scheduler sends them all, and from several sides: the second is then no sign of impatience.
        handed_on: hands a signal to other processes that work for this one, and says whether there are any.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (*_SIGNALS, *others)}
        self._others, self._handed_on = others, handed_on or _to_nobody
        self.asked = None
        self.deferred = False
        self.install()
        try:
            yield
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Put the handlers (back) in place; Lightning's trainer sets one of its own whenever it starts."""
        if threading.current_thread() is threading.main_thread():
            for number in (*_SIGNALS, *self._others):
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = self.asked is None
        if first:
            self.asked = number
        if self._deadline is None and number in _SIGNALS:
            self._deadline = threading.Timer(GRACE_SECONDS, self._give_up)
            self._deadline.daemon = True
            self._deadline.start()
        patient = first or self._others
        if not (patient and (self._handed_on(number) or self.deferred)):
            raise Stopped(self.asked if self.asked is not None else number)

    def _give_up(self) -> None:
        stopped = Stopped(self.asked or signal.SIGTERM)
        print(f"{stopped}; not done within {GRACE_SECONDS:.0f} s, ended as it was", file=sys.stderr, flush=True)
        try:
            self.last_act()
        finally:
            os._exit(stopped.code)


def _to_nobody(number: int) -> bool:
    return False


def _nothing() -> None:
    """The last act of a process that has started no others."""


stop_requests = StopRequests()
"""Those of this process: there is one set of handlers in a process."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
