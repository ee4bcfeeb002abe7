"""`vac evaluate`, `vac predict` and `vac report` on trained runs."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SMOKE, Vac
from hydra.core.global_hydra import GlobalHydra

from vac_lightning import cli
from vac_lightning.metrics import SUMMARY, evaluate
from vac_lightning.report import table
from vac_lightning.runs import Run, find_runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows of one seed, and the second seed of one of them."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        for words in (("lambda=0",), ("lambda=1",), ("lambda=1", "seed=1")):
            GlobalHydra.instance().clear()
            patch.setattr(sys, "argv", ["vac", "train", *SMOKE, f"runs_dir={runs}", "transform=f", *words])
            assert cli.main() == 0
    return runs


def _run(trained: Path) -> Run:
    return Run(trained / "shapes" / "Tiny+ACf" / "seed=0")


def test_evaluate_repeats_the_numbers_of_the_run(vac: Vac, trained: Path) -> None:
    run = _run(trained)
    for checkpoint in ("best", "last"):
        outcome = vac("evaluate", f"run={run.path}", f"checkpoint={checkpoint}", "batch_size=5", "accelerator=cpu")
        assert outcome.code == 0, outcome.err
        values = run.results()["metrics"][checkpoint]["test"]
        assert all(f"{values[name]:.1f}" in outcome.out for name in SUMMARY)


def test_evaluate_takes_any_split_and_top_k(vac: Vac, trained: Path) -> None:
    run = _run(trained)
    outcome = vac("evaluate", f"run={run.path}", "split=train")
    assert "24 samples" in outcome.out
    predictions = run.predictions()
    outcome = vac("evaluate", f"run={run.path}", "top_k=3")
    expected = evaluate(predictions["logits"], predictions["targets"], top_k=3)
    assert all(f"{expected[name]:.1f}" in outcome.out for name in ("F1-C", "P-O", "R-O"))


def test_evaluate_refuses_a_checkpoint_that_carries_code(vac: Vac, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(_run(trained).path, run)
    (run / "checkpoints" / "best.ckpt").write_bytes(b"cos\nsystem\n(S'touch " + bytes(tmp_path) + b"/taken'\ntR.")
    outcome = vac("evaluate", f"run={run}")
    assert outcome.code == 2
    assert "was not loaded" in outcome.err
    assert not (tmp_path / "taken").exists()


def test_predict_prints_labels_and_draws_overlays(vac: Vac, trained: Path, tmp_path: Path) -> None:
    photos = [tmp_path / "my photo, 1=a.jpg", tmp_path / "sub" / "my photo, 1=a.jpg"]
    photos[1].parent.mkdir()
    for photo in photos:
        cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    out = tmp_path / "out"
    outcome = vac("predict", *map(str, photos), f"run={_run(trained).path}", f"out={out}", "top_k=2")
    assert outcome.code == 0, outcome.err
    assert len(re.findall(r"0\.\d{3}", outcome.out)) == 4
    pictures = sorted(out.glob("*.png"))
    assert len(pictures) == 2
    assert all(min(cv2.imread(str(picture)).shape[:2]) > 100 for picture in pictures)


def test_report_tabulates_means_over_seeds_and_draws_figure_5(vac: Vac, trained: Path, tmp_path: Path) -> None:
    outcome = vac("report", str(trained), f"out={tmp_path}")
    assert outcome.code == 0, outcome.err
    values = [run.results()["metrics"]["best"]["test"]["mAP"] for run in find_runs([trained / "shapes" / "Tiny+ACf"])]
    cell = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    text = (tmp_path / "table.md").read_text()
    assert cell in text
    assert cell in outcome.out
    assert "chosen on val/mAP of split 'val'" in text
    assert "| Tiny+f | 1 |" in text
    assert cv2.imread(str(tmp_path / "figure5.png")).shape[1] > 900


def test_report_names_rows_and_labels_that_are_not_there(vac: Vac, trained: Path, tmp_path: Path) -> None:
    outcome = vac("report", str(trained), f"out={tmp_path}", "rows=[R50]")
    assert outcome.code == 2
    assert "Tiny+ACf, Tiny+f" in outcome.err
    outcome = vac("report", str(trained), f"out={tmp_path}", "labels=[unicorn]")
    assert outcome.code == 2
    assert "circle" in outcome.err


def test_report_does_not_take_other_runs_for_seeds(vac: Vac, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "runs")
    shutil.copytree(_run(trained).path, tmp_path / "runs" / "copy")
    outcome = vac("report", str(tmp_path / "runs"))
    assert outcome.code == 2
    assert "two runs of one seed" in outcome.err
    results = tmp_path / "runs" / "copy" / "results.json"
    results.write_text(results.read_text().replace('"difficulty": 0.5', '"difficulty": 0.9'))
    outcome = vac("report", str(tmp_path / "runs"))
    assert outcome.code == 2
    assert "differ by more than the seed" in outcome.err


def test_the_best_of_each_column_is_bold(trained: Path) -> None:
    rows = table.rows(find_runs([trained]))
    best = max(rows, key=lambda row: np.mean(row.metrics["mAP"]))
    line = next(line for line in table.markdown(rows).splitlines() if line.startswith(f"| {best.name} |"))
    assert line.split("|")[3].strip() == f"**{best.cell('mAP')}**"
