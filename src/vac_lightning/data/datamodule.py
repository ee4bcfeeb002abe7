"""The one LightningDataModule: any data set by role, in an order that is stated and can be entered anywhere."""

from __future__ import annotations

__all__ = ["DataModule"]

import atexit
import multiprocessing
import os
import random
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from pickle import PicklingError
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torch.utils.data
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, get_worker_info

from vac_lightning.data.base import FILLER, Batch, DataError, Dataset, Sample, check_labels, collate, fingerprint


class DataModule(pl.LightningDataModule):
    """Batches of a data set's train, val and test splits.

    The order of training is a function of seed and epoch alone, and what is drawn for a sample (augmentation) one of
    seed, epoch and sample; so training can begin anywhere. Several processes share each batch of that order, the
    short last one too. Evaluation deals whole batches to the processes, so that a batch holds the same samples
    however many there are; who has fewer batches repeats some, which Batch.index undoes.

    Args:
        dataset: (role, sizes) -> the split for "train", "val" or "test" with source images of these sizes.
        sizes: sides of the source images in pixels, largest first.
        batch_size: samples a training step over all processes together, and of an evaluation batch.
        num_workers: loading processes; 0 loads in the training process.
        drop_last: drop the last training batch where it is short.
        seed: of the training order and of what is drawn for a sample.
        limits: evaluation batches of a role, over all processes together: a number, or a share of them (a float up
            to 1.0); None or no entry for all.

    Raises:
        DataError: data that is missing or broken, labels without proper names, splits with different labels, a batch
            that does not divide among the processes.
    """

    def __init__(
        self,
        dataset: Callable[[str, Sequence[int]], Dataset],
        sizes: Sequence[int],
        batch_size: int,
        num_workers: int = 0,
        drop_last: bool = False,
        seed: int = 0,
        limits: Mapping[str, float | None] | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise ValueError(f"batch_size={batch_size}, num_workers={num_workers}: expected at least 1 and at least 0")
        self.sizes = tuple(sizes)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.seed = seed
        self.limits = dict(limits or {})
        self._dataset = dataset
        self._splits: dict[str, Dataset] = {}
        self._readers: list[_Reader] = []
        self._start = (0, 0)

    def split(self, role: str) -> Dataset:
        """The data set that plays a role, read once. Evaluation roles are read at the largest size alone."""
        if role not in self._splits:
            sizes = self.sizes if role == "train" else self.sizes[:1]
            dataset = self._dataset(role, sizes)
            if len(dataset) == 0:
                raise DataError(f"the {role} split is empty: check the split's name and its annotation file")
            check_labels(dataset.labels)
            for other, known in self._splits.items():
                if known.labels != dataset.labels:
                    raise DataError(
                        f"the {role} split has {len(dataset.labels)} labels, the {other} split {len(known.labels)}, or"
                        " they differ by name or order: use annotation files of the same label set"
                    )
            self._splits[role] = dataset
        return self._splits[role]

    @property
    def labels(self) -> tuple[str, ...]:
        """The L label names."""
        return (next(iter(self._splits.values()), None) or self.split("train")).labels

    @property
    def positive_ratio(self) -> Tensor:
        """p, float32 (L,): the share of training samples that are positive for each label; unspecified is not."""
        return torch.from_numpy((self.split("train").targets == 1).mean(0)).float()

    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of every split read so far, by role."""
        return {role: fingerprint(split) for role, split in self._splits.items()}

    def start_at(self, epoch: int, batches: int) -> None:
        """Let training begin in this epoch, after its first `batches` batches."""
        self._start = (epoch, batches)

    def setup(self, stage: str) -> None:
        for role in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ()):
            self.split(role)

    def train_dataloader(self) -> DataLoader[Batch]:
        processes, rank = self._process()
        if self.batch_size % processes:
            raise DataError(
                f"batch_size={self.batch_size} is the batch of all processes together and does not divide among"
                f" {processes}: choose a multiple of {processes}"
            )
        samples = len(self.split("train"))
        if self.drop_last and samples < self.batch_size:
            raise DataError(
                f"batch_size={self.batch_size} is larger than the train split ({samples} samples) and short"
                " batches are dropped: lower batch_size or set drop_last=false"
            )
        order = _TrainingOrder(samples, self.batch_size, self.drop_last, self.seed, processes, rank, self._start)
        return self._loader("train", order)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_loader("test")

    def evaluation_loader(self, role: str) -> DataLoader[Batch]:
        """The batches of one split in its order, of which this process gets every n-th."""
        samples = len(self.split(role))
        batches = [range(start, min(start + self.batch_size, samples)) for start in range(0, samples, self.batch_size)]
        limit = self.limits.get(role)
        if limit is not None:
            batches = batches[: max(1, int(limit * len(batches))) if isinstance(limit, float) else limit]
        return self._loader(role, _EvaluationOrder(batches, *self._process()))

    def sample_of_dead_worker(self, error: BaseException) -> str | None:
        """What a loading process was reading when it died, where `error` is torch's report of its death."""
        found = re.search(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)", str(error))
        pids = {int(pid) for pid in found.group(1).split(",")} if found else set()
        for reader in self._readers:
            for pid, index in reader.reading.tolist():
                if pid in pids and index >= 0:
                    return f"sample {index} ({reader.dataset.source(index)})"
        return None

    def _process(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, role: str, order: Sampler[list[_Key]]) -> DataLoader[Batch]:
        reader = _Reader(self.split(role), self.seed, self.num_workers)
        if self.num_workers:
            _check_picklable(self.split(role))
        self._readers.append(reader)
        return DataLoader(
            reader,  # type: ignore[arg-type]
            batch_sampler=order,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_outlive_signals,
            multiprocessing_context=_workers(self.split(role)) if self.num_workers else None,
        )


class _Key(NamedTuple):
    """What a loader is asked for: a sample, in which epoch, and whether only to fill an empty batch."""

    index: int  # type: ignore[assignment]
    epoch: int = 0
    filler: bool = False


class _TrainingOrder(Sampler[list[_Key]]):
    """This process's share of every batch, of the permutation that seed + epoch give (torch's DistributedSampler's)."""

    def __init__(
        self,
        samples: int,
        batch_size: int,
        drop_last: bool,
        seed: int,
        processes: int,
        rank: int,
        start: tuple[int, int],
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.seed = seed
        self.processes = processes
        self.rank = rank
        self.start = start
        self.epoch = start[0]
        self.sampler = self  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        """All batches of an epoch, wherever training begins."""
        return self.samples // self.batch_size if self.drop_last else -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[list[_Key]]:
        epoch = self.epoch
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()
        done = self.start[1] if epoch == self.start[0] else 0
        for number in range(done, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            share = batch[self.rank :: self.processes]
            yield [_Key(index, epoch) for index in share] or [_Key(batch[0], epoch, filler=True)]


class _EvaluationOrder(Sampler[list[_Key]]):
    """Every n-th batch of a split in its order, as many for each process."""

    def __init__(self, batches: Sequence[range], processes: int, rank: int) -> None:
        self.batches = batches
        self.processes = processes
        self.rank = rank

    def __len__(self) -> int:
        return -(-len(self.batches) // self.processes)

    def __iter__(self) -> Iterator[list[_Key]]:
        for turn in range(len(self)):
            number = turn * self.processes + self.rank
            yield [_Key(index) for index in self.batches[number % len(self.batches)]]


class _Reader(torch.utils.data.Dataset[Sample]):
    """Reads samples of a data set with all randomness seeded by (seed, epoch, sample), and notes who reads which.

    reading: int64 (workers, 2), the process id of each worker and the sample it is reading; in shared memory.
    """

    def __init__(self, dataset: Dataset, seed: int, workers: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.reading = torch.full((workers, 2), -1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: _Key) -> Sample:
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


def _check_picklable(dataset: Dataset) -> None:
    try:
        ForkingPickler.dumps(dataset)
    except (AttributeError, TypeError, PicklingError) as error:
        raise DataError(
            f"the data set cannot be sent to loading processes ({error}): define it, and what it holds, at the top of"
            " a module, or set num_workers=0"
        ) from error


def _workers(dataset: Dataset) -> BaseContext:
    """How loading processes are started: by a server process that has no threads.

    Forked from this process they may inherit a lock that a thread held at that moment (DDP and W&B keep threads), and
    hang: with gloo on Python 3.11 that happens within some dozens of starts.
    """
    _end_workers_at_exit()
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, type(dataset).__module__])
    if threading.current_thread() is threading.main_thread():
        # The server inherits that it ignores SIGTERM; it ends with this process, and workers end with it.
        handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGTERM, handler)
    return context


@cache
def _end_workers_at_exit() -> None:
    """Kill workers that are left when this process exits: multiprocessing would send SIGTERM, which they put off, and
    wait for them. Exit functions run last in, first out, and multiprocessing's is in."""
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        child.kill()


def _outlive_signals(worker: int) -> None:
    """Let a worker go on when a terminal or scheduler signals all processes, so that the step can be finished.

    It ends when its parent does; one that hangs ends half a minute after it was told to.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(30))
