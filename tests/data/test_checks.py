"""Checks of data: a healthy set has no finding; one planted defect is the one finding, named and of its severity."""

import csv
import io
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vac_lightning.data import wider as wider_room
from vac_lightning.data.base import Published, Sample
from vac_lightning.data.doctor.checks import check, inspect_splits, read_splits
from vac_lightning.data.doctor.findings import Finding, as_csv
from vac_lightning.data.doctor.overview import overview
from vac_lightning.data.reading import Photo, Photos
from vac_lightning.data.shapes import shapes
from vac_lightning.data.wider import wider

CLEAN = {"train": "train", "val": "val", "test": "test"}
LABELS = ("Male", "Hat", "=1+1")  # the last one would be a formula
COUNTS = {"train": 4, "val": 2, "test": 3}
FIRST = "Image/train/0--Parade/0.jpg"


def healthy(root: Path) -> dict[str, list[dict]]:
    """A small data set in WIDER's layout, two people an image; returns its records by part, for `annotate`."""
    records: dict[str, list[dict]] = {}
    for seed, (part, number) in enumerate((part, i) for part, count in COUNTS.items() for i in range(count)):
        name = f"{part}/0--Parade/{number}.jpg"
        path = root / "Image" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        people = [{"bbox": [2, 3, 10, 12], "attribute": [1, -1, 1]}, {"bbox": [0, 0, 40, 30], "attribute": [-1, 1, -1]}]
        records.setdefault(part, []).append({"file_name": name, "scene_id": 0, "targets": people})
    annotate(root, records)
    return records


def annotate(root: Path, records: dict[str, list[dict]]) -> None:
    names = {str(j): label for j, label in enumerate(LABELS)}
    for name, parts in (("trainval", ("train", "val")), ("test", ("test",))):
        images = [image for part in parts for image in records[part]]
        content = {"images": images, "attribute_id_map": names}
        (root / f"wider_attribute_{name}.json").write_text(json.dumps(content))


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be published of the healthy set."""
    counts = {part: Published(images, 2 * images, (0.5,) * 3) for part, images in COUNTS.items()}
    monkeypatch.setattr(wider_room, "_PUBLISHED", {**counts, "trainval": Published(6, 12)})


def diagnosed(root: Path, **changes) -> list[Finding]:
    splits, findings = read_splits(partial(wider, **{"root": str(root), "splits": CLEAN, **changes}), [8])
    return [*findings, *check(splits, inspect_splits(splits))]


def test_a_healthy_set_has_no_finding(tmp_path):
    healthy(tmp_path)
    assert diagnosed(tmp_path) == []


# Each plants one defect: in the files below root, or in the records.
def missing(root, records):
    (root / FIRST).with_name("2.jpg").unlink()


def empty(root, records):
    (root / FIRST).write_bytes(b"")


def truncated(root, records):
    (root / FIRST).write_bytes((root / FIRST).read_bytes()[:-200])


def animated(root, records):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(root / FIRST, format="GIF", save_all=True, append_images=frames[1:])


def unreadable(root, records):
    (root / FIRST).write_text("no image")


def suffix(root, records):
    Image.new("RGB", (40, 30)).save(root / FIRST, format="PNG")


def turned(root, records):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(root / FIRST, exif=exif)


def box(*values):
    def plant(root, records):
        records["train"][0]["targets"][1]["bbox"] = list(values)

    return plant


def attribute(values, part="train", image=0):
    def plant(root, records):
        records[part][image]["targets"][1]["attribute"] = values

    return plant


def everywhere(label, value, part="val"):
    def plant(root, records):
        for image in records[part]:
            for person in image["targets"]:
                person["attribute"][label] = value

    return plant


def mostly_unspecified(root, records):
    for image in records["val"]:
        for person in image["targets"]:
            person["attribute"][1] = 0
    records["val"][0]["targets"][0]["attribute"][1] = 1


def copied(part):
    def plant(root, records):
        target = root / "Image" / part / "0--Parade" / "1.jpg"
        target.write_bytes((root / FIRST).read_bytes())

    return plant


def repeated(*labels):
    def plant(root, records):
        first = records["train"][0]["targets"][0]
        records["train"][0]["targets"].append({**first, "attribute": list(labels) or first["attribute"]})

    return plant


def outside(root, records):
    records["train"][1]["file_name"] = "train/../../../secret.jpg"


def no_test_annotations(root, records):
    (root / "Image" / "test").rename(root / "Image" / "tst")


@pytest.mark.parametrize(
    ("plant", "severity", "kind", "named", "detail"),
    [
        (missing, "error", "missing file", {"file": "Image/train/0--Parade/2.jpg", "sample": 4}, "No such file"),
        (empty, "error", "empty file", {"file": FIRST, "sample": 0}, "the file is empty"),
        (truncated, "error", "truncated file", {"file": FIRST}, "samples it concerns: 2"),
        (animated, "error", "animated file", {"file": FIRST}, "2 frames"),
        (unreadable, "error", "unreadable file", {"file": FIRST}, "identify"),
        (suffix, "warning", "suffix", {"file": FIRST}, "named as JPEG, its content is PNG"),
        (turned, "warning", "turned", {"file": FIRST}, "data.upright=true"),
        (box(5, 5, 0, 9), "warning", "box empty", {"sample": 1, "box": (5, 5, 0, 9)}, "the whole image"),
        (box(5, 5, -4, 9), "warning", "box empty", {"sample": 1, "file": FIRST}, "the whole image"),
        (box(400, 5, 9, 9), "warning", "box outside", {"sample": 1}, "40 x 30: a run sees the whole image"),
        (box(35, 5, 9, 9), "warning", "box partly outside", {"sample": 1}, "the part inside"),
        (box(-2, 5, 9, 9), "warning", "box partly outside", {"sample": 1}, "the whole image"),
        (box(0, 0, 41, 30), "warning", "box larger than image", {"sample": 1}, "40 x 30"),
        (attribute([1, -1]), "error", "record", {"split": "train"}, "person 1: a person has 2 attributes"),
        (attribute([1, -1, 5]), "error", "record", {"split": "train"}, "0.jpg, person 1.*value 5"),
        (outside, "error", "record", {"split": "train"}, "secret.jpg"),
        (everywhere(1, -1), "warning", "label without positive", {"split": "val", "label": "Hat"}, "none of 4"),
        (everywhere(1, 1), "warning", "label without negative", {"split": "val", "label": "Hat"}, "none of 4"),
        (mostly_unspecified, "warning", "mostly unspecified", {"split": "val", "label": "Hat"}, "3 of 4"),
        (copied("train"), "warning", "duplicate", {"split": "train", "sample": 2}, f"as {FIRST} of this split"),
        (copied("test"), "warning", "leak", {"split": "test", "sample": 2}, f"as {FIRST} of train"),
        (repeated(), "warning", "repeated sample", {"sample": 2, "box": (2, 3, 10, 12)}, "sample 0, with the same l"),
        (repeated(1, 1, 1), "warning", "repeated sample", {"sample": 2}, "sample 0, with other labels"),
        (no_test_annotations, "error", "split", {"split": "test"}, "not found: .*Image/test"),
    ],
)  # fmt: skip
def test_a_planted_defect_is_found_and_named(tmp_path, plant, severity, kind, named, detail):
    records = healthy(tmp_path)
    plant(tmp_path, records)
    annotate(tmp_path, records)
    # A record less, or a person more, changes the counts and ratios too, and says so; the pure effect is the rest.
    found = [finding for finding in diagnosed(tmp_path) if not finding.kind.startswith("published")]
    kinds = {(finding.severity, finding.kind) for finding in found}
    also = {("warning", "label without negative")} if kind == "mostly unspecified" else set()
    assert kinds - also == {(severity, kind)}
    finding = next(finding for finding in found if finding.kind == kind)
    assert {field: getattr(finding, field) for field in named} == named
    assert re.search(detail, finding.detail), finding.detail


def test_a_missing_first_image_hides_nothing_behind_it(tmp_path):
    records = healthy(tmp_path)
    (tmp_path / FIRST).unlink()
    records["train"][3]["targets"][0]["bbox"] = [90, 90, 5, 5]
    annotate(tmp_path, records)
    assert {finding.kind for finding in diagnosed(tmp_path)} == {"missing file", "box outside"}


def test_counts_and_ratios_are_held_against_the_published(tmp_path):
    records = healthy(tmp_path)
    records["train"].pop()
    for person in records["train"][0]["targets"]:
        person["attribute"][0] = 1
    annotate(tmp_path, records)
    counts, ratios = ([f for f in diagnosed(tmp_path) if f.kind == f"published {k}"] for k in ("count", "ratio"))
    assert [finding.detail.partition(":")[0] for finding in counts] == [
        "3 images, published are 4",
        "6 samples, published are 8",
    ]
    assert [(finding.split, finding.label) for finding in ratios] == [("train", "Male")]
    assert "p = 0.6667, published is 0.5000: a difference of +0.1667" in ratios[0].detail


def test_roles_that_share_a_split_are_one_and_training_on_it_is_a_leak(tmp_path):
    healthy(tmp_path)
    splits, findings = read_splits(partial(wider, root=str(tmp_path), splits={**CLEAN, "val": "test"}), [8])
    assert list(splits) == ["train", "val, test"] and findings == []
    splits, findings = read_splits(partial(wider, root=str(tmp_path), splits={**CLEAN, "test": "train"}), [8])
    assert list(splits) == ["train, test", "val"]
    assert [(finding.severity, finding.kind, finding.split) for finding in findings] == [
        ("warning", "leak", "train, test")
    ]


def test_training_on_images_that_choose_the_epoch_is_a_leak_of_each(tmp_path):
    healthy(tmp_path)
    found = diagnosed(tmp_path, splits={**CLEAN, "train": "trainval"})
    assert [(finding.kind, finding.split, finding.sample) for finding in found] == [
        ("leak", "val", 0),
        ("leak", "val", 2),
    ]


def test_a_run_that_leaves_out_unreadable_files_is_only_warned(tmp_path):
    healthy(tmp_path)
    (tmp_path / FIRST).write_bytes(b"")
    splits, _ = read_splits(partial(wider, root=str(tmp_path), splits=CLEAN), [8])
    facts = inspect_splits(splits)
    assert {f.severity for f in check(splits, facts)} == {"error"}
    assert {f.severity for f in check(splits, facts, skips=True)} == {"warning"}


class Plain:
    """A data set of the protocol alone."""

    labels = ("a", "b")

    def __init__(self, targets: list[list[int]], sources: list[str]) -> None:
        self.targets = np.array(targets, np.int8)
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def source(self, index: int) -> str:
        return self.sources[index]


def test_any_data_set_can_be_checked():
    good = {"train": Plain([[1, 0], [0, 1]], ["x", "y"]), "val": Plain([[1, 0], [0, 1]], ["v", "w"])}
    bad = {"train": good["train"], "val": Plain([[1, 7], [0, 1], [1, 0]], ["x", "z", "z"])}
    for splits, expected in (
        (good, []),
        (bad, [("error", "target", "val", 0), ("warning", "leak", "val", 0), ("warning", "duplicate", "val", 2)]),
    ):
        assert [finding[:4] for finding in check(splits, inspect_splits(splits))] == expected


def test_splits_that_no_run_would_start_with_are_errors():
    sets = {"train": Plain([[1, 0], [0, 1]], ["x", "y"]), "val": Plain([], []), "test": Plain([[1, 0, 0]], ["t"])}
    splits, findings = read_splits(lambda role, sizes: sets[role], [8])
    assert list(splits) == ["train"]
    assert [finding[:3] for finding in findings] == [("error", "split", "val"), ("error", "split", "test")]
    odd = Plain([[1, 0]], ["t"])
    odd.labels = ("b", "a")
    _, findings = read_splits(lambda role, sizes: odd if role == "test" else sets["train"], [8])
    assert ("error", "labels differ", "test") in [finding[:3] for finding in findings]


def test_shapes_have_no_files_and_no_finding():
    splits, findings = read_splits(partial(shapes, scenes={"train": 40, "val": 40, "test": 40}), [64])
    assert inspect_splits(splits) == {} and [*findings, *check(splits, {})] == []


def test_files_of_one_image_must_fit(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in ("red", "green", "other")]
    for path, size in zip(paths, ((8, 6), (8, 6), (9, 6)), strict=True):
        Image.new("L", size).save(path)
    photos = [Photo((paths[0], paths[1])), Photo((paths[1], paths[2]))]
    splits = {"train": Photos(photos, np.eye(2, dtype=np.int8), ["a", "b"], [8], tmp_path)}
    (finding,) = check(splits, inspect_splits(splits))  # equal files within an image are no duplicates
    assert finding[:5] == ("error", "sizes differ", "train", 1, "green.png + other.png")
    assert "8 x 6, 9 x 6" in finding.detail


def test_numbers_of_a_split(tmp_path):
    records = healthy(tmp_path)
    records["train"][0]["targets"][0]["attribute"][2] = 0
    annotate(tmp_path, records)
    split = wider("train", [8], root=str(tmp_path), splits=CLEAN)
    of = overview(split, inspect_splits({"train": split}))
    assert (of.samples, of.images, of.labels) == (8, 4, LABELS)
    assert [counts.tolist() for counts in (of.positive, of.negative, of.unspecified)] == [
        [4, 4, 3],
        [4, 4, 4],
        [0, 0, 1],
    ]
    assert of.ratio.tolist() == [0.5, 0.5, 0.375]
    assert (of.sizes, of.formats, of.turned) == ({(40, 30): 4}, {"JPEG RGB": 4}, 0)


def test_csv_reads_back_and_holds_no_formula():
    findings = [
        Finding("error", "record", "train", detail='=HYPERLINK(1),\n\x1b[31m "quoted"'),
        Finding("warning", "box empty", "val, test", 3, "-a/b.jpg", (-1.5, 2, 1 / 3, 1e9), "@label", "+1"),
    ]
    rows = list(csv.DictReader(io.StringIO(as_csv(findings))))
    assert [list(row) for row in rows] == [list(Finding._fields)] * 2
    assert rows[0]["detail"] == '\'=HYPERLINK(1),\\n\\x1b[31m "quoted"' and rows[0]["sample"] == rows[0]["box"] == ""
    assert rows[1] == {
        "severity": "warning", "kind": "box empty", "split": "val, test", "sample": "3", "file": "./-a/b.jpg",
        "box": "[-1.5, 2, 0.333333333333, 1000000000]", "label": "'@label", "detail": "'+1",
    }  # fmt: skip


def test_a_photograph_used_whole_twice_is_repeated_and_used_by_boxes_is_not(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    boxes = [None, (0, 0, 4, 4), (0, 0, 4, 3), None, (0, 0, 0, 0)]
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]], np.int8)
    split = Photos([Photo(tmp_path / "a.png", box) for box in boxes], targets, ["a", "b"], [8], tmp_path)
    found = check({"train": split}, inspect_splits({"train": split}))
    assert [finding[1:6] for finding in found if finding.kind != "box empty"] == [
        ("repeated sample", "train", 3, "a.png", None)
    ]
