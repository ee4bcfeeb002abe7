"""COCO's format: targets against the annotations read one by one, made-up files and real photographs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vac_lightning.data.annotations.records import collected
from vac_lightning.data.base import DataError, Published
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


@pytest.mark.parametrize("folder", ["train2014", "images/train2014"])
@pytest.mark.parametrize("file", ["annotations/instances_train2014.json", "instances_train2014.json"])
def test_every_layout_in_the_wild_needs_no_words(tmp_path, folder, file):
    write(tmp_path, folder=folder, file=file)
    photos = coco("train", [8], root=str(tmp_path), splits=SPLITS)
    assert [photos.source(i) for i in range(3)] == [f"{folder}/{image['file_name']}" for image in IMAGES]
    assert photos[2].images[0].shape == (3, 8, 8)


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
    with pytest.raises(ValueError, match=r"data\.splits names the split 2014: give a text"):
        coco("train", [8], root=str(tmp_path), splits={"train": 2014})


RETAIL = {
    "images": [
        {"id": "t-9", "file_name": "till 4/2019/9.jpg", "level": "hard"},
        {"id": 4.0, "file_name": "shelf/a.jpg"},
    ],
    "annotations": [
        {"image_id": 4, "category_id": 1999, "segmentation": [[1.5, 2]], "bbox": [0, 0, 1, 1], "id": None},
        {"image_id": "t-9", "category_id": 7, "attributes": {"deep": [{}]}},
        {"image_id": "t-9", "category_id": "x12"},
    ],
    "categories": [
        {"id": "x12", "name": "plum"},
        {"id": 1999, "name": "1_puffed_food"},
        {"id": 7, "name": 7, "sku_class": 3},
    ],
}


def shelve(root, content=RETAIL, folder="photos/{split}", file="labels/{split}.json", split="checkout"):
    for shade, image in enumerate(content["images"]):
        path = root / folder.replace("{split}", split) / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (40 * shade,) * 3).save(path)
    path = root / file.replace("{split}", split)
    path.parent.mkdir(exist_ok=True)
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")  # as some editors begin a file


def test_any_categories_in_any_folders_under_any_name(tmp_path):
    shelve(tmp_path)
    patterns = {"annotations": "labels/{split}.json", "images": "photos/{split}"}
    photos = coco("test", [8], root=str(tmp_path), splits={"test": "checkout"}, **patterns)
    assert photos.labels == ("7", "1_puffed_food", "plum")
    assert photos.targets.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert photos.source(0) == "photos/checkout/till 4/2019/9.jpg" and photos.published is None
    assert photos[1].images[0].unique().tolist() == [40]


SHARED = [{"id": i, "file_name": f"{i}.jpg"} for i in range(5)]
FOLDERS = {"left": [0, 3], "right": [1, 2, 4]}


def share(root, nested=False):
    """One annotation file, and a folder of images for each split; each image has the category of its number."""
    images = [{"id": i, "file_name": f"{split}/{i}.jpg" if nested else f"{i}.jpg"} for i in range(5)
              for split, own in FOLDERS.items() if i in own]  # fmt: skip
    content = {
        "images": images,
        "annotations": [{"image_id": i, "category_id": i} for i in range(5)],
        "categories": [{"id": i, "name": f"c{i}"} for i in range(5)],
    }
    for split, own in FOLDERS.items():
        (root / "photos" / split).mkdir(parents=True)
        for i in own:
            Image.new("RGB", (20, 10)).save(root / "photos" / split / f"{i}.jpg")
    (root / "all.json").write_text(json.dumps(content))


@pytest.mark.parametrize(("nested", "images"), [(False, "photos/{split}"), (True, "photos")])
def test_one_file_of_all_splits_is_shared_out_by_folder(tmp_path, nested, images):
    share(tmp_path, nested)
    splits = {"train": "left", "val": "right", "test": "right"}
    options = {"root": str(tmp_path), "splits": splits, "annotations": "all.json", "images": images}
    for role, split in splits.items():
        photos = coco(role, [8], **options)
        assert photos.targets.nonzero()[1].tolist() == FOLDERS[split] and photos.targets.sum() == len(photos)
        assert [photos.source(i) for i in range(len(photos))] == [f"photos/{split}/{i}.jpg" for i in FOLDERS[split]]
        assert len(photos.labels) == 5 and photos[1].images[0].shape == (3, 8, 8)
    missing = tmp_path / "photos/left/3.jpg"
    missing.unlink()
    if nested:
        (tmp_path / "all.json").write_text((tmp_path / "all.json").read_text().replace("left/3", "attic/3"))
    reason = "begins with none of left, right" if nested else "lies in the folder of none of left, right"
    with pytest.raises(DataError, match=rf"all\.json: image 3, '.*3\.jpg', {reason}.*data\.images"):
        coco("train", [8], **options)


def test_one_file_and_one_folder_for_all_roles_is_one_split(tmp_path):
    share(tmp_path, nested=True)
    options = {"root": str(tmp_path), "annotations": "all.json", "images": "photos"}
    assert len(coco("val", [8], splits=dict.fromkeys(("train", "val", "test"), "all"), **options)) == 5
    with pytest.raises(DataError, match=r"image 1, .*begins with none of left, middle"):
        coco("val", [8], splits={"train": "left", "val": "middle"}, **options)


def test_crowds_count_as_in_the_paper_unless_they_should_not(tmp_path):
    write(tmp_path)
    options = {"root": str(tmp_path), "splits": SPLITS}
    assert coco("train", [8], **options).targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert coco("train", [8], crowd=False, **options).targets.tolist() == [[0, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("split", "images"), [("train2014", 82783), ("val2014", 40504), ("train2017", 118287), ("val2017", 5000)]
)
def test_what_is_published_of_a_split_comes_with_it(tmp_path, split, images):
    write(tmp_path, folder=split, file=f"annotations/instances_{split}.json")
    assert coco("val", [8], root=str(tmp_path), splits={"val": split}).published == Published(images, images)


CLEAN = {"train": "train2014", "val": "holdout", "test": "train2014"}


def many(root, count=200):
    """Images with three labels of which the last is rare."""
    rng = np.random.default_rng(0)
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(count)]
    annotations = [
        {"image_id": i, "category_id": c} for i in range(count) for c, p in ((1, 0.5), (13, 0.2), (90, 0.05))
        if rng.random() < p
    ]  # fmt: skip
    write(root, instances(images=images, annotations=annotations))
    (root / "train2014" / images[0]["file_name"]).touch()


def test_a_share_is_held_out_of_training_alike_in_its_labels(tmp_path):
    many(tmp_path)
    options = {"root": str(tmp_path), "splits": {**CLEAN, "test": "val2014"}}
    whole = coco("train", [8], root=str(tmp_path), splits=SPLITS)
    train, val = (coco(role, [8], holdout=0.1, **options) for role in ("train", "val"))
    sources = [[split.source(i) for i in range(len(split))] for split in (whole, train, val)]
    assert set(sources[1]) | set(sources[2]) == set(sources[0]) and not set(sources[1]) & set(sources[2])
    assert sorted(sources[2], key=sources[0].index) == sources[2] and len(val) == 20
    np.testing.assert_array_equal(train.targets, whole.targets[[sources[0].index(name) for name in sources[1]]])
    assert np.abs(val.targets.sum(0) - 0.1 * whole.targets.sum(0)).max() <= 1
    again, other = (coco("val", [8], holdout=0.1, holdout_seed=seed, **options) for seed in (0, 1))
    assert [again.source(i) for i in range(20)] == sources[2] != [other.source(i) for i in range(20)]
    assert whole.published and not train.published and not val.published


def test_a_split_that_only_evaluates_keeps_all_its_images(tmp_path):
    many(tmp_path)
    write(tmp_path, folder="val2014", file="annotations/instances_val2014.json")
    splits = {"train": "train2014", "val": "holdout", "test": "val2014"}
    assert len(coco("test", [8], root=str(tmp_path), splits=splits, holdout=0.5)) == 3


@pytest.mark.parametrize(
    ("holdout", "splits", "reason"),
    [
        (0.1, SPLITS, "data.splits.val=holdout"),
        (0.1, {"train": "holdout", "val": "holdout"}, "data.splits.val=holdout"),
        (0.1, {"val": "holdout"}, "data.splits.val=holdout"),
        (0.01, CLEAN, "data.holdout=0.01 of 3 images leaves none for 'holdout'"),
        (1, CLEAN, "data.holdout=1: expected a share"),
        (float("nan"), CLEAN, "data.holdout=nan: expected a share"),
    ],
)
def test_a_holdout_that_makes_no_sense_is_refused(tmp_path, holdout, splits, reason):
    write(tmp_path)
    with pytest.raises(ValueError, match=reason):
        coco("val", [8], root=str(tmp_path), splits=splits, holdout=holdout)


def test_a_split_named_holdout_is_one_like_others(tmp_path):
    write(tmp_path, folder="holdout", file="annotations/instances_holdout.json")
    assert len(coco("val", [8], root=str(tmp_path), splits={"val": "holdout"})) == 3


def text(**changed):
    return json.dumps(instances(**changed)).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (text().replace(b'"iscrowd": 0', b'"iscrowd": NaN', 1), r"json: JSON is malformed: .*\(byte \d+\)"),
        (text()[:-20], "json: Input data was truncated"),
        (b"", "json: Input data was truncated"),
        (text() + b"}", "json: JSON is malformed: trailing"),
        (text().replace(b"a.jpg", b"\xe9.jpg"), r"json, images\[2\]: 'utf-8' codec can't decode byte 0xe9"),
        (text().replace(b"a.jpg", b"\\udce9.jpg"), "json: JSON is malformed: .*surrogate"),
        (json.dumps(instances()).encode("utf-16"), "json: JSON is malformed"),
        (b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json: .*"),
        (b"[1, 2]", "json: Expected 'object', got 'array'"),
        (b'"text"', "json: Expected 'object', got 'str'"),
        (text(images={"300": "b.jpg"}), "json: Expected 'array', got 'object' in 'images'"),
        (text(images=["b.jpg"]), r"json, images\[0\]: Expected 'object', got 'str'"),
        (
            text(images=[*IMAGES, {"id": 8, "file_name": None}]),
            r"images\[3\]: Expected 'str', got 'null' in 'file_name'",
        ),
        (text(images=[*IMAGES, {"id": [8], "file_name": "c.jpg"}]), r"images\[3\]: .*got 'array' in 'id'"),
        (text(images=[*IMAGES, {"id": 8, "file_name": "b.jpg"}]), "images 0 and 3 are both 'b.jpg': take one"),
        (text(images=[*IMAGES, {"id": 5, "file_name": "c.jpg"}]), "4 images share 3 ids, such as 5: give each"),
        (text(categories=[*CATEGORIES, CATEGORIES[1]]), "4 categories share 3 ids, such as 1: give each"),
        (text(categories=[{"id": 1}]), r"categories\[0\]: the key 'name' is missing"),
        (text(categories=[{"id": 1, "name": ["a"]}]), r"categories\[0\]: Expected .*, got 'array' in 'name'"),
        (text(annotations=[*ANNOTATIONS, {"image_id": 7}]), r"annotations\[4\]: the key 'category_id' is missing"),
        (text(annotations=[*ANNOTATIONS, None]), r"annotations\[4\]: Expected 'object', got 'null'"),
        (text(annotations=[{"image_id": True, "category_id": 1}]), r"annotations\[0\]: .*got 'bool' in 'image_id'"),
        (text(annotations=[{"image_id": "7", "category_id": 1}]), "annotation None has image_id '7', which is no id"),
    ],
)
def test_each_kind_of_damage_is_one_line_that_names_the_record_and_the_remedy(tmp_path, content, reason):
    file = write(tmp_path)
    file.write_bytes(content)
    with pytest.raises(DataError, match=reason) as error:
        coco("train", [8], root=str(tmp_path), splits=SPLITS)
    message = str(error.value)
    assert message.startswith(str(file)) and "\n" not in message
    assert any(remedy in message for remedy in ("fetch it again or mend it", "give each", "take one", "remove the"))


def test_all_that_is_broken_is_collected_and_the_rest_is_read(tmp_path):
    images = [*IMAGES, {"id": 8}, {"id": 9, "file_name": "../up.jpg"}]
    annotations = [
        *ANNOTATIONS, {"image_id": 7}, {"id": 50, "image_id": 7, "category_id": 2}, {"image_id": 9, "category_id": 1},
    ]  # fmt: skip
    file = write(tmp_path, instances(images=images, annotations=annotations))
    with collected() as errors:
        photos = coco("train", [8], root=str(tmp_path), splits=SPLITS)
    assert photos.targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert [str(error).removeprefix(str(file)).split(";")[0].split(",  ")[0][:40] for error in errors] == [
        ", images[3]: the key 'file_name' is miss",
        ", annotations[4]: the key 'category_id' ",
        ": annotation 50 has category_id 2, which",
        ", image 3 names the file '../up.jpg', ou",
    ]


def test_a_large_file_is_read_once(tmp_path, monkeypatch):
    file = write(tmp_path)
    with file.open("a") as out:
        out.write(" " * 2**20)
    options = {"root": str(tmp_path), "splits": SPLITS, "cache_dir": str(tmp_path / "kept")}
    first = coco("train", [8], **options)
    monkeypatch.setattr("vac_lightning.data.coco.presence", None)
    again = coco("train", [8], **options)
    assert again.labels == first.labels and [*map(again.source, range(3))] == [*map(first.source, range(3))]
    np.testing.assert_array_equal(again.targets, first.targets)
    with pytest.raises(TypeError):
        coco("train", [8], crowd=False, **options)  # another index
    (tmp_path / "train2014/b.jpg").unlink()
    with pytest.raises(DataError, match=r"not found: .*b\.jpg, the first image"):
        coco("train", [8], **options)


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
