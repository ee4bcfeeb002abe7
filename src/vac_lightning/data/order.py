"""Who reads what, and when: the order of training and of evaluation, shared among the processes of a run."""

from __future__ import annotations

__all__ = ["EvaluationOrder", "Key", "TrainingOrder"]

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Sampler


class Key(NamedTuple):
    """What a loader is asked for: a sample, in which epoch, and whether only to fill an empty batch."""

    index: int  # type: ignore[assignment]
    epoch: int = 0
    filler: bool = False


class TrainingOrder(Sampler[list[Key]]):
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

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()
        done = self.start[1] if epoch == self.start[0] else 0
        for number in range(done, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            share = batch[self.rank :: self.processes]
            yield [Key(index, epoch) for index in share] or [Key(batch[0], epoch, filler=True)]


class EvaluationOrder(Sampler[list[Key]]):
    """Every n-th batch of a split in its order, as many for each process."""

    def __init__(self, batches: Sequence[range], processes: int, rank: int) -> None:
        self.batches = batches
        self.processes = processes
        self.rank = rank

    def __len__(self) -> int:
        return -(-len(self.batches) // self.processes)

    def __iter__(self) -> Iterator[list[Key]]:
        for turn in range(len(self)):
            number = turn * self.processes + self.rank
            yield [Key(index) for index in self.batches[number % len(self.batches)]]
