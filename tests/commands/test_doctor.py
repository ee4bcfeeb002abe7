"""`vac doctor` and `vac data stats` as people run them: exit codes, the summary, the files they leave."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import Vac
from PIL import Image

from vac_lightning.report.labels import co_occurrence, label_statistics

FILES = {"train": 4, "val": 2, "test": 2}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A COCO-format set of a few photographs of two categories, one of them with a name that is markup elsewhere."""
    root = tmp_path / "data"
    for seed, (split, count) in enumerate(FILES.items()):
        (root / split).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng((seed, number)).integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / split / f"{number}.jpg")
        images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(count)]
        annotations = [{"id": i, "image_id": i, "category_id": i % 2} for i in range(count)]
        categories = [{"id": 0, "name": "[red]tea[/red]"}, {"id": 1, "name": "$milk$"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(str(content).replace("'", '"'))
    return root


def words(root: Path) -> list[str]:
    splits = "data.splits={train: train, val: val, test: test}"
    patterns = 'data.annotations="{split}.json"'
    return ["data=coco", f"data.root={root}", splits, patterns, f"out={root.parent / 'out'}"]


def rows(root: Path, name: str = "findings") -> list[dict[str, str]]:
    with (root.parent / "out" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_healthy_data_is_code_0_and_an_empty_list(vac: Vac, photographs: Path) -> None:
    outcome = vac("doctor", *words(photographs), "strict=true")
    assert (outcome.code, outcome.err) == (0, ""), outcome.err
    for text in ("[red]tea[/red]", "$milk$", "4 JPEG RGB", "40 x 30 (100%)", "errors: 0, warnings: 0"):
        assert text in outcome.out
    assert rows(photographs) == []
    assert rows(photographs, "labels")[0] == {
        "split": "train", "label": "[red]tea[/red]", "positive": "2", "negative": "2", "unspecified": "0",
        "p": "0.500000", "published": "",
    }  # fmt: skip


def test_an_error_is_code_1_and_a_row(vac: Vac, photographs: Path) -> None:
    path = photographs / "train" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    outcome = vac("doctor", *words(photographs))
    assert outcome.code == 1
    assert outcome.err == f"vac doctor: errors: 1, warnings: 0; see {photographs.parent / 'out' / 'findings.csv'}\n"
    (row,) = rows(photographs)
    assert (row["severity"], row["kind"], row["split"]) == ("error", "truncated file", "train")
    assert (row["sample"], row["file"]) == ("1", "train/1.jpg")
    assert "truncated file" in outcome.out and "train/1.jpg" in outcome.out


@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 1)])
def test_a_warning_is_code_1_where_strict(vac: Vac, photographs: Path, strict: str, code: int) -> None:
    (photographs / "test" / "0.jpg").write_bytes((photographs / "train" / "2.jpg").read_bytes())
    outcome = vac("doctor", *words(photographs), f"strict={strict}")
    assert outcome.code == code
    (row,) = rows(photographs)
    assert (row["kind"], row["split"], row["file"]) == ("leak", "test", "test/0.jpg")
    assert "train/2.jpg of train" in row["detail"]


def test_data_that_cannot_be_read_at_all_is_code_1_and_names_the_remedy(vac: Vac, tmp_path: Path) -> None:
    outcome = vac("doctor", "data=wider", f"data.root={tmp_path}", f"out={tmp_path / 'out'}")
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 1
    assert "data.root=" in (tmp_path / "out" / "findings.csv").read_text()


@pytest.mark.slow
def test_statistics_are_drawn(vac: Vac, photographs: Path) -> None:
    outcome = vac("data", "stats", *words(photographs), "top=1")
    assert outcome.code == 0, outcome.err
    path = photographs.parent / "out" / "labels.png"
    assert outcome.out == f"labels: {path}\n"
    with Image.open(path) as image:
        image.load()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("data", "vac data stats"),
        ("data stats top=101", "top=101: expected a whole number from 1 to 100"),
        ("doctor strict=maybe", "strict=maybe: expected true or false"),
        ("doctor threads=0", "threads=0: expected a whole number of at least 1"),
        ("doctor thread=1", "did you mean threads?"),
    ],
)
def test_wrong_words_are_one_line_and_code_2(vac: Vac, arguments: str, named: str) -> None:
    outcome = vac(*arguments.split())
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1 and named in outcome.err


@pytest.mark.slow
def test_real_photographs_have_no_error(vac: Vac, coco_tiny: Path, tmp_path: Path) -> None:
    splits = "data.splits={train: train2017, val: val2017, test: val2017}"
    outcome = vac("doctor", "data=coco", f"data.root={coco_tiny}", splits, f"out={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    assert {row["kind"] for row in rows(tmp_path / "data")} == {"published count"}  # it is a small part of MS-COCO
    assert "val, test: 80 JPEG" in outcome.out


@pytest.mark.slow
def test_embedded_data_has_no_files_to_inspect(vac: Vac, tmp_path: Path) -> None:
    outcome = vac("doctor", f"out={tmp_path}", "strict=true")
    assert outcome.code == 0, outcome.err
    assert "train: not photographs from files" in outcome.out


def test_co_occurrence_is_the_share_among_positives() -> None:
    targets = np.random.default_rng(0).choice(np.array([1, 0, -1], np.int8), (50, 4))
    targets[:, 3] = 0
    shares = co_occurrence(targets)
    for i in range(3):
        for j in range(4):
            given = targets[targets[:, i] == 1]
            assert shares[i, j] == np.mean(given[:, j] == 1)
    assert np.isnan(shares[3]).all()


@pytest.mark.slow
@pytest.mark.parametrize("labels", [1, 5, 80, 600])
def test_a_picture_grows_with_the_labels_up_to_the_top(tmp_path: Path, labels: int) -> None:
    targets = (np.random.default_rng(0).random((30, labels)) < 0.2).astype(np.int8)
    names = [f"a rather long name of label {j}" for j in range(labels)]
    label_statistics(tmp_path / "labels.png", {"train": targets, "val, test": targets}, names, title="x", top=80)
    with Image.open(tmp_path / "labels.png") as image:
        assert (image.height > 1600) == (labels >= 80) and image.height < 2400
