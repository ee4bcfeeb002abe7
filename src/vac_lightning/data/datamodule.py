"""The one LightningDataModule: any data set by role, in an order that is stated and can be entered anywhere."""

from __future__ import annotations

__all__ = ["DataModule"]

import re
from collections.abc import Callable, Mapping, Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from vac_lightning.data.base import Batch, DataError, Dataset, check_labels, collate, fingerprint
from vac_lightning.data.loading import (
    Reader,
    check_picklable,
    living_workers,
    prepare_worker,
    start_server,
    worker_context,
)
from vac_lightning.data.order import EvaluationOrder, Key, TrainingOrder


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
        prefetch_factor: batches that each loading process has ready.
        pin_memory: hand batches over in page-locked memory, from where a GPU copies them while it computes.

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
        prefetch_factor: int = 2,
        pin_memory: bool = False,
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
        self.prefetch_factor = prefetch_factor
        self.pin_memory = pin_memory
        self._dataset = dataset
        if num_workers:
            start_server()
        self._splits: dict[str, Dataset] = {}
        self._channels = 0
        self._readers: list[Reader] = []
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
            with isolate_rng(include_cuda=False):  # what is drawn for it is put back: a run must not depend on it
                first = dataset[0]  # where no image can be read, that is told here, before anything is trained
            self._channels = self._channels or len(first.images[0])
            if len(first.images[0]) != self._channels:
                raise DataError(
                    f"the images of the {role} split have {len(first.images[0])} channels, those of the other splits"
                    f" {self._channels}: give all splits the same"
                )
            self._splits[role] = dataset
        return self._splits[role]

    @property
    def labels(self) -> tuple[str, ...]:
        """The L label names."""
        return (next(iter(self._splits.values()), None) or self.split("train")).labels

    @property
    def channels(self) -> int:
        """C, the number of channels of the images."""
        if not self._channels:
            self.split("train")
        return self._channels

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
        order = TrainingOrder(samples, self.batch_size, self.drop_last, self.seed, processes, rank, self._start)
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
        return self._loader(role, EvaluationOrder(batches, *self._process()))

    def sample_of_dead_worker(self, error: BaseException) -> str | None:
        """What a loading process was reading when it died, where `error` tells of its death.

        That is torch's report of it or, where the process died before its last batch was fetched, a broken connection.
        """
        found = re.search(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)", str(error))
        if found:
            pids = {int(pid) for pid in found.group(1).split(",")}
        elif isinstance(error, ConnectionError | EOFError | FileNotFoundError):
            pids = {pid for reader in self._readers for pid, _ in reader.reading.tolist()} - living_workers()
        else:
            return None
        for reader in self._readers:
            for pid, index in reader.reading.tolist():
                if pid in pids and index >= 0:
                    return f"sample {index} ({reader.dataset.source(index)})"
        return None

    def _process(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, role: str, order: Sampler[list[Key]]) -> DataLoader[Batch]:
        reader = Reader(self.split(role), self.seed, self.num_workers)
        if self.num_workers:
            check_picklable(self.split(role))
        self._readers.append(reader)
        return DataLoader(
            reader,  # type: ignore[arg-type]
            batch_sampler=order,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
            prefetch_factor=self.prefetch_factor if self.num_workers else None,
            pin_memory=self.pin_memory,
            worker_init_fn=prepare_worker,
            multiprocessing_context=worker_context() if self.num_workers else None,
        )
