"""Loading processes: how they start, read, outlive a signal, and end. Imports no Lightning, which they need not."""

from __future__ import annotations

__all__ = ["Reader", "check_picklable", "living_workers", "prepare_worker", "start_server", "worker_context"]

import atexit
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from pickle import PicklingError

import numpy as np
import torch
import torch.utils.data
from torch.utils.data import get_worker_info

from vac_lightning.data.base import FILLER, DataError, Dataset, Sample
from vac_lightning.data.order import Key


class Reader(torch.utils.data.Dataset[Sample]):
    """Reads samples of a data set with all randomness seeded by (seed, epoch, sample), and notes who reads which.

    reading: int64 (workers, 2), the process id of each worker and the sample it is reading; in shared memory.
    """

    def __init__(self, dataset: Dataset, seed: int, workers: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.reading = torch.full((workers, 2), -1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Sample:
        worker = get_worker_info()
        if worker is not None:
            self.reading[worker.id] = torch.tensor((os.getpid(), key.index))
        sequence = np.random.SeedSequence([self.seed, key.epoch, key.index])
        torch_seed, other = (int(word) for word in sequence.generate_state(2))
        torch.default_generator.manual_seed(torch_seed)
        np.random.seed(other)
        random.seed(other)
        try:
            sample = self.dataset[key.index]
        except DataError:
            raise
        except Exception as error:
            source = self.dataset.source(key.index)
            raise RuntimeError(f"sample {key.index} ({source}) cannot be read: {error!r}") from error
        return sample._replace(index=FILLER) if key.filler else sample


def check_picklable(dataset: Dataset) -> None:
    try:
        ForkingPickler.dumps(dataset)
    except (AttributeError, TypeError, PicklingError) as error:
        raise DataError(
            f"the data set cannot be sent to loading processes ({error}): define it, and what it holds, at the top of"
            " a module, or set num_workers=0"
        ) from error


def start_server() -> None:
    """Start the server that loading processes come from, and return at once: it imports while this process goes on."""
    if _METHOD != "forkserver" or threading.current_thread() is not threading.main_thread():
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, "vac_lightning.data.reading"])
    # The server inherits that it ignores SIGTERM; it ends with this process, and workers end with it.
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGTERM, handler)


def worker_context() -> BaseContext:
    """How loading processes are started: by a server process that has no threads.

    Forked from this process they may inherit a lock that a thread held at that moment (DDP and W&B keep threads), and
    hang: with gloo on Python 3.11 that happens within some dozens of starts.
    """
    _end_workers_at_exit()
    start_server()
    return multiprocessing.get_context(_METHOD)


def living_workers(seconds: float = 1.0) -> set[int]:
    """The process ids of loading processes that live, once those about to die had a moment for it."""
    time.sleep(seconds)
    return {child.pid for child in multiprocessing.active_children() if child.pid}


def prepare_worker(worker: int) -> None:
    """Let a worker go on when a terminal or scheduler signals all processes, so that the step can be finished.

    It ends when its parent does; one that hangs ends half a minute after it was told to. It keeps to one thread: torch
    sees to that for itself, OpenCV would start one for every processor in every worker.
    """
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(30))


@cache
def _end_workers_at_exit() -> None:
    """Kill workers that are left when this process exits: multiprocessing would send SIGTERM, which they put off, and
    wait for them. Exit functions run last in, first out, and multiprocessing's is in."""
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        child.kill()


_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
