"""Augmentation: boxes and masks follow, draws follow the seed, and the configurations are what they say."""

import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from PIL import Image

from vac_lightning.commands.targets import instantiate
from vac_lightning.data.augmentation import augment
from vac_lightning.data.base import DataError
from vac_lightning.data.corner_crop import CornerCrop
from vac_lightning.data.datamodule import DataModule
from vac_lightning.data.reading import Photo, Photos
from vac_lightning.data.shapes import shapes

BOX = (30, 20, 40, 25)
RED, GROUND = (230, 10, 20), (0, 90, 100)


@cache
def configured(name: str, *words: str, data: str = "wider") -> Any:
    """The augmentation of a file of conf/augmentation, made as a run makes it."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [f"data={data}", f"augmentation={name}", "run_dir=/r", *words])
    return instantiate(config.data, "data").keywords["augmentation"]


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A red rectangle on a ground, uint8 (96, 128, 3), with its box (1, 4) and mask (1, 96, 128)."""
    x, y, w, h = BOX
    mask = np.zeros((1, 96, 128), bool)
    mask[0, y : y + h, x : x + w] = True
    return np.where(mask[0, :, :, None], np.uint8(RED), np.uint8(GROUND)), np.array([BOX], np.float64), mask


def extent(mask: np.ndarray) -> list[float]:
    """The box x, y, w, h around a mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]


@pytest.mark.parametrize(
    ("name", "words"),
    [("srn", ()), ("strong", ("augmentation.colour=null", "augmentation.erase=null", "image_size=96"))],
)
def test_boxes_and_masks_follow(name: str, words: tuple[str, ...]) -> None:
    transform, given = configured(name, *words), scene()
    torch.manual_seed(0)
    places = set()
    for _ in range(60):
        image, boxes, kept, masks = augment(transform, *given)
        assert masks.shape == (1, *image.shape[:2]) and masks.dtype == bool
        # Resizing mixes colours along an edge: what a pixel shows is what it shows most.
        red = image[..., 0] > 115
        assert (red != masks[0]).mean() < 0.02
        if len(boxes):
            assert kept.tolist() == [0]
            np.testing.assert_allclose(extent(masks[0]), boxes[0], atol=1.5 if name == "strong" else 1e-3)
            places.add(tuple(boxes[0].round(1)))
        else:
            assert not masks.any() or min(extent(masks[0])[2:]) <= 1
    assert len(places) > 20


def test_a_box_that_leaves_the_image_is_dropped_and_the_others_keep_their_number() -> None:
    image, _, _ = scene()
    boxes = np.array([(0, 0, 10, 10), BOX, (100, 80, 20, 10), (60, 40, 100, 100)], np.float64)
    crop = albumentations.Crop(x_min=20, y_min=10, x_max=90, y_max=60)
    changed = augment(crop, image, boxes)
    assert changed.kept.tolist() == [1, 3]
    np.testing.assert_allclose(changed.boxes, [(10, 10, 40, 25), (40, 30, 30, 20)], atol=1e-3)
    assert changed.masks.shape == (0, 50, 70)


def test_masks_follow_without_boxes_and_keep_their_type() -> None:
    image, _, mask = scene()
    mirror = albumentations.Compose([albumentations.HorizontalFlip(p=1)])
    for given in (mask, mask.astype(np.uint8) * 7):
        changed = augment(mirror, image, masks=given)
        np.testing.assert_array_equal(changed.masks, given[:, :, ::-1])
        assert changed.masks.dtype == given.dtype and len(changed.boxes) == len(changed.kept) == 0
    np.testing.assert_array_equal(augment(mirror, image).image, image[:, ::-1])


def test_what_is_drawn_follows_torchs_generator_with_boxes_or_without() -> None:
    transform, (image, boxes, masks) = configured("srn"), scene()
    images = []
    for given in ((image,), (image, boxes), (image, boxes, masks), (image,)):
        torch.manual_seed(5)
        images.append([augment(transform, *given).image for _ in range(4)])
    assert all(np.array_equal(a, b) for other in images[1:] for a, b in zip(images[0], other, strict=True))


def test_corner_crops_are_of_every_side_at_every_corner_and_the_centre() -> None:
    rows, columns = np.indices((256, 512))
    image = np.stack([rows, columns % 256, columns // 256], -1).astype(np.uint8)
    torch.manual_seed(0)
    crops = [augment(CornerCrop(), image).image for _ in range(1000)]
    sides = {crop.shape[:2] for crop in crops}
    assert sides == {(h, 2 * w) for h in (256, 224, 192, 168, 128) for w in (256, 224, 192, 168, 128)}
    places = set()
    for crop in crops:
        top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1]) + 256 * int(crop[0, 0, 2])
        free = 256 - crop.shape[0], 512 - crop.shape[1]
        if min(free) > 0:
            assert (top, left) in {(0, 0), (free[0], 0), (0, free[1]), free, (free[0] // 2, free[1] // 2)}
            places.add((2 * top // free[0], 2 * left // free[1]))
    assert places == {(0, 0), (2, 0), (0, 2), (2, 2), (1, 1)}


@pytest.mark.parametrize("shares", [(), (0.0, 1.0), (1.5,)])
def test_corner_crops_have_shares_of_the_side(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"shares=.*above 0 and at most 1"):
        CornerCrop(shares)


def test_none_is_none_and_a_transform_is_left_out_by_name() -> None:
    assert configured("none") is None
    assert [type(t).__name__ for t in configured("srn")] == ["CornerCrop", "HorizontalFlip"]
    assert [type(t).__name__ for t in configured("srn", "augmentation.mirror=null")] == ["CornerCrop"]
    strong = ["RandomResizedCrop", "HorizontalFlip", "ColorJitter", "Erasing"]
    assert [type(t).__name__ for t in configured("strong")] == strong


@pytest.mark.parametrize("name", ["srn", "strong"])
@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_stacks_of_channels_are_augmented_or_refused(name: str, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, channels), dtype=np.uint8)
    if name == "strong" and channels != 1:
        with pytest.raises(DataError, match=rf"have {channels}: leave that transform out.*augmentation\.colour=null"):
            augment(configured("strong", "augmentation.colour.p=1"), image)
    transform = configured(name, *(["augmentation.colour=null"] if name == "strong" else []))
    for _ in range(10):
        assert augment(transform, image).image.shape[2] == channels


def test_a_function_of_images_alone_takes_no_boxes() -> None:
    image, boxes, _ = scene()
    with pytest.raises(ValueError, match="albumentations' transforms alone"):
        augment(lambda image: {"image": image}, image, boxes)


@pytest.fixture
def photos(tmp_path: Path) -> Any:
    """Photos by role, augmented as srn says."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    transform = configured("srn")

    def split(role: str, sizes: list[int]) -> Photos:
        targets = np.ones((8, 1), np.int8)
        return Photos([Photo(tmp_path / "a.png")] * 8, targets, "a", sizes, tmp_path, role=role, augmentation=transform)

    return split


@pytest.mark.parametrize("kind", ["photos", "shapes"])
def test_training_alone_is_augmented(photos: Any, kind: str) -> None:
    def split(role: str, transform: Any) -> Any:
        if kind == "photos":
            found = photos(role, [32, 24])
            found.augmentation = found.augmentation and transform
            return found
        return shapes(role, [32], scenes={"train": 8, "val": 8, "test": 8}, augmentation=transform)

    transform = configured("srn")
    torch.manual_seed(1)
    for role in ("train", "val", "test"):
        plain, augmented = split(role, None), split(role, transform)
        changed = [not torch.equal(plain[i].images[0], augmented[i].images[0]) for i in range(8)]
        assert sum(changed) >= 6 if role == "train" else not any(changed)
        assert [x.shape for x in plain[0].images] == [x.shape for x in augmented[0].images]
        assert augmented[0].images[0].dtype == torch.uint8


def test_a_draw_is_one_of_seed_epoch_and_sample(photos: Any) -> None:
    def epoch(number: int, seed: int = 0, workers: int = 0) -> dict[int, bytes]:
        module = DataModule(photos, [16], batch_size=2, seed=seed, num_workers=workers)
        loader = module.train_dataloader()
        loader.batch_sampler.set_epoch(number)
        return {int(i): x.numpy().tobytes() for batch in loader for i, x in zip(batch.index, batch.images, strict=True)}

    first = epoch(0)
    assert len(set(first.values())) > 4
    assert epoch(0) == first
    for other in (epoch(1), epoch(0, seed=1)):
        assert sum(other[i] != first[i] for i in first) > 4


@pytest.mark.slow
def test_loading_processes_draw_as_one_process_does(photos: Any) -> None:
    images = []
    for workers in (0, 2):
        module = DataModule(photos, [16], batch_size=2, num_workers=workers)
        images.append(torch.cat([batch.images for batch in module.train_dataloader()]))
    assert torch.equal(*images)


def test_asking_for_the_channels_draws_nothing_that_a_run_would_miss(photos: Any) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert DataModule(photos, [16], batch_size=2).channels == 3
    assert torch.equal(torch.rand(3), expected)


def test_a_configured_augmentation_is_sent_to_loading_processes() -> None:
    for name in ("srn", "strong"):
        again = pickle.loads(pickle.dumps(configured(name)))
        assert [type(t) for t in again] == [type(t) for t in configured(name)]


@pytest.mark.slow
def test_albumentations_is_not_imported_where_nothing_is_augmented() -> None:
    program = (
        "import sys, vac_lightning.data.shapes, vac_lightning.data.wider; sys.exit('albumentations' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
