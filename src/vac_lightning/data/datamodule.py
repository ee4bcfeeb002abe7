"""The one LightningDataModule: any data set by role, batched the same way."""

from __future__ import annotations

__all__ = ["DataModule"]

from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from vac_lightning.data.base import Batch, DataError, Dataset, check_labels, collate, fingerprint


class DataModule(pl.LightningDataModule):
    """Batches of a data set's train, val and test splits.

    The training order is a function of seed and epoch alone; with several processes each takes every n-th sample of
    it, and evaluation repeats samples where sizes do not divide (Batch.index undoes that).

    Args:
        dataset: (role, sizes) -> the split for "train", "val" or "test" with source images of these sizes.
        sizes: sides of the source images in pixels, largest first.
        batch_size: samples a step over all processes together.
        num_workers: loading processes; 0 loads in the training process.
        drop_last: drop the last training batch where it is short.
        seed: of the training order.

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
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise ValueError(f"batch_size={batch_size}, num_workers={num_workers}: expected at least 1 and at least 0")
        self.sizes = tuple(sizes)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.seed = seed
        self._dataset = dataset
        self._splits: dict[str, Dataset] = {}

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

    def setup(self, stage: str) -> None:
        for role in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ()):
            self.split(role)

    def train_dataloader(self) -> DataLoader[Batch]:
        return self.loader("train", shuffle=True, drop_last=self.drop_last)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.loader("test")

    def loader(self, role: str, shuffle: bool = False, drop_last: bool = False) -> DataLoader[Batch]:
        """The batches of one split."""
        processes = self.trainer.world_size if self.trainer else 1
        rank = self.trainer.global_rank if self.trainer else 0
        if self.batch_size % processes:
            raise DataError(
                f"batch_size={self.batch_size} is the batch of all processes together and does not divide among"
                f" {processes}: choose a multiple of {processes}"
            )
        dataset = self.split(role)
        if drop_last and len(dataset) < self.batch_size:
            raise DataError(
                f"batch_size={self.batch_size} is larger than the {role} split ({len(dataset)} samples) and short"
                " batches are dropped: lower batch_size or set drop_last=false"
            )
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=self.batch_size // processes,
            sampler=DistributedSampler(dataset, processes, rank, shuffle=shuffle, seed=self.seed),  # type: ignore[arg-type]
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
        )
