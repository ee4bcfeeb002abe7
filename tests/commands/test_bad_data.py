"""Bad data through the real command: one line and code 2 before a run begins, or left out, listed, counted and said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome, Vac
from PIL import Image

from vac_lightning.runs import Run


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Words that train on eight photographs in COCO's format, of which the third of all is cut short."""
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    (tmp_path / "data" / "all").mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "all" / f"{i}.jpg")
    third = tmp_path / "data" / "all" / "2.jpg"
    third.write_bytes(third.read_bytes()[:-200])
    write(tmp_path, content())
    return [
        *("train", "data=coco", f"data.root={tmp_path / 'data'}", "data.splits={train: all, val: all, test: all}"),
        *(f"data.cache_dir={tmp_path / 'kept'}", f"run_dir={tmp_path / 'run'}"),
        *("recipe=smoke", "backbone=tiny", "transform=f", "image_size=64", "batch_size=4", "logger=csv"),
        *("trainer.enable_progress_bar=false", "callbacks.progress=null", "callbacks.heatmaps=null"),
    ]


def content() -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(8)],
        "annotations": [{"id": i, "image_id": i, "category_id": i % 2} for i in range(8)],
        "categories": [{"id": 0, "name": "cup"}, {"id": 1, "name": "plate"}],
    }


def write(root: Path, content: object) -> None:
    (root / "data" / "annotations" / "instances_all.json").write_text(json.dumps(content))


def refused(outcome: Outcome, code: int, *named: str) -> None:
    assert outcome.code == code, outcome.err
    (line,) = [line for line in outcome.err.strip().splitlines() if line.startswith("vac train:")]
    assert "Traceback" not in outcome.err and all(text in line for text in named), outcome.err


@pytest.mark.parametrize("kind", ["climbs", "unknown category", "nothing readable", "word", "no such word"])
def test_bad_data_is_one_line_with_code_2_and_leaves_no_run(
    vac: Vac, words: list[str], tmp_path: Path, kind: str
) -> None:
    changed, more, named = content(), [], ["instances_all.json"]
    if kind == "climbs":
        changed["images"][3]["file_name"] = "../../secret.jpg"
        named += ["image 3", "'../../secret.jpg'", "mend its path"]
    elif kind == "unknown category":
        changed["annotations"][3]["category_id"] = 9
        named += ["annotation 3", "9", "remove the annotation"]
    elif kind == "nothing readable":
        for i in range(8):
            (tmp_path / "data" / "all" / f"{i}.jpg").write_bytes(b"")
        more, named = ["data.on_bad_image=skip"], ["none of 8 samples", "0.jpg", "empty", "fetch the file again"]
    elif kind == "word":
        more, named = ["data.on_bad_image=ignore"], ["data.on_bad_image=ignore", "raise or skip"]
    else:
        more, named = ["data=shapes", "data.on_bad_image=skip"], ["data.on_bad_image"]
        words = ["train"]
    write(tmp_path, changed)
    outcome = vac(*words, *more)
    refused(outcome, 2, *named)
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "results.json").exists() and not (tmp_path / "run" / ".hydra").exists()


@pytest.mark.slow
def test_an_image_that_cannot_be_read_ends_the_run_in_one_line(vac: Vac, words: list[str], tmp_path: Path) -> None:
    refused(vac(*words), 1, str(tmp_path / "data" / "all" / "2.jpg"), "sample 2", "fetch the file again")
    assert not (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "left_out.csv").exists()
    first = tmp_path / "data" / "all" / "0.jpg"
    first.write_bytes(b"")  # the first image of every split is read at once
    refused(vac(*words), 2, str(first), "empty", "fetch the file again")


@pytest.mark.slow
def test_images_left_out_are_listed_counted_and_said(
    vac: Vac, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAC_CACHE", raising=False)
    outcome = vac(*words, "data.on_bad_image=skip")
    assert outcome.code == 0, outcome.err
    run = Run(tmp_path / "run")
    said = f"1 of 8 images left out (samples: 1), listed in {run.path / 'left_out.csv'}"
    assert (run.path / "train.log").read_text().count(said) == 3
    with (run.path / "left_out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["file"], row["samples"]) for row in rows] == [
        (role, "all/2.jpg", "1") for role in ("train", "val", "test")
    ]
    assert all("fetch the file again" in row["reason"] for row in rows)
    results = run.results()
    assert results["left_out"] == {role: {"images": 1, "samples": 1} for role in ("train", "val", "test")}
    assert results["config"]["data"]["on_bad_image"] == "skip"
    assert run.predictions()["index"].tolist() == list(range(7))

    told = vac("evaluate", str(run.path))
    assert told.code == 0 and "test split, 1 of 8 images left out (samples: 1), 7 samples\n" in told.out
    (tmp_path / "data" / "all" / "5.jpg").unlink()
    told = vac("evaluate", str(run.path))
    assert "2 of 8 images left out (samples: 2), not those in " in told.out and "other samples, 6 samples\n" in told.out
