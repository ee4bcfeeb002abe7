"""The shapes data set: the same seed gives the same pixels, and targets say what is visible."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from vac_lightning.data.base import DataError, fingerprint
from vac_lightning.data.shapes import Shapes, shapes

SCENES = {"train": 40, "val": 10, "test": 400}
GOLDEN = {64: "e9da479633265da1", 224: "c231a60cf6f28bd6"}


def digest(dataset: Shapes, count: int = 4) -> str:
    pixels = hashlib.sha256()
    for index in range(count):
        pixels.update(dataset[index].images[0].numpy().tobytes())
    return pixels.hexdigest()[:16]


@pytest.mark.parametrize("size", GOLDEN)
def test_default_scenes_are_the_recorded_ones(size: int) -> None:
    assert digest(shapes("train", [size], scenes=SCENES)) == GOLDEN[size]


@pytest.mark.slow
def test_another_process_draws_the_same_pixels() -> None:
    script = (
        "import sys, pickle; dataset = pickle.load(sys.stdin.buffer);"
        "sys.stdout.buffer.write(dataset[3].images[0].numpy().tobytes())"
    )
    dataset = shapes("val", [64], scenes=SCENES, seed=5)
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(dataset), capture_output=True, check=True)
    assert done.stdout == dataset[3].images[0].numpy().tobytes()


def test_the_order_of_drawing_and_the_memory_change_nothing() -> None:
    first, second = (shapes("train", [64], scenes=SCENES) for _ in range(2))
    forward = [first[index].images[0] for index in range(10)]
    backward = [second[index].images[0] for index in reversed(range(10))][::-1]
    again = [first[index].images[0] for index in range(10)]
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(forward, backward, again, strict=True))


def test_a_changed_sample_leaves_the_data_set_alone() -> None:
    dataset = shapes("train", [32], scenes=SCENES)
    before = dataset[0].images[0].clone()
    sample = dataset[0]
    sample.images[0].zero_()
    sample.targets.fill_(-1)
    assert torch.equal(dataset[0].images[0], before)
    assert set(np.unique(dataset.targets)) == {0, 1}


def test_a_full_memory_goes_on_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vac_lightning.data.shapes._MEMORY", 2 * 3 * 32 * 32)
    dataset = shapes("train", [32], scenes=SCENES)
    for index in range(10):
        assert torch.equal(dataset[index].images[0], dataset[index].images[0])
    assert sorted(dataset._drawn) == [0, 1]


def test_splits_and_seeds_are_disjoint() -> None:
    drawn = [shapes(role, [32], scenes=SCENES, seed=seed) for role in SCENES for seed in (0, 1)]
    prints = {dataset[index].images[0].numpy().tobytes() for dataset in drawn for index in range(10)}
    assert len(prints) == 60
    assert len({fingerprint(dataset) for dataset in drawn}) == 6


def test_more_scenes_extend_a_split() -> None:
    few, many = (shapes("train", [32], scenes={"train": count}) for count in (5, 50))
    np.testing.assert_array_equal(few.targets, many.targets[:5])
    assert few.source(4) == many.source(4)


def test_masks_show_exactly_the_positive_labels() -> None:
    dataset = shapes("test", [64], scenes=SCENES)
    for index in range(100):
        area = dataset.masks(index).sum((1, 2)).numpy()
        positive = dataset.targets[index] == 1
        assert area[positive].min() >= 0.025 * 64 * 64
        assert area[~positive].max() == 0
        # Each visible pixel shows one object, which has one label of each group
        shape, colour, texture = (dataset.masks(index)[part].sum(0) for part in (slice(6), slice(6, 12), slice(12, 17)))
        assert shape.max() == 1
        assert torch.equal(shape, colour) and torch.equal(shape, texture)


def test_masks_lie_on_the_colours_they_name() -> None:
    dataset = shapes("test", [64], scenes=SCENES, difficulty=0.0)
    for label, channel in (("red", 0), ("green", 1), ("blue", 2)):
        position = dataset.labels.index(label)
        for index in np.flatnonzero(dataset.targets[:60, position]):
            inside = dataset[index].images[0][:, dataset.masks(index)[position]].float().mean(1)
            assert inside.argmax() == channel


def test_labels_do_not_depend_on_size_and_difficulty() -> None:
    small, large = (
        shapes("test", sizes, scenes=SCENES, difficulty=difficulty)
        for sizes, difficulty in (([64], 0.0), ([128, 64], 1.0))
    )
    np.testing.assert_array_equal(small.targets, large.targets)
    assert large[0].images[0].shape == (3, 128, 128)
    assert large[0].images[0].dtype == torch.uint8
    for index in range(10):
        halved = torch.nn.functional.avg_pool2d(large.masks(index).float(), 2) >= 0.5
        assert (halved != small.masks(index)).float().mean() < 0.02


def test_every_label_is_common_but_not_the_rule() -> None:
    prevalence = shapes("test", [32], scenes=SCENES).targets.mean(0)
    assert prevalence.min() > 0.2
    assert prevalence.max() < 0.6


def test_groups_partition_the_labels() -> None:
    assert tuple(label for group in Shapes.groups.values() for label in group) == Shapes.labels
    assert len(set(Shapes.labels)) == len(Shapes.labels)


def test_objects_lie_anywhere() -> None:
    dataset = shapes("test", [32], scenes=SCENES)
    masks = np.stack([dataset.masks(index).numpy() for index in range(400)]).astype(np.float32)
    quadrants = masks.reshape(400, -1, 2, 16, 2, 16).mean((0, 3, 5))
    # Some 100 objects a label and quadrant: 30 % is three standard deviations
    assert np.abs(quadrants / quadrants.mean((1, 2), keepdims=True) - 1).max() < 0.4
    overall = quadrants.mean(0)
    assert np.abs(overall / overall.mean() - 1).max() < 0.1


@pytest.mark.parametrize("count", [(1, 1), (3, 3), (4, 4)])
def test_as_many_objects_as_asked_for(count: tuple[int, int]) -> None:
    dataset = shapes("test", [64], scenes={"test": 100}, objects=count)
    assert dataset.targets[:, :6].sum(1).max() == count[0]
    # Equal shapes in a scene are one positive, so the masks tell how many there are
    areas = [dataset.masks(index)[:6].any(0).float().mean() for index in range(50)]
    assert 0.04 * count[0] < float(np.mean(areas)) < 0.11 * count[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "dev"}, r"role='dev'.*\['train', 'val', 'test'\]"),
        ({"scenes": {"val": 3}}, r"role='train'.*\['val'\]"),
        ({"sizes": []}, r"sizes=\[\]"),
        ({"sizes": [64, 31]}, r"sizes=\[64, 31\].*32"),
        ({"scenes": {"train": 0}}, r"scenes\['train'\]=0"),
        ({"seed": -1}, "seed=-1"),
        ({"difficulty": 1.1}, "difficulty=1.1"),
        ({"difficulty": float("nan")}, "difficulty=nan"),
        ({"objects": (3, 2)}, r"objects=\(3, 2\)"),
        ({"objects": (0, 2)}, r"objects=\(0, 2\)"),
        ({"objects": (2, 50)}, r"objects=\(2, 50\)"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], message: str) -> None:
    arguments = {"role": "train", "sizes": [64], "scenes": SCENES} | change
    with pytest.raises(DataError, match=message):
        shapes(**arguments)  # type: ignore[arg-type]


def test_an_index_past_the_end_is_an_error() -> None:
    dataset = shapes("val", [32], scenes=SCENES)
    for call in (dataset.__getitem__, dataset.masks, dataset.source):
        with pytest.raises(IndexError):
            call(10)
