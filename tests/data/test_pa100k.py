"""PA-100K: targets and splits of a made-up annotation.mat in the published form."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from vac_lightning.data.annotations.records import collected
from vac_lightning.data.base import DataError
from vac_lightning.data.pa100k import pa100k

SPLITS = {"train": "train", "val": "val", "test": "test"}
COUNTS = {"train": 5, "val": 2, "test": 3}
LABELS = ["Female", "AgeOver60", "Skirt&Dress", "boots"]


def cells(texts):
    """N x 1 cells of a text each, as MATLAB writes them."""
    column = np.empty((len(texts), 1), object)
    for row, text in enumerate(texts):
        column[row, 0] = np.array([text])
    return column


def annotated():
    """The variables of annotation.mat; each image's name and labels are noise of a stated seed."""
    rng, content, number = np.random.default_rng(0), {"attributes": cells(LABELS)}, 0
    for part, count in COUNTS.items():
        content[f"{part}_images_name"] = cells([f"{number + i + 1:06d}.jpg" for i in range(count)])
        content[f"{part}_label"] = rng.integers(0, 2, (count, len(LABELS)), dtype=np.uint8)
        number += count
    return content


def write(root: Path, folder="release_data", content=None, file="annotation.mat", **options):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(1, 1 + sum(COUNTS.values())):
        Image.new("RGB", (10, 20 + number), (20 * number,) * 3).save(root / folder / f"{number:06d}.jpg")
    (root / file).parent.mkdir(exist_ok=True)
    scipy.io.savemat(root / file, annotated() if content is None else content, **options)


def read(root: Path, role="train", split=None):
    return pa100k(role, [16, 8], root=str(root), splits={role: split} if split else SPLITS)


@pytest.mark.parametrize("folder", ["release_data", "release_data/release_data", "data", "."])
@pytest.mark.parametrize("file", ["annotation.mat", "annotation/annotation.mat"])
def test_one_sample_an_image_wherever_it_lies(tmp_path, folder, file):
    write(tmp_path, folder, file=file, do_compression=True)
    photos = read(tmp_path)
    assert photos.labels == tuple(LABELS) and photos.targets.dtype == np.int8
    np.testing.assert_array_equal(photos.targets, annotated()["train_label"])
    prefix = "" if folder == "." else f"{folder}/"
    assert [photos.source(i) for i in range(5)] == [f"{prefix}{i:06d}.jpg" for i in range(1, 6)]
    assert [tuple(image.shape) for image in photos[4].images] == [(3, 16, 16), (3, 8, 8)]
    assert photos[4].images[0].unique().tolist() == [100]


def test_the_official_splits_follow_one_another(tmp_path):
    write(tmp_path)
    splits = {split: read(tmp_path, "test", split) for split in ("train", "val", "trainval", "test")}
    sources = {split: [photos.source(i)[-10:-4] for i in range(len(photos))] for split, photos in splits.items()}
    assert sources["trainval"] == sources["train"] + sources["val"] and sources["test"] == [
        "000008",
        "000009",
        "000010",
    ]
    np.testing.assert_array_equal(
        splits["trainval"].targets, np.concatenate([annotated()["train_label"], annotated()["val_label"]])
    )


def test_what_is_published_comes_with_a_split(tmp_path):
    write(tmp_path)
    published = {split: read(tmp_path, "val", split).published for split in SPLITS}
    assert [published[split].images for split in SPLITS] == [80_000, 10_000, 10_000]
    ratio = published["train"].positive_ratio
    assert len(ratio) == 26 and ratio[0] == 0.460444 and ratio[-1] == 0.006
    # Two pairs and one triple of the attributes leave each other out: age, side, and the length of sleeves.
    assert sum(ratio[1:4]) == pytest.approx(1, abs=1e-4) and sum(ratio[4:7]) == pytest.approx(1, abs=1e-4)
    assert sum(ratio[13:15]) == pytest.approx(1, abs=1e-4)
    assert published["val"].positive_ratio is published["test"].positive_ratio is None


def changed(key, value):
    content = annotated()
    content[key] = value(content[key])
    return content


def put(row, column, value):
    def change(labels):
        labels = labels.astype(np.result_type(labels, np.array(value)))
        labels[row, column] = value
        return labels

    return change


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("train_label", put(3, 2, 2), r"train image 3 \(000004\.jpg\): 'Skirt&Dress' is 2, neither 1 nor 0"),
        ("train_label", put(0, 0, -1), r"train image 0 \(000001\.jpg\): 'Female' is -1"),
        ("train_label", put(4, 3, float("nan")), r"train image 4 \(000005\.jpg\): 'boots' is nan"),
        ("train_label", put(1, 1, 0.5), r"image 1 .*'AgeOver60' is 0\.5"),
        ("train_label", lambda labels: labels[:-1], "train_label is 4 x 4, where 5 images and 4 attributes"),
        ("train_label", lambda labels: labels[:, :-1], "train_label is 5 x 3"),
        ("train_label", lambda labels: labels.T, "train_label is 4 x 5"),
        ("train_label", lambda labels: labels * 1j, "train_label is no matrix of numbers"),
        ("train_label", lambda labels: cells(["a"] * 5), "train_label is no matrix of numbers"),
        ("train_label", lambda labels: {"a": 1}, "train_label is no matrix of numbers, where 5 images"),
        ("train_images_name", lambda names: names[:-1], "where 4 images and 4 attributes are named"),
        ("train_images_name", lambda names: np.arange(5), "train_images_name is no column of cells"),
        ("train_images_name", lambda names: cells(["a.jpg"] * 5), "images 0 and 1 are both 'a.jpg': take one"),
        (
            "train_images_name",
            lambda names: cells(["../up.jpg", *"abcd"]),
            r"image 0 names the file '\.\./up\.jpg', out",
        ),
        ("train_images_name", lambda names: cells(["a\nb", *"abcd"]), r"image 0 names the file 'a\\nb', with control"),
        (
            "train_images_name",
            lambda names: cells(["", *"abcd"]),
            "cell 0 of train_images_name is no text",
        ),
        ("attributes", lambda names: cells(LABELS[:-1]), "where 5 images and 3 attributes are named"),
        ("attributes", lambda names: np.zeros((4, 1)), "attributes is no column of cells"),
    ],
)
def test_what_is_malformed_is_named_with_file_image_and_remedy(tmp_path, key, value, reason):
    write(tmp_path, content=changed(key, value))
    with pytest.raises(DataError, match=reason) as error:
        read(tmp_path)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "annotation.mat")) and "\n" not in message
    assert any(remedy in message for remedy in ("fetch it again or mend it", "take one", "mend its path", "rename"))
    assert key == "attributes" or len(read(tmp_path, "test")) == 3  # another split's damage is none of its own


@pytest.mark.parametrize("key", ["attributes", "train_label", "train_images_name"])
def test_a_missing_variable_is_named(tmp_path, key):
    write(tmp_path, content={name: value for name, value in annotated().items() if name != key})
    with pytest.raises(DataError, match=rf"annotation\.mat: the key '{key}' is missing.*fetch it again"):
        read(tmp_path)


def test_a_split_without_images_is_named(tmp_path):
    content = annotated() | {"train_images_name": np.empty((0, 1), object), "train_label": np.empty((0, 4), np.uint8)}
    write(tmp_path, content=content)
    with pytest.raises(DataError, match=r"annotation\.mat has no image of train: fetch"):
        read(tmp_path)


def test_a_flipped_byte_brings_no_other_error(tmp_path):
    write(tmp_path)
    file = tmp_path / "annotation.mat"
    content, rng = file.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(content), 60).tolist():
        file.write_bytes(content[:place] + bytes([rng.integers(0, 256)]) + content[place + 1 :])
        with suppress(DataError):
            assert len(read(tmp_path)) == 5


def test_broken_images_are_left_out_where_errors_are_collected(tmp_path):
    content = changed("train_label", put([1, 3], [0, 0], 7))
    content["train_images_name"][4, 0] = np.array(["/e.jpg"])
    write(tmp_path, content=content)
    with collected() as errors:
        photos = read(tmp_path)
    assert [photos.source(i) for i in range(len(photos))] == ["release_data/000001.jpg", "release_data/000003.jpg"]
    np.testing.assert_array_equal(photos.targets, annotated()["train_label"][[0, 2]])
    assert len(errors) == 3


def test_missing_data_is_one_error_that_says_where_to_look_and_what_to_do(tmp_path):
    with pytest.raises(DataError) as error:
        read(tmp_path / "nothing")
    for words in (
        str(tmp_path / "nothing/annotation.mat"), "annotation/annotation.mat", "data.root=", "HydraPlus-Net",
        "https://github.com/xh-liu/HydraPlus-Net", "release_data/",
    ):  # fmt: skip
        assert words in str(error.value)
    write(tmp_path)
    (tmp_path / "release_data/000001.jpg").unlink()
    with pytest.raises(
        DataError, match=r"not found: .*release_data/000001\.jpg, the first image of 'train'.*data\.root="
    ):
        read(tmp_path)
    with collected() as errors:  # who lists what is broken looks at every file
        assert len(read(tmp_path)) == 5 and errors == []
    skip = {"on_bad_image": "skip", "cache_dir": str(tmp_path / "kept")}
    assert len(pa100k("train", [8], root=str(tmp_path), splits=SPLITS, **skip)) == 4


def test_unknown_roles_and_splits_list_the_known(tmp_path):
    with pytest.raises(DataError, match=r"role='validate'.*'train', 'val', 'test'"):
        read(tmp_path, "validate")
    with pytest.raises(DataError, match=r"split 'minival'.*'train', 'val', 'trainval', 'test'"):
        read(tmp_path, "val", "minival")
    with pytest.raises(DataError, match=r"split \['train', 'val'\].*'trainval'"):
        read(tmp_path, "train", ["train", "val"])
