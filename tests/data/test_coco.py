"""COCO's format: targets against the annotations read one by one, made-up files and real photographs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vac_lightning.data.base import DataError
from vac_lightning.data.coco import coco

SPLITS = {"train": "train2014", "val": "val2014", "test": "val2014"}
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]
ANNOTATIONS = [
    {"id": 1, "image_id": 7, "category_id": 13, "iscrowd": 0},
    {"id": 2, "image_id": 7, "category_id": 13, "iscrowd": 0},
    {"id": 3, "image_id": 300, "category_id": 90, "iscrowd": 0},
    {"id": 4, "image_id": 300, "category_id": 1, "iscrowd": 1},
]
IMAGES = [
    {"id": 300, "file_name": "b.jpg"},
    {"id": 5, "file_name": "empty.jpg"},
    {"id": 7, "file_name": "a.jpg"},
]


def write(
    root: Path,
    content: object = None,
    *,
    folder: str = "train2014",
    file: str = "annotations/instances_train2014.json",
) -> Path:
    """A data set of three small photographs on disk; returns its annotation file."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for shade, image in enumerate(IMAGES):
        Image.new("RGB", (20 + shade, 10), (40 * shade,) * 3).save(root / folder / image["file_name"])
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content or instances()))
    return path


def instances(**changed: object) -> dict[str, object]:
    return {"images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES} | changed


def test_every_image_is_a_sample_and_every_category_a_label(tmp_path):
    write(tmp_path)
    photos = coco("train", [16, 8], root=str(tmp_path), splits=SPLITS)
    assert photos.labels == ("person", "stop sign", "toothbrush")  # by id: 1, 13, 90
    assert photos.targets.dtype == np.int8
    assert photos.targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]  # a crowd counts
    assert [photos.source(i) for i in range(3)] == [f"train2014/{image['file_name']}" for image in IMAGES]
    assert [tuple(image.shape) for image in photos[1].images] == [(3, 16, 16), (3, 8, 8)]
    assert photos[1].images[0].unique().tolist() == [40]


def test_images_may_lie_in_images(tmp_path):
    write(tmp_path, folder="images/train2014")
    assert coco("train", [8], root=str(tmp_path), splits=SPLITS).source(0) == "images/train2014/b.jpg"


def test_any_layout_by_patterns(tmp_path):
    write(tmp_path, folder="shelf/photos-a", file="labels/a.json")
    patterns = {"annotations": "labels/{split}.json", "images": "shelf/photos-{split}"}
    photos = coco("test", [8], root=str(tmp_path), splits={"test": "a"}, **patterns)
    assert photos.source(2) == "shelf/photos-a/a.jpg" and photos[2].images[0].shape == (3, 8, 8)


def test_augmentation_reaches_the_images(tmp_path):
    write(tmp_path)

    def whiten(image):
        return {"image": np.full_like(image, 255)}

    white = coco("train", [8], root=str(tmp_path), splits=SPLITS, augmentation=whiten)
    assert white[0].images[0].unique().tolist() == [255]


@pytest.mark.parametrize(("key", "value"), [("image_id", 8), ("category_id", 2)])
def test_an_annotation_of_nothing_known_is_named(tmp_path, key, value):
    file = write(tmp_path, instances(annotations=[*ANNOTATIONS, {**ANNOTATIONS[0], "id": 77, key: value}]))
    with pytest.raises(DataError, match=rf"{file.name}: annotation 77 has {key} {value}"):
        coco("train", [8], root=str(tmp_path), splits=SPLITS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"images": IMAGES, "annotations": ANNOTATIONS}, "'categories' is missing"),
        ({"images": IMAGES, "categories": CATEGORIES}, "'annotations' is missing"),
        (instances(annotations=[{"id": 1, "image_id": 7}]), "'category_id' is missing"),
        (instances(images=[{"id": 300}]), "'file_name' is missing|annotation 1"),
        (instances(images=[{"file_name": "a.jpg"}]), "'id' is missing"),
        (instances(images=[]), "0 images"),
        (instances(categories=[], annotations=[]), "0 categories"),
        (instances(images=[*IMAGES, IMAGES[0]]), "4 images share 3 ids"),
        (instances(images=None), "damaged"),
        (["no", "object"], "damaged"),
    ],
)
def test_a_malformed_file_is_named_with_what_is_wrong(tmp_path, content, reason):
    file = write(tmp_path, content)
    with pytest.raises(DataError, match=reason) as error:
        coco("train", [8], root=str(tmp_path), splits=SPLITS)
    assert str(file) in str(error.value)


def test_broken_json_is_named(tmp_path):
    file = write(tmp_path)
    for content in (file.read_bytes()[:-20], b"", b"\xff\xfe{}"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"instances_train2014\.json: .*fetch it again"):
            coco("train", [8], root=str(tmp_path), splits=SPLITS)


def test_missing_data_is_one_error_that_says_where_to_look_and_what_to_do(tmp_path):
    root = tmp_path / "nothing"
    with pytest.raises(DataError) as error:
        coco("val", [8], root=str(root), splits={"val": "val2017"})
    message = str(error.value)
    for words in (
        str(root / "annotations/instances_val2017.json"), str(root / "val2017"), str(root / "images/val2017"),
        "cocodataset.org", "annotations_trainval2017.zip", "val2017.zip", "data.root=",
    ):  # fmt: skip
        assert words in message


def test_a_missing_folder_or_photograph_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "train2014/b.jpg").unlink()
    with pytest.raises(DataError, match=r"not found: .*b\.jpg, the first image.*data\.root="):
        coco("train", [8], root=str(tmp_path), splits=SPLITS)
    (tmp_path / "train2014").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"not found: .*train2014 or .*images/train2014\. ") as error:
        coco("train", [8], root=str(tmp_path), splits=SPLITS)
    assert ".json" not in str(error.value)


def test_an_unknown_role_lists_the_known(tmp_path):
    with pytest.raises(DataError, match=r"role='validate' has no split: use one of 'train', 'val', 'test'"):
        coco("validate", [8], root=str(tmp_path), splits=SPLITS)


@pytest.mark.parametrize(("role", "split"), [("train", "train2017"), ("val", "val2017")])
def test_real_photographs(coco_tiny, role, split):
    photos = coco(role, [64], root=str(coco_tiny), splits={"train": "train2017", "val": "val2017"})
    content = json.loads((coco_tiny / "annotations" / f"instances_{split}.json").read_text())
    slow = [[0] * 80 for _ in range(80)]
    for row, image in enumerate(content["images"]):
        for column, category in enumerate(content["categories"]):
            for annotation in content["annotations"]:
                if (annotation["image_id"], annotation["category_id"]) == (image["id"], category["id"]):
                    slow[row][column] = 1
    assert photos.labels == tuple(c["name"] for c in content["categories"]) and len(photos.labels) == 80
    assert photos.targets.tolist() == slow and len(photos) == 80
    for i, (sample, image) in enumerate(zip(photos, content["images"], strict=True)):
        assert photos.source(i) == f"{split}/{image['file_name']}"
        assert sample.images[0].shape == (3, 64, 64) and sample.images[0].dtype == torch.uint8
        assert sample.images[0].float().std() > 1 and sample.index == i
