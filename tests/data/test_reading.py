"""Reading photographs: pixels against a literal crop and resize, boxes, damage, augmentation."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vac_lightning.data.annotations.records import blame
from vac_lightning.data.base import DataError, collate, fingerprint
from vac_lightning.data.images.decoding import ImageFile, decode
from vac_lightning.data.reading import Photo, PhotoIndex, Photos, crop


def noise(height: int = 30, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a" / "noise.png"
    path.parent.mkdir()
    Image.fromarray(noise()).save(path)
    return path


def one(path: Path, box=None, sizes=(16,), root=None, augmentation=None) -> Photos:
    targets = np.array([[1, 0, -1]], np.int8)
    return Photos([Photo(path, box)], targets, "abc", sizes, root or path, augmentation=augmentation)


def test_pixels_equal_a_literal_crop_and_resize(photo):
    images, targets, index = one(photo, (5, 3, 20, 10), sizes=(12, 24))[0]
    assert [tuple(image.shape) for image in images] == [(3, 24, 24), (3, 12, 12)]
    crop = Image.open(photo).convert("RGB").crop((5, 3, 25, 13))
    for image, size in zip(images, (24, 12), strict=True):
        expected = np.asarray(crop.resize((size, size), Image.BICUBIC)).transpose(2, 0, 1)
        assert image.dtype == torch.uint8 and image.is_contiguous()
        np.testing.assert_array_equal(image.numpy(), expected)
    assert targets.dtype == torch.int8 and targets.tolist() == [1, 0, -1] and index == 0


@pytest.mark.parametrize("box", [(101, 40, 130, 300), (10, 20, 700, 460), (300.5, 11.5, 77.4, 80.2), None])
def test_a_photograph_read_as_in_the_paper_is_a_literal_pillow_pipelines_pixel_for_pixel(tmp_path, box):
    """And read fast it is as near to it as the page on reading says."""
    smooth = Image.fromarray(noise(48, 80)).resize((800, 500), Image.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=88)
    whole = Image.open(tmp_path / "a.jpg").convert("RGB")
    crop = whole if box is None else whole.crop((box[0], box[1], box[0] + box[2], box[1] + box[3]))
    literal = [np.asarray(crop.resize((size, size))).transpose(2, 0, 1) for size in (224, 192)]
    for image, expected in zip(one(tmp_path / "a.jpg", box, (224, 192))[0].images, literal, strict=True):
        np.testing.assert_array_equal(image.numpy(), expected)
    fast = Photos([Photo(tmp_path / "a.jpg", box)], np.ones((1, 1)), "a", (224, 192), tmp_path, reading="fast")
    for image, expected in zip(fast[0].images, literal, strict=True):
        assert image.shape == expected.shape and image.dtype == torch.uint8 and image.is_contiguous()
        gaps = np.abs(image.numpy().astype(int) - expected)
        assert gaps.mean() < 4 and np.percentile(gaps, 99) < 16


def test_people_of_one_photograph_are_the_same_in_any_order(tmp_path):
    """Read fast, each at its own scale: what was read before must not show."""
    Image.fromarray(noise(48, 80)).resize((800, 500)).save(tmp_path / "a.jpg")
    boxes = [(0, 0, 800, 500), (5, 5, 40, 60), (100, 50, 500, 400), (0, 0, 790, 490)]
    for reading in ("paper", "fast"):
        photos = [Photo(tmp_path / "a.jpg", box) for box in boxes]
        split = Photos(photos, np.ones((4, 1)), "a", (64, 48), tmp_path, reading=reading)
        first = {index: split[index].images for index in (0, 1, 2, 3)}
        for index in (3, 1, 0, 2):
            assert all(map(torch.equal, split[index].images, first[index]))


def test_evaluation_is_never_augmented(photo):
    def black(image):
        return {"image": np.zeros_like(image)}

    for role, augmented in (("train", True), ("val", False), ("test", False)):
        split = Photos([Photo(photo)], np.ones((1, 1)), "a", (8,), photo, role=role, augmentation=black)
        assert (split[0].images[0].max() == 0) == augmented


def test_several_files_are_channels_or_colours(tmp_path):
    stains = {name: noise(seed=k)[..., 0] for k, name in enumerate(("red", "green", "blue", "yellow"))}
    for name, stain in stains.items():
        Image.fromarray(stain).save(tmp_path / f"{name}.png")
    paths = tuple(tmp_path / f"{name}.png" for name in stains)

    def crop(merge, count=4):
        return Photos([Photo(paths[:count])], np.ones((1, 1)), "a", (8,), tmp_path, merge=merge).crop(0)

    np.testing.assert_array_equal(crop("stack"), np.stack(list(stains.values()), -1))
    np.testing.assert_array_equal(crop("rgb", 3), np.stack(list(stains.values())[:3], -1))
    red, green, blue, yellow = (stain.astype(int) for stain in stains.values())
    expected = np.stack([np.minimum(255, red + yellow // 2), np.minimum(255, green + yellow // 2), blue], -1)
    np.testing.assert_array_equal(crop("rgb"), expected)
    with pytest.raises(ValueError, match=r"data\.merge=rgb: give red, green, blue"):
        crop("rgb", 2)
    stacked = Photos([Photo(paths)], np.ones((1, 1)), "a", (16, 8), tmp_path)
    assert [tuple(image.shape) for image in stacked[0].images] == [(4, 16, 16), (4, 8, 8)]
    assert stacked.source(0) == "red.png + green.png + blue.png + yellow.png"
    Image.fromarray(noise(9, 9)).save(paths[1])
    with pytest.raises(DataError, match=r"sample 0 \(red\.png \+ .*differ in size \(40 x 30, 9 x 9"):
        Photos([Photo(paths)], np.ones((1, 1)), "a", (16, 8), tmp_path)[0]


def test_an_index_by_columns_is_the_photos_it_was_made_of(tmp_path):
    photos = [Photo(tmp_path / "a", (1.5, 2, 3, 4)), Photo((tmp_path / "b", tmp_path / "a")), Photo(tmp_path / "b")]
    for given in ([photos[0], photos[2]], [photos[1]]):
        index = PhotoIndex.of(given)
        assert list(index) == given == index[:] and index[-1] == given[-1] and len(index) == len(given)
        assert list(index.take(np.array([len(given) - 1]))) == given[-1:]


def test_a_crop_keeps_native_resolution(photo):
    np.testing.assert_array_equal(crop(ImageFile(photo), (5, 3, 20, 10)), noise()[3:13, 5:25])
    np.testing.assert_array_equal(decode(photo), noise())


@pytest.mark.parametrize("box", [[5, 3, 20, 10], (-4, 3, 20, 10), (45, 3, 20, 10)])
def test_repeated_reads_agree_and_leave_the_box_alone(photo, box):
    photos = one(photo, box)
    before = list(box)
    first = photos[0].images[0]
    for _ in range(3):
        assert torch.equal(photos[0].images[0], first)
    assert list(photos.photos[0].box) == before == list(box)


@pytest.mark.parametrize(
    "box",
    [(-1, 0, 9, 9), (0, -1, 9, 9), (40, 0, 9, 9), (0, 30, 9, 9), (400, 300, 9, 9), (5, 5, 0, 9), (5, 5, 9, 0),
     (5, 5, -3, 9), (5, 5, 9, -3), (5, 5, 0.2, 9)],
)  # fmt: skip
def test_a_box_that_starts_outside_or_is_empty_is_the_whole_image(photo, box):
    np.testing.assert_array_equal(crop(ImageFile(photo), box), noise())


def test_a_box_that_ends_outside_is_clipped(photo):
    np.testing.assert_array_equal(crop(ImageFile(photo), (30, 20, 100, 100)), noise()[20:, 30:])
    np.testing.assert_array_equal(crop(ImageFile(photo), (39, 29, 1.4, 0.9)), noise()[29:, 39:])


def test_a_fractional_box_is_rounded_as_pillow_rounds(photo):
    expected = Image.fromarray(noise()).crop((4.6, 3.4, 4.6 + 10.2, 3.4 + 9.9))
    np.testing.assert_array_equal(crop(ImageFile(photo), (4.6, 3.4, 10.2, 9.9)), np.asarray(expected))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_file_is_named_with_its_sample_and_a_remedy(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"sample 0: cannot read .*cut\.(jpg|png).*fetch the file again"):
        one(path)[0]


def test_a_worker_reports_the_damaged_file(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff no photograph")
    loader = DataLoader(one(tmp_path / "bad.jpg"), num_workers=1, collate_fn=collate)
    with pytest.raises(DataError, match=r"sample 0: cannot read .*bad\.jpg"):
        next(iter(loader))


def test_source_is_relative_to_the_root_and_shows_the_box(photo, tmp_path):
    assert one(photo, root=tmp_path).source(0) == "a/noise.png"
    assert one(photo, (1.0, 2.5, 1234567, 4), root=tmp_path).source(0) == "a/noise.png [1, 2.5, 1234567, 4]"
    assert one(photo, root=tmp_path / "b").source(0) == photo.as_posix()


def test_the_same_data_elsewhere_has_the_same_fingerprint(photo, tmp_path):
    moved = tmp_path / "moved" / "a" / "noise.png"
    moved.parent.mkdir(parents=True)
    photo.rename(moved)
    here, there = one(photo, (1, 2, 3, 4), root=tmp_path), one(moved, (1, 2, 3, 4), root=tmp_path / "moved")
    assert fingerprint(here) == fingerprint(there) != fingerprint(one(photo, (1, 2, 3, 5), root=tmp_path))


def test_it_is_a_sequence_that_ends_pickles_and_collates(photo):
    photos = Photos([Photo(photo), Photo(photo, (0, 0, 5, 5))], np.eye(2, dtype=np.int8), "ab", [8, 4], photo)
    assert len(list(photos)) == len(photos) == 2
    assert photos[-1].index == 1
    with pytest.raises(IndexError):
        photos[2]
    photos[0].targets.fill_(-1)
    assert photos.targets.tolist() == [[1, 0], [0, 1]] and photos.labels == ("a", "b")
    batch = next(iter(DataLoader(pickle.loads(pickle.dumps(photos)), batch_size=2, collate_fn=collate)))
    assert [tuple(images.shape) for images in batch.images] == [(2, 3, 8, 8), (2, 3, 4, 4)]
    assert batch.index.tolist() == [0, 1] and batch.targets.dtype == torch.int8


def test_wrong_arguments_are_named(photo):
    with pytest.raises(ValueError, match=r"targets is \(2, 3\).*\(1, 3\)"):
        Photos([Photo(photo)], np.zeros((2, 3), np.int8), "abc", [8], photo)
    for sizes in ([], [8, 0]):
        with pytest.raises(ValueError, match="sizes="):
            one(photo, sizes=sizes)


def test_augmentation_sees_the_crop_before_it_is_squashed(photo):
    seen = []

    def mirror(image):
        seen.append(image.copy())
        image[:] = image[:, ::-1].copy()  # in place: the array must be ours to change
        return {"image": image}

    plain = one(photo, (5, 3, 20, 10), sizes=(20, 10))[0].images
    flipped = one(photo, (5, 3, 20, 10), sizes=(20, 10), augmentation=mirror)[0].images
    np.testing.assert_array_equal(seen, [noise()[3:13, 5:25]])
    assert all(torch.equal(a.flip(-1), b) for a, b in zip(plain, flipped, strict=True))


def test_an_augmentation_that_gives_no_photograph_is_refused(photo):
    for wrong in (noise().astype(np.float32), torch.zeros(3, 8, 8, dtype=torch.uint8), noise()[..., 0]):
        with pytest.raises(ValueError, match="leave out Normalize"):
            one(photo, augmentation=lambda image, wrong=wrong: {"image": wrong})[0]


@pytest.mark.slow
def test_albumentations_varies_over_workers_and_epochs_and_follows_the_seed(photo):
    albumentations = pytest.importorskip("albumentations")
    jitter = albumentations.Compose([albumentations.RandomBrightnessContrast(p=1.0)])
    photos = Photos([Photo(photo)] * 4, np.zeros((4, 1), np.int8), "a", [8], photo, augmentation=jitter)

    def epochs() -> list[float]:
        torch.manual_seed(3)
        loader = DataLoader(photos, num_workers=2, collate_fn=collate)
        return [batch.images.float().mean().item() for _ in range(2) for batch in loader]

    first = epochs()
    assert len(set(first)) == 8
    assert epochs() == first


def test_albumentations_draws_its_transforms_independently(photo):
    albumentations = pytest.importorskip("albumentations")
    flips = albumentations.Compose([albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)])
    photos = one(photo, sizes=(4,), augmentation=flips)
    torch.manual_seed(0)
    assert len({photos[0].images[0].numpy().tobytes() for _ in range(40)}) == 4


def test_blame_names_the_place_and_the_key():
    with pytest.raises(DataError, match=r"x\.json: the key 'images' is missing; .*fetch"), blame("x.json"):
        {}["images"]
    with pytest.raises(DataError, match=r"^mine$"), blame("x.json"):
        raise DataError("mine")
