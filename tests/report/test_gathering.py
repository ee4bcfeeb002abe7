"""What a report shows, against the run folders it was read from."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from folders import LABELS, Kind, kinds, split, write_run, write_sweep

from vac_lightning.metrics import SUMMARY, evaluate
from vac_lightning.report.contents import Row
from vac_lightning.report.gathering import gather
from vac_lightning.runs import Run, find_runs, find_unfinished


def _row(rows: tuple[Row, ...], name: str) -> Row:
    (row,) = [row for row in rows if row.name == name]
    return row


def test_rows_of_a_table_stand_in_its_order_with_what_is_missing_and_published(tmp_path: Path) -> None:
    wanted = [Kind("R50", "f", 1.0), Kind("R50", "f", 0.0), Kind("R50", "none"), Kind("R50", "f", 0.3)]
    contents = gather(write_sweep(tmp_path, wanted, experiment="table1"), resamples=0)
    names = [row.name for row in contents.rows]
    assert contents.title == "table1" and contents.of_experiment
    assert names[:6] == ["R50", "R50+t", "R50+r", "R50+s", "R50+f", "R50+ACt"] and len(names) == 17
    assert names[-1] == "R50+ACf_lambda=0.3"  # no row of the paper
    states = {row.name: row.state for row in contents.rows}
    assert states["R50+f"] == "done" and states["R101"] == "missing"
    assert _row(contents.rows, "R50+ACf").published["mAP"] == 86.3
    assert _row(contents.rows, "R50+ACf_lambda=0.3").published == {}
    assert any("No finished run of: R50+t, " in note for note in contents.notes)


def test_methods_of_others_are_published_rows_and_ours_may_lie_in_another_folder(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path / "1", [Kind("R50", "f")], experiment="table1")
    runs += write_sweep(tmp_path / "4", [Kind("R101", "none")], experiment="table4", row="ResNet101star")
    contents = gather(runs, resamples=0)
    assert contents.title == "table4"
    assert [row.name for row in contents.rows][:5] == ["R-CNN", "R*CNN", "DHC", "AR", "ResNet101*"]
    assert _row(contents.rows, "R-CNN").state == "published"
    assert _row(contents.rows, "ResNet101*").state == _row(contents.rows, "R50+ACf").state == "done"
    assert contents.metrics == SUMMARY


def test_the_same_rows_on_other_data_are_not_beside_the_published_numbers(tmp_path: Path) -> None:
    contents = gather(write_sweep(tmp_path, [Kind("R50", "f")], experiment="table1_on_shapes"), resamples=0)
    assert len(contents.rows) == 16
    assert not any(row.published for row in contents.rows)
    assert _row(contents.rows, "R50+ACf").state == "done"


def test_top_3_metrics_are_those_of_the_predictions(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, [Kind("R101", "f")], experiment="table6", row="ResNet101-ACf")
    row = _row(gather(runs, resamples=0).rows, "ResNet101-ACf")
    for seed, run in enumerate(runs):
        arrays = run.predictions()
        expected = evaluate(arrays["logits"], arrays["targets"], top_k=3)
        assert row.metrics["best"]["top3_F1-O"][seed] == pytest.approx(expected["F1-O"])
        assert row.metrics["best"]["F1-O"][seed] == run.results()["metrics"]["best"]["test"]["F1-O"]
    assert np.isnan(row.metrics["last"]["top3_F1-O"]).all()


def test_every_number_is_that_of_the_runs(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, kinds(7), seeds=2)
    contents = gather(runs, resamples=0)
    row = _row(contents.rows, "R50+ACt")
    of_row = [run for run in runs if run.results()["row"] == "R50+ACt"]
    assert (row.seeds, row.lambda_, row.transform) == ((0, 1), 1.0, "t")
    assert row.metrics["last"]["mAP"] == tuple(r.results()["metrics"]["last"]["test"]["mAP"] for r in of_row)
    assert contents.label_ap["R50+ACt"]["Hat"] == tuple(
        run.results()["metrics"]["best"]["test"]["AP/Hat"] for run in of_row
    )
    (cost,) = [cost for cost in contents.costs if cost.row == "R50+ACt"]
    assert (cost.device_hours, cost.images_per_s) == (2 * (3600 + 3660) / 3600, 400.5)
    held = [json.loads((run.path / "attention.json").read_text()) for run in of_row]
    (attention,) = [each for each in contents.attention if each.row == "R50+ACt"]
    assert attention.after["t"] == pytest.approx(np.mean([each["after"]["t"]["relative"] for each in held]))
    assert attention.localisation["chance"] == pytest.approx(20.9)
    curves = {(c.row, c.seed, c.name): c for c in contents.curves}
    assert curves["R50+ACt", 1, "train/loss_a/t"].values == tuple(
        values["train/loss_a/t"] for epoch, values in sorted(of_row[1].history().items()) if epoch < 3
    )
    assert {c.name.split("/")[0] for c in contents.curves} == {"train", "val"}
    assert contents.differences["R50"] == ()
    assert "transform: none -> t" in contents.differences["R50+ACt"]
    assert not any("views" in word for words in contents.differences.values() for word in words)


def test_rows_that_differ_in_lambda_alone_make_a_series(tmp_path: Path) -> None:
    of_f = [Kind("R50", "f", value) for value in (3.0, 0.0, 0.3, 1.0)]
    contents = gather(write_sweep(tmp_path, [*of_f, Kind("R50", "none"), Kind("R101", "f")]), resamples=0)
    (series,) = contents.lambdas
    assert (series.name, series.lambdas) == ("R50+ACf", (0.0, 0.3, 1.0, 3.0))
    assert series.mAP[2] == _row(contents.rows, "R50+ACf").metrics["best"]["mAP"]


def test_consistency_is_compared_with_augmentation_and_with_no_transform_and_seeds_both_have(tmp_path: Path) -> None:
    wanted = [Kind("R50", "none"), Kind("R50", "f", 0.0), Kind("R50", "f"), Kind("R50", "t"), Kind("R101", "none")]
    runs = write_sweep(tmp_path, wanted, seeds=3, samples=300)
    shutil.rmtree(tmp_path / "R50+f" / "seed=1")
    contents = gather(find_runs([tmp_path]), resamples=200)
    made = {(each.row, each.baseline): each for each in contents.comparisons}
    assert set(made) == {("R50+ACf", "R50+f"), ("R50+ACf", "R50"), ("R50+ACt", "R50")}
    assert made["R50+ACf", "R50+f"].seeds == (0, 2) and made["R50+ACf", "R50"].seeds == (0, 1, 2)
    values = {run.path: run.results()["metrics"]["best"]["test"]["mAP"] for run in runs if run.finished}
    differences = [
        values[tmp_path / "R50+ACf" / f"seed={s}"] - values[tmp_path / "R50+f" / f"seed={s}"] for s in (0, 2)
    ]
    found = made["R50+ACf", "R50+f"]
    assert found.difference == pytest.approx(np.mean(differences))
    assert found.seeds_better == sum(each > 0 for each in differences)
    assert found.low < found.difference < found.high
    assert any("different numbers of seeds" in note for note in contents.notes)


def test_rows_tested_on_different_samples_are_not_compared(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", Kind("R50", "f", 1.0), targets=split(200, len(LABELS))),
        write_run(tmp_path / "b", Kind("R50", "f", 0.0), targets=split(200, len(LABELS), seed=1)),
    ]
    contents = gather(runs, resamples=100)
    assert contents.comparisons == ()
    assert "Not compared: R50+ACf with R50+f (tested on different samples)." in contents.notes


def test_samples_in_another_order_are_the_same_samples(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, [Kind("R50", "f"), Kind("R50", "f", 0.0)], seeds=1)
    before = gather(runs, resamples=100).comparisons
    arrays = runs[0].predictions()
    order = np.random.default_rng(0).permutation(len(arrays["index"]))
    runs[0].write_predictions(**{name: values[order] for name, values in arrays.items()})
    assert gather(runs, resamples=100).comparisons == before


def test_unfinished_runs_are_missing_rows_with_curves(tmp_path: Path) -> None:
    write_sweep(tmp_path / "table1", [Kind("R50", "f")], experiment="table1", seeds=1)
    write_run(tmp_path / "table1" / "R50+ACs" / "seed=2", Kind("R50", "s"), finished=False)
    contents = gather(find_runs([tmp_path]), unfinished=find_unfinished([tmp_path]), resamples=0)
    assert _row(contents.rows, "R50+ACs").state == "missing"
    assert ("R50+ACs", 2) in {(curve.row, curve.seed) for curve in contents.curves}
    assert "Not finished yet, and not in the table: 1 runs, of R50+ACs." in contents.notes


def test_curves_of_unfinished_runs_are_of_the_row_that_the_table_names(tmp_path: Path) -> None:
    write_sweep(tmp_path / "table4", [Kind("R101", "none")], experiment="table4", row="ResNet101star", seeds=1)
    (tmp_path / "table4" / "R101").rename(tmp_path / "table4" / "ResNet101star")
    for place in ("table4/ResNet101star/seed=1", "mine/R50/seed=0"):
        write_run(tmp_path / place, Kind("R101", "none"), finished=False)
    contents = gather(find_runs([tmp_path]), "table4", unfinished=find_unfinished([tmp_path]), resamples=0)
    assert {curve.row for curve in contents.curves} == {"ResNet101*", "R50 (mine)"}
    assert {curve.row for curve in contents.curves} <= {row.name for row in contents.rows}


def test_words_that_a_row_without_a_transform_has_no_use_for_are_no_difference(tmp_path: Path) -> None:
    contents = gather(write_sweep(tmp_path, [Kind("R50", "none"), Kind("R50", "f")], seeds=1), resamples=0)
    assert contents.differences["R50+ACf"] == ("lambda: (not set) -> 1.0", "transform: none -> f")


def test_runs_that_make_no_table_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", seed=0)
    with pytest.raises(ValueError, match="two runs of one seed"):
        gather([one, write_run(tmp_path / "b", seed=0)])
    with pytest.raises(ValueError, match="differ by more than the seed"):
        gather([one, write_run(tmp_path / "c", seed=1, difficulty=0.9)])
    with pytest.raises(ValueError, match=r"different protocols \(srn, vac\)"):
        gather([one, write_run(tmp_path / "d", Kind("R18"), protocol="srn")])
    assert {row.name for row in gather([one, write_run(tmp_path / "e", experiment="x")]).rows} == {
        "R50+ACf (sweep)",
        "R50+ACf (x)",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results.json", "{"),
        ("results.json", "[]"),
        ("results.json", '{"row": "a"}'),
        ("attention.json", "[]"),
        ("attention.json", "{"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str) -> None:
    run = write_run(tmp_path / "run")
    (run.path / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(run.path / name)) + " is damaged"):
        gather([run])


def test_a_run_without_what_later_versions_write_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", attention=False)
    results = run.results()
    for name in ("labels", "versions", "device", "train_seconds", "images_per_s", "peak_device_memory_bytes"):
        del results[name]
    run.write_results(results)
    (run.path / "metrics.csv").unlink()
    contents = gather([Run(run.path)])
    assert (contents.labels, contents.curves, contents.attention) == ((), (), ())
    assert contents.costs[0].device_hours == 0
