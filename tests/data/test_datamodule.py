"""The data module: an order that seed and epoch decide, however many processes share it."""

import multiprocessing
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vac_lightning.data.base import FILLER, DataError, Sample
from vac_lightning.data.datamodule import DataModule


class Numbers:
    """Sample i is an image full of i at each size asked for."""

    def __init__(self, role: str, sizes: Sequence[int], n: int, labels: tuple[str, ...]) -> None:
        self.role, self.sizes, self.labels = role, tuple(sizes), labels
        self.targets = np.random.default_rng(0).integers(-1, 2, (n, len(labels))).astype(np.int8)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        images = [torch.full((3, size, size), index, dtype=torch.uint8) for size in self.sizes]
        return Sample(images, torch.from_numpy(self.targets[index]), index)

    def source(self, index: int) -> str:
        return f"{self.role} {index}"


class Drawing(Numbers):
    """An image of three random numbers: Python's, NumPy's, torch's."""

    def __getitem__(self, index: int) -> Sample:
        numbers = torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])
        return super().__getitem__(index)._replace(images=[numbers])


class Breaking(Numbers):
    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(index // (index - 5))


def module(n: int = 23, sizes: Sequence[int] = (8, 6), batch_size: int = 4, **options) -> DataModule:
    counts = {"train": n, "val": 7, "test": 5}
    names = options.pop("names", {})
    read = options.pop("read", [])
    kind = options.pop("dataset", Numbers)

    def dataset(role: str, sizes: Sequence[int]) -> Numbers:
        read.append(role)
        return kind(role, sizes, counts[role], names.get(role, ("a", "b", "c")))

    return DataModule(dataset, sizes, batch_size, **options)


def order(data: DataModule, epoch: int = 0, processes: int = 1, rank: int = 0) -> list[list[int]]:
    """The indices of every training batch of one process."""
    data.trainer = SimpleNamespace(world_size=processes, global_rank=rank)
    loader = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return [batch.index.tolist() for batch in loader]


def test_seed_and_epoch_decide_the_order():
    first = order(module())
    assert sorted(chain(*first)) == list(range(23))
    assert list(chain(*first)) != list(range(23))
    torch.manual_seed(5)
    assert order(module()) == first
    data = module()
    epochs = [order(data, epoch) for epoch in (2, 0, 1)]
    assert epochs[1] == first
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert order(module(seed=1)) != first
    assert order(module(), epoch=2) == epochs[0]


@pytest.mark.parametrize(("n", "processes"), [(24, 2), (24, 4), (23, 2), (21, 4)])
def test_processes_share_the_batches_of_one(n, processes):
    alone = order(module(n), epoch=3)
    shared = [order(module(n), 3, processes, rank) for rank in range(processes)]
    assert {len(batches) for batches in shared} == {len(alone)}
    for number, batch in enumerate(alone):
        together = list(chain(*(batches[number] for batches in shared)))
        assert sorted(batch) == sorted(index for index in together if index != FILLER)
        assert all(batches[number] for batches in shared)


def test_a_process_that_a_short_batch_leaves_without_a_sample_gets_a_filler():
    last = [order(module(21), 0, 4, rank)[-1] for rank in range(4)]
    assert last[1:] == [[FILLER]] * 3
    assert last[0] == order(module(21))[-1]


@pytest.mark.parametrize("batches", [0, 1, 3, 6])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_training_can_begin_anywhere(batches, workers):
    data = module(num_workers=workers)
    data.start_at(2, batches)
    data.trainer = SimpleNamespace(world_size=1, global_rank=0)
    loader = data.train_dataloader()
    first = iter(loader)  # Lightning makes the iterator before it tells the epoch
    loader.batch_sampler.sampler.set_epoch(2)
    assert [batch.index.tolist() for batch in first] == order(module(), epoch=2)[batches:]
    loader.batch_sampler.sampler.set_epoch(3)
    assert [batch.index.tolist() for batch in loader] == order(module(), epoch=3)
    assert len(loader) == 6


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_what_is_drawn_for_a_sample_depends_on_seed_epoch_and_sample_alone(workers):
    def drawn(epoch: int, batches: int = 0, **options) -> dict[int, list[float]]:
        data = module(dataset=Drawing, **options)
        data.start_at(epoch, batches)
        data.trainer = SimpleNamespace(world_size=1, global_rank=0)
        torch.manual_seed(17)
        return {
            int(index): images.flatten()[:3].tolist()
            for batch in data.train_dataloader()
            for index, images in zip(batch.index, batch.images, strict=True)
        }

    whole = drawn(1)
    assert len({tuple(values) for values in whole.values()}) > 20
    later = drawn(1, batches=4, num_workers=workers)
    assert later
    assert all(whole[index] == values for index, values in later.items())
    assert drawn(2)[0] != whole[0] != drawn(1, seed=5)[0]


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_evaluation_deals_the_batches_of_one_process(processes):
    alone = [batch.index.tolist() for batch in module().val_dataloader()]
    assert list(chain(*alone)) == list(range(7))
    dealt = []
    for rank in range(processes):
        data = module()
        data.trainer = SimpleNamespace(world_size=processes, global_rank=rank)
        dealt.append([batch.index.tolist() for batch in data.val_dataloader()])
    assert len({len(batches) for batches in dealt}) == 1
    assert {tuple(batch) for batches in dealt for batch in batches} == {tuple(batch) for batch in alone}


@pytest.mark.parametrize(("limit", "batches"), [(1, 1), (9, 2), (0.5, 1), (1.0, 2), (None, 2)])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_limit_is_that_of_all_processes_together(limit, batches, processes):
    seen = []
    for rank in range(processes):
        data = module(limits={"val": limit})
        data.trainer = SimpleNamespace(world_size=processes, global_rank=rank)
        seen += [tuple(batch.index.tolist()) for batch in data.val_dataloader()]
    assert len(set(seen)) == batches


def test_a_data_set_that_cannot_be_sent_to_workers_is_refused():
    class Local(Numbers):
        """Nothing that another process could import."""

    with pytest.raises(DataError, match="define it, and what it holds, at the top of a module, or set num_workers=0"):
        module(dataset=Local, num_workers=1).train_dataloader()


def test_an_error_while_reading_names_the_sample_and_its_source():
    data = module(dataset=Breaking)
    data.trainer = SimpleNamespace(world_size=1, global_rank=0)
    with pytest.raises(RuntimeError, match=r"sample 5 \(train 5\) cannot be read: ZeroDivisionError"):
        list(data.train_dataloader())


def test_training_shows_every_size_and_evaluation_the_largest_alone():
    data = module()
    batch = next(iter(data.train_dataloader()))
    assert [tuple(images.shape) for images in batch.images] == [(4, 3, 8, 8), (4, 3, 6, 6)]
    assert all(torch.equal(images[:, 0, 0, 0].long(), batch.index) for images in batch.images)
    assert torch.equal(batch.targets, torch.from_numpy(data.split("train").targets)[batch.index])
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert next(iter(loader)).images.shape == (4, 3, 8, 8)
    assert next(iter(module(sizes=[8]).train_dataloader())).images.shape == (4, 3, 8, 8)


def test_a_short_batch_is_dropped_where_asked_in_training_alone():
    data = module(drop_last=True)
    assert [len(batch) for batch in order(data)] == [4] * 5
    assert sum(len(batch.index) for batch in data.val_dataloader()) == 7
    with pytest.raises(DataError, match=r"batch_size=24 is larger than the train split \(23 samples\)"):
        module(batch_size=24, drop_last=True).train_dataloader()


def test_a_batch_is_divided_among_processes():
    data = module(batch_size=6)
    data.trainer = SimpleNamespace(world_size=4, global_rank=0)
    with pytest.raises(DataError, match=r"batch_size=6 .* choose a multiple of 4"):
        data.train_dataloader()


def test_splits_of_different_labels_are_refused():
    data = module(names={"test": ("a", "c", "b")})
    data.setup("fit")
    for _ in range(2):
        with pytest.raises(DataError, match="the test split has 3 labels, the train split 3, or they differ"):
            data.setup("test")
    assert data.labels == ("a", "b", "c")


def test_splits_of_different_channels_are_refused():
    class Channels(Numbers):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample._replace(images=[image[: 3 - (self.role == "val")] for image in sample.images])

    data = DataModule(lambda role, sizes: Channels(role, sizes, 4, ("a",)), [4], 2)
    assert data.channels == 3
    with pytest.raises(DataError, match="images of the val split have 2 channels, those of the other splits 3"):
        data.setup("fit")


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="the train split is empty"):
        module(n=0).setup("fit")


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_workers": -1}])
def test_impossible_counts_are_refused(options):
    with pytest.raises(ValueError, match=r"batch_size=\d+, num_workers=-?\d+"):
        module(**options)


def test_unspecified_is_not_positive():
    data = module()
    targets = data.split("train").targets
    assert (targets == -1).any()
    counted = [sum(int(y) == 1 for y in column) / len(column) for column in targets.T]
    torch.testing.assert_close(data.positive_ratio, torch.tensor(counted))


def test_a_split_is_read_once_and_when_needed():
    read: list[str] = []
    data = module(read=read)
    data.setup("test")
    assert read == ["test"]
    assert data.labels == ("a", "b", "c")
    data.setup("fit")
    data.setup("fit")
    data.train_dataloader()
    assert read == ["test", "train", "val"]
    assert data.fingerprints().keys() == {"test", "train", "val"}
    assert len(set(data.fingerprints().values())) == 3


@pytest.mark.slow
def test_a_process_that_exits_does_not_wait_for_its_workers(tmp_path):
    """They put off SIGTERM for the step's sake, which multiprocessing sends at exit and then waits for them."""
    program = tmp_path / "exits.py"
    program.write_text(
        "from functools import partial\n"
        "from vac_lightning.data.datamodule import DataModule\n"
        "from vac_lightning.data.shapes import shapes\n"
        "if __name__ == '__main__':\n"
        "    splits = partial(shapes, scenes={'train': 8}, difficulty=0.5, objects=[2, 3], seed=0)\n"
        "    batches = iter(DataModule(splits, [32], 2, num_workers=2).train_dataloader())\n"
        "    next(batches)\n"
        "    print('read', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"read\n"
        began = time.monotonic()
        assert process.wait(60) == 0
        assert time.monotonic() - began < 20  # it would be 30, not a matter of speed


@pytest.mark.slow
def test_a_worker_that_died_before_its_batch_was_fetched_is_found_too():
    data = module(num_workers=1)
    batches = iter(data.train_dataloader())
    next(batches)
    assert data.sample_of_dead_worker(ConnectionResetError()) is None
    (worker,) = multiprocessing.active_children()
    worker.kill()
    for error in (ConnectionResetError(), EOFError(), FileNotFoundError("the socket")):
        assert str(data.sample_of_dead_worker(error)).startswith("sample ")
    assert data.sample_of_dead_worker(OSError("another")) is None
