"""WIDER Attribute: people, splits and targets of a made-up data set in the published layout."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vac_lightning.data.annotations.records import collected
from vac_lightning.data.base import DataError
from vac_lightning.data.wider import wider

SPLITS = {"train": "trainval", "val": "val", "test": "test"}
# Twelve labels, so that ids as text sort unlike ids as numbers.
LABELS = [*"abcdefghijkl"]
FIRST, SECOND, THIRD = [1, -1, 0] * 4, [-1] * 12, [0, 1, 1, -1] * 3
TRAINVAL = [
    {"file_name": "train/0--Parade/p1.jpg", "scene_id": 0, "targets": [
        {"bbox": [2, 3, 10, 12], "attribute": FIRST}, {"bbox": [35.5, 1, 9, 9], "attribute": SECOND}]},
    {"file_name": "train/0--Parade/crowdless.jpg", "scene_id": 0, "targets": []},
    {"file_name": "val/1--Handshaking/h1.jpg", "scene_id": 1, "targets": [
        {"bbox": [0, 0, 20, 15], "attribute": THIRD}]},
]  # fmt: skip
TEST = [{"file_name": "test/0--Parade/t1.jpg", "scene_id": 0, "targets": [
    {"bbox": [500, 3, 10, 12], "attribute": SECOND}]}]  # fmt: skip


def write(root: Path, folder: str = "Anno", trainval: object = TRAINVAL) -> None:
    """The data set on disk, its annotations in `folder`; every photograph is noise seeded by its position."""
    for seed, image in enumerate([*TRAINVAL, *TEST]):
        path = root / "Image" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="PNG")  # exact pixels under the published name
    (root / folder).mkdir(exist_ok=True)
    ids = {str(i): LABELS[i] for i in (3, 10, 0, 1, 2, 11, 9, 8, 7, 6, 5, 4)}
    for name, images in (("trainval", trainval), ("test", TEST)):
        content = {"images": images, "attribute_id_map": ids, "scene_id_map": {"0": "Parade"}}
        (root / folder / f"wider_attribute_{name}.json").write_text(json.dumps(content))


def read(root: Path, role: str = "train", split: str | None = None):
    return wider(role, [16, 8], root=str(root), splits={role: split} if split else SPLITS)


@pytest.mark.parametrize("folder", ["wider_attribute_annotation", "Anno", "Annotations", "."])
def test_one_sample_a_person_wherever_the_annotations_lie(tmp_path, folder):
    write(tmp_path, folder)
    photos = read(tmp_path)
    assert photos.labels == tuple(LABELS)
    assert photos.targets.dtype == np.int8
    assert photos.targets.tolist() == [[1, 0, -1] * 4, [0] * 12, [-1, 1, 1, 0] * 3]
    assert [photos.source(i) for i in range(len(photos))] == [
        "Image/train/0--Parade/p1.jpg [2, 3, 10, 12]",
        "Image/train/0--Parade/p1.jpg [35.5, 1, 9, 9]",
        "Image/val/1--Handshaking/h1.jpg [0, 0, 20, 15]",
    ]


@pytest.mark.parametrize(("split", "people"), [("train", [0, 1]), ("val", [2]), ("trainval", [0, 1, 2])])
def test_a_split_is_the_folder_of_its_images(tmp_path, split, people):
    write(tmp_path)
    everyone, photos = read(tmp_path), read(tmp_path, "val", split)
    np.testing.assert_array_equal(photos.targets, everyone.targets[people])
    assert [photos.source(i) for i in range(len(photos))] == [everyone.source(i) for i in people]


def test_people_are_cropped_from_their_photograph(tmp_path):
    write(tmp_path)
    photos, pixels = read(tmp_path), Image.open(tmp_path / "Image/train/0--Parade/p1.jpg")
    for index, corners in ((0, (2, 3, 12, 15)), (1, (36, 1, 40, 10))):
        for _ in range(2):
            for image, size in zip(photos[index].images, (16, 8), strict=True):
                expected = np.asarray(pixels.crop(corners).resize((size, size), Image.BICUBIC))
                np.testing.assert_array_equal(image.numpy(), expected.transpose(2, 0, 1))


def test_a_box_outside_its_test_image_is_the_whole_image(tmp_path):
    write(tmp_path)
    photos, pixels = read(tmp_path, "test"), Image.open(tmp_path / "Image/test/0--Parade/t1.jpg")
    expected = np.asarray(pixels.resize((16, 16), Image.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(photos[0].images[0].numpy(), expected)
    assert photos.source(0) == "Image/test/0--Parade/t1.jpg [500, 3, 10, 12]"


@pytest.mark.parametrize(
    "box", [[5, 5, 0, 9], [5, 5, 9, -2], [-3, 2, 9, 9], [5, -1, 9, 9], [40, 2, 9, 9], [1e300, 0, 9, 9]]
)
def test_a_box_that_is_empty_or_starts_outside_is_the_whole_image(tmp_path, box):
    write(tmp_path, trainval=changed({"bbox": box, "attribute": FIRST}))
    pixels = Image.open(tmp_path / "Image/val/1--Handshaking/h1.jpg")
    expected = np.asarray(pixels.resize((16, 16), Image.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(read(tmp_path)[2].images[0].numpy(), expected)


def test_what_is_published_comes_with_a_split(tmp_path):
    write(tmp_path)
    published = {split: read(tmp_path, "val", split).published for split in ("train", "val", "trainval", "test")}
    assert [each.images for each in published.values()] == [5509, 1362, 6871, 6918]
    assert len(published["trainval"].positive_ratio) == 14 and published["trainval"].positive_ratio[0] == 0.5669
    assert all(published[split].positive_ratio is None for split in ("train", "val", "test"))


def test_an_image_named_twice_has_the_people_of_both(tmp_path):
    write(tmp_path, trainval=[*TRAINVAL, TRAINVAL[0]])
    photos = read(tmp_path)
    assert [photos.source(i) for i in (3, 4)] == [photos.source(i) for i in (0, 1)] and len(photos) == 5


def test_all_that_is_broken_is_collected_and_the_rest_is_read(tmp_path):
    person, broken = TRAINVAL[2]["targets"][0], {"bbox": [0, 0, 9, 9], "attribute": [2]}
    images = [
        *TRAINVAL[:2],
        {"targets": []},
        {"file_name": "train/../../x.jpg", "targets": [person]},
        {"file_name": "val/1--Handshaking/h1.jpg", "targets": [broken, person, {}]},
        {"file_name": "val/no.jpg"},
        "val/h2.jpg",
    ]
    write(tmp_path, trainval=images)
    with collected() as errors:
        photos = read(tmp_path)
    assert [photos.source(i).split("/")[-1] for i in range(len(photos))] == [
        "p1.jpg [2, 3, 10, 12]",
        "p1.jpg [35.5, 1, 9, 9]",
        "h1.jpg [0, 0, 20, 15]",
    ]
    assert photos.targets[2].tolist() == [-1, 1, 1, 0] * 3
    expected = [
        "image 2: the key 'file_name'",
        "image 3 names the file",
        "image val/1--Handshaking/h1.jpg, person 0: a person has",
        "image val/1--Handshaking/h1.jpg, person 2: the key 'bbox'",
        "image 5: the key 'targets'",
        "image 6: ",
    ]
    for error, begins in zip(errors, expected, strict=True):
        assert str(error).split("trainval.json, ")[1].startswith(begins)


def test_augmentation_reaches_the_crops(tmp_path):
    write(tmp_path)
    shapes = []

    def look(image):
        shapes.append(image.shape)
        return {"image": image}

    wider("train", [8], root=str(tmp_path), splits=SPLITS, augmentation=look)[0]
    assert shapes == [(12, 10, 3)]


def test_training_needs_no_test_data(tmp_path):
    write(tmp_path)
    (tmp_path / "Anno/wider_attribute_test.json").unlink()
    assert len(read(tmp_path)) == 3
    with pytest.raises(DataError, match=r"wider_attribute_test\.json.*data\.root="):
        read(tmp_path, "test")


def changed(person: dict[str, object]) -> list[dict[str, object]]:
    images = deepcopy(TRAINVAL)
    images[2]["targets"] = [person]
    return images


@pytest.mark.parametrize(
    ("person", "reason"),
    [
        ({"bbox": [0, 0, 9, 9], "attribute": FIRST[:-1]}, "11 attributes where attribute_id_map names 12"),
        ({"bbox": [0, 0, 9, 9], "attribute": [2, *FIRST[1:]]}, "attribute value 2"),
        ({"bbox": [0, 0, 9, 9], "attribute": ["1", *FIRST[1:]]}, "attribute value '1'"),
        ({"bbox": [0, 0, 9, 9]}, "'attribute' is missing"),
        ({"attribute": FIRST}, "'bbox' is missing"),
        ({"bbox": [0, 0, 9], "attribute": FIRST}, "four finite numbers"),
        ({"bbox": [0, 0, 9, float("nan")], "attribute": FIRST}, "four finite numbers"),
        ({"bbox": [0, 0, 9, float("inf")], "attribute": FIRST}, "four finite numbers"),
        ({"bbox": [0, 0, 9, 10**400], "attribute": FIRST}, "too large"),
        ({"bbox": [1e308, 0, 1e308, 1], "attribute": FIRST}, "ends at no finite number"),
        ({"bbox": [0, 0, "9", 9], "attribute": FIRST}, "must be real number"),
        ({"bbox": [0, 0, 9, 9, 9], "attribute": FIRST}, "four finite numbers"),
        ({"bbox": None, "attribute": FIRST}, "NoneType"),
        ({"bbox": [0, 0, 9, 9], "attribute": [*FIRST, 1]}, "13 attributes where attribute_id_map names 12"),
        ({"bbox": [0, 0, 9, 9], "attribute": [None, *FIRST[1:]]}, "attribute value None"),
        ({"bbox": [0, 0, 9, 9], "attribute": [0.5, *FIRST[1:]]}, r"attribute value 0\.5"),
        ({"bbox": [0, 0, 9, 9], "attribute": 1}, "has no len"),
    ],
)
def test_a_malformed_person_is_named_with_file_image_and_remedy(tmp_path, person, reason):
    write(tmp_path, trainval=changed(person))
    with pytest.raises(DataError, match=reason) as error:
        read(tmp_path)
    for words in (
        str(tmp_path / "Anno/wider_attribute_trainval.json"),
        "val/1--Handshaking/h1.jpg, person 0",
        "fetch it",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"images": [', "Expecting value"),
        ("", "Expecting value"),
        ("[" * 100_000, "recursion depth"),
        ('{"attribute_id_map": {"0": "Male"}, "images": {"file_name": "x"}}', "image 0: "),
        ('{"attribute_id_map": ["Male"], "images": []}', "damaged"),
        ('{"images": []}', "'attribute_id_map' is missing"),
        ('{"attribute_id_map": {"0": "Male"}}', "'images' is missing"),
        ('{"attribute_id_map": {"zero": "Male"}, "images": []}', "zero"),
        ('{"attribute_id_map": {"0": "Male"}, "images": [{}]}', "'file_name' is missing"),
        ('{"attribute_id_map": {"0": "Male"}, "images": []}', "no person in an image of train or val/"),
        ("[]", "damaged"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, content, reason):
    write(tmp_path)
    (tmp_path / "Anno/wider_attribute_trainval.json").write_text(content)
    with pytest.raises(DataError, match=rf"wider_attribute_trainval\.json.*{reason}.*fetch"):
        read(tmp_path)


def test_missing_data_is_one_error_that_says_where_to_look_and_what_to_do(tmp_path):
    with pytest.raises(DataError) as error:
        read(tmp_path / "nothing")
    for words in (
        str(tmp_path / "nothing/wider_attribute_trainval.json"),
        "wider_attribute_annotation/", "Anno/", "Annotations/",
        str(tmp_path / "nothing/Image/train"), str(tmp_path / "nothing/Image/val"), "data.root=",
        "http://mmlab.ie.cuhk.edu.hk/projects/WIDERAttribute", "Deep Hierarchical Contexts",
    ):  # fmt: skip
        assert words in str(error.value)


def test_a_missing_photograph_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "Image/train/0--Parade/p1.jpg").unlink()
    with pytest.raises(DataError, match=r"not found: .*p1\.jpg, the first image of 'trainval'.*data\.root="):
        read(tmp_path)


def test_unknown_roles_and_splits_list_the_known(tmp_path):
    with pytest.raises(DataError, match=r"role='validate'.*'train', 'val', 'test'"):
        read(tmp_path, "validate")
    with pytest.raises(DataError, match=r"split 'minival'.*'train', 'val', 'trainval', 'test'"):
        read(tmp_path, "val", "minival")
    with pytest.raises(DataError, match=r"split \['train', 'val'\].*'trainval'"):
        read(tmp_path, "train", ["train", "val"])


def test_a_file_outside_the_images_is_refused(tmp_path):
    images = deepcopy(TRAINVAL)
    images[0]["file_name"] = "train/../../../secret.jpg"
    write(tmp_path, trainval=TRAINVAL)
    ids = {str(i): LABELS[i] for i in range(12)}
    content = {"images": images, "attribute_id_map": ids}
    (tmp_path / "Anno" / "wider_attribute_trainval.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"trainval\.json.*'train/\.\./\.\./\.\./secret\.jpg', outside .*Image"):
        read(tmp_path)
