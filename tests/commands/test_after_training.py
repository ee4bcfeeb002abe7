"""`vac evaluate`, `vac predict` and `vac report` on trained runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SMOKE, Outcome, Vac
from hydra.core.global_hydra import GlobalHydra

from vac_lightning import cli
from vac_lightning.commands import assembly, predict
from vac_lightning.data.images.decoding import decode
from vac_lightning.data.reading import squashed
from vac_lightning.metrics import PROTOCOLS, SUMMARY, evaluate
from vac_lightning.runs import Run, find_runs

GPU = torch.cuda.is_available() or torch.backends.mps.is_available()

pytestmark = pytest.mark.slow  # all of them look at runs that were trained


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


def test_evaluate_takes_the_mean_over_test_views(vac: Vac, trained: Path, tmp_path: Path) -> None:
    run = _run(trained)
    config = assembly.run_config(run)
    (small,) = config.small_sizes
    outcome = vac("evaluate", str(run.path), "test_views=fs", f"out={tmp_path}", "batch_size=5")
    assert outcome.code == 0, outcome.err
    assert "best epoch, test split, mean over the views fs, 12 samples" in outcome.out
    task = assembly.load_task(run, config).eval()
    split = assembly.datamodule(config, [config.image_size], "cpu", 1).split("test")
    large = task.normalise(torch.stack([split[i].images[0] for i in range(12)]))
    shown = [large, torch.nn.functional.interpolate(large, (small, small), mode="bilinear", antialias=True)]
    with torch.inference_mode():
        logits = [task.network(x).logits for images in shown for x in (images, images.flip(-1))]
    kept = Run(tmp_path).predictions()
    np.testing.assert_allclose(kept["logits"], torch.stack(logits).mean(0), atol=1e-4)
    assert np.abs(kept["logits"] - run.predictions()["logits"]).max() > 1e-3
    values = evaluate(kept["logits"], kept["targets"])
    assert _row(outcome, "vac") == _cells(values)


def test_evaluate_without_test_views_has_the_logits_of_the_run_to_the_last_bit(
    vac: Vac, trained: Path, tmp_path: Path
) -> None:
    run = _run(trained)
    outcome = vac("evaluate", str(run.path), "test_views=none", f"out={tmp_path}", "accelerator=cpu")
    assert outcome.code == 0, outcome.err
    assert "views" not in outcome.out
    np.testing.assert_array_equal(Run(tmp_path).predictions()["logits"], run.predictions()["logits"])


@pytest.mark.parametrize("word", ["x", "ff", "fx"])
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_views_of_unknown_letters_get_one_line(vac: Vac, trained: Path, photo: Path, command: str, word: str) -> None:
    words = [str(photo)] if command == "predict" else []
    outcome = vac(command, *words, f"run={_run(trained).path}", f"test_views={word}")
    assert outcome.code == 2
    assert outcome.err.strip() == (
        f"vac {command}: test_views={word}: expected none, or distinct letters out of f, r, s, t, such as f or fs"
    )


@pytest.mark.parametrize("word", ["abacus", pytest.param("gpu", marks=pytest.mark.skipif(GPU, reason="has a GPU"))])
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_device_that_is_not_there_gets_one_line(
    vac: Vac, trained: Path, photo: Path, command: str, word: str
) -> None:
    words = [str(photo)] if command == "predict" else []
    outcome = vac(command, *words, f"run={_run(trained).path}", f"accelerator={word}")
    assert outcome.code == 2
    assert outcome.err.startswith(f"vac {command}: accelerator={word}: ")
    assert len(outcome.err.strip().splitlines()) == 1


def _row(outcome: Outcome, protocol: str) -> list[str]:
    """The cells of a protocol's row in the printed table."""
    (line,) = [line for line in outcome.out.splitlines() if re.match(rf"\W+{protocol}\W", line)]
    return [cell.strip() for cell in line.strip("│|\n ").split("│")][1:]


def _cells(values: dict[str, float]) -> list[str]:
    return [f"{values[name]:.1f}" for name in SUMMARY]


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("source", ["run", "predictions"])
def test_evaluate_tabulates_all_protocols(vac: Vac, trained: Path, source: str, top_k: int | None) -> None:
    run = _run(trained)
    path = run.path if source == "run" else run.path / "predictions.npz"
    outcome = vac("evaluate", str(path), "protocol=all", *([] if top_k is None else [f"top_k={top_k}"]))
    assert outcome.code == 0, outcome.err
    kept = run.predictions()
    for protocol in PROTOCOLS:
        values = evaluate(kept["logits"], kept["targets"], protocol, top_k)
        assert _row(outcome, protocol) == _cells(values)


def test_a_run_is_trained_and_evaluated_by_its_own_protocol(vac: Vac, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert vac("train", *SMOKE, f"run_dir={run.path}", "transform=none", "protocol=srn").code == 0
    arrays = run.predictions()
    values = evaluate(arrays["logits"], arrays["targets"], "srn")
    tested = run.results()["metrics"]["best"]["test"]
    assert {name: tested[name] for name in SUMMARY} == pytest.approx({name: values[name] for name in SUMMARY})
    assert values["mAP"] > evaluate(arrays["logits"], arrays["targets"], "vac")["mAP"]
    for path in (run.path, run.path / "predictions.npz"):
        assert _row(vac("evaluate", str(path)), "srn") == _cells(values)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph of noise."""
    path = tmp_path / "noise.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    return path


@pytest.fixture
def kept(trained: Path, tmp_path: Path) -> Run:
    """What is left of a run: results and predictions, neither checkpoint nor configuration nor data."""
    run = Run(tmp_path / "moved" / "seed=0")
    run.path.mkdir(parents=True)
    for name in ("results.json", "predictions.npz"):
        shutil.copy(_run(trained).path / name, run.path / name)
    return run


def test_predictions_are_evaluated_by_themselves(vac: Vac, kept: Run) -> None:
    arrays = kept.predictions()
    for words in (
        [f"predictions={kept.path / 'predictions.npz'}"],
        [f"predictions={kept.path}"],
        [str(kept.path / "predictions.npz")],
    ):
        outcome = vac("evaluate", *words, "protocol=srn")
        assert outcome.code == 0, outcome.err
        assert _row(outcome, "srn") == _cells(evaluate(arrays["logits"], arrays["targets"], "srn"))
        assert all(label in outcome.out for label in kept.results()["labels"])
    # Without the word, the protocol is the run's own.
    kept.write_results(kept.results() | {"config": {"protocol": "csra"}})
    assert _row(vac("evaluate", str(kept.path / "predictions.npz")), "csra")
    (kept.path / "results.json").unlink()
    outcome = vac("evaluate", str(kept.path / "predictions.npz"))
    assert _row(outcome, "vac")
    assert _row(outcome, "16")


def test_labels_without_positives_or_predictions_are_named(vac: Vac, kept: Run) -> None:
    arrays = kept.predictions()
    arrays["targets"][:, 2] = 0
    arrays["logits"] = np.abs(arrays["logits"]) + 0.1
    arrays["logits"][:, 5] = -1
    kept.write_predictions(**arrays)
    outcome = vac("evaluate", f"predictions={kept.path}", "protocol=all")
    assert outcome.code == 0
    assert outcome.err == ""
    labels = kept.results()["labels"]
    assert (
        f"no positive sample (no AP, no mA, recall left out in vac, 1 in srn, left out in csra): {labels[2]}\n"
        in outcome.out
    )
    assert f"never predicted (precision 0 in vac, 1 in srn, 0 in csra): {labels[5]}\n" in outcome.out
    outcome = vac("evaluate", f"predictions={kept.path}")
    assert _row(outcome, labels[2])[-1] == "n/a"
    assert _row(outcome, labels[5])[1] == "0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("predictions={path}/none.npz", "none.npz is missing"),
        ("{path}/none.npz", "none.npz is missing"),
        ("predictions={path}/results.json", "damaged or holds objects"),
        ("predictions={path}/train.log", "train.log is missing"),
        ("predictions={path} split=val", "split=val: "),
        ("predictions={path} checkpoint=last", "checkpoint=last: "),
        ("predictions={path} test_views=f", "test_views=f: "),
        ("predictions={path} top_k=18", "top_k=18: expected 1 to 17"),
        ("predictions={path} protocol=voc", "protocol=voc: expected vac, srn, csra"),
        ("predictions={path} run={path}", "one of the two"),
        ("{path}/predictions.npz {path}/predictions.npz", "expected one predictions.npz"),
        ("{path}", "not a run folder"),
        ("{path}/seed=7", "not a run folder"),
        ("{path}/a {path}/b", "expected one run folder"),
    ],
)
def test_predictions_that_cannot_be_used_get_one_line(vac: Vac, kept: Run, words: str, message: str) -> None:
    outcome = vac("evaluate", *(word.format(path=kept.path) for word in words.split()))
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("results", "message"),
    [("{", "is damaged"), ("[]", "is damaged"), ('{"labels": ["a"], "config": {"protocol": "vac"}}', "names 1 labels")],
)
def test_results_that_do_not_fit_the_predictions_get_one_line(vac: Vac, kept: Run, results: str, message: str) -> None:
    (kept.path / "results.json").write_text(results)
    outcome = vac("evaluate", f"predictions={kept.path}")
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_evaluating_predictions_starts_no_trainer(kept: Run) -> None:
    program = (
        "import sys; from vac_lightning.cli import main; sys.argv = ['vac', 'evaluate', sys.argv[1]];"
        "code = main(); sys.exit(code or 'pytorch_lightning' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(kept.path / "predictions.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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


def test_predict_takes_the_mean_over_test_views(vac: Vac, trained: Path, photo: Path, tmp_path: Path) -> None:
    run = _run(trained)
    words = (str(photo), f"run={run.path}", f"out={tmp_path / 'out'}", "top_k=1")
    scores = {}
    for views in ("none", "fs"):
        outcome = vac("predict", *words, f"test_views={views}")
        assert outcome.code == 0, outcome.err
        task = assembly.load_task(run, assembly.run_config(run), at_test=views).eval()
        with torch.inference_mode():
            image = squashed(decode(photo), task.views.size)
            scores[views] = float(task(image[None]).logits.sigmoid().max())
        assert f"{scores[views]:.3f}" in outcome.out
    assert scores["none"] != scores["fs"]


def test_predict_answers_one_by_one_and_goes_on_after_a_broken_one(
    vac: Vac, trained: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, last, out = tmp_path / "broken.png", tmp_path / "last.png", tmp_path / "out"
    broken.write_bytes(photo.read_bytes()[:500])
    shutil.copy(photo, last)
    before = {}
    pixels = predict.pixels

    def watched(files: list[Path], *more: object) -> np.ndarray:
        before[files[0].stem] = sorted(path.stem for path in out.glob("*.png"))
        return pixels(files, *more)

    monkeypatch.setattr(predict, "pixels", watched)
    outcome = vac("predict", str(photo), str(broken), str(last), f"run={_run(trained).path}", f"out={out}")
    assert outcome.code == 1
    assert len(outcome.err.strip().splitlines()) == 1
    assert outcome.err.startswith(f"vac predict: cannot read {broken} (")
    assert before == {"noise": [], "broken": ["noise"], "last": ["noise"]}
    assert (out / "last.png").is_file() and not (out / "broken.png").exists()
    assert outcome.out.count("overlays: ") == 2


def test_predict_looks_for_all_photographs_before_it_answers(
    vac: Vac, trained: Path, photo: Path, tmp_path: Path
) -> None:
    outcome = vac("predict", str(photo), str(tmp_path / "none.png"), f"run={_run(trained).path}", f"out={tmp_path}")
    assert outcome.code == 2
    assert outcome.out == ""
    assert "none.png: no such photograph" in outcome.err


def test_report_tabulates_means_over_seeds_and_draws_figure_5(vac: Vac, trained: Path, tmp_path: Path) -> None:
    outcome = vac("report", str(trained), f"out={tmp_path}")
    assert outcome.code == 0, outcome.err
    values = [run.results()["metrics"]["best"]["test"]["mAP"] for run in find_runs([trained / "shapes" / "Tiny+ACf"])]
    cell = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    text = (tmp_path / "report.md").read_text()
    assert cell in text
    assert cell in outcome.out
    assert "chosen on val/mAP of split 'val'" in text
    assert "| Tiny+f | 1 |" in text
    assert "| Tiny+ACf better than Tiny+f |" in text
    assert (
        f"Tiny+ACf,done,best,val/mAP of split 'val',mAP,{np.mean(values):.6g}" in (tmp_path / "report.csv").read_text()
    )
    assert cv2.imread(str(tmp_path / "figure5.png")).shape[1] > 900


def test_report_names_rows_and_labels_that_are_not_there(vac: Vac, trained: Path, tmp_path: Path) -> None:
    outcome = vac("report", str(trained), f"out={tmp_path}", "rows=[R50]")
    assert outcome.code == 2
    assert "Tiny+ACf, Tiny+f" in outcome.err
    outcome = vac("report", str(trained), f"out={tmp_path}", "table=table9")
    assert outcome.code == 2
    assert "table=table9: expected one of" in outcome.err and "shapes" in outcome.err
    outcome = vac("report", str(trained), f"out={tmp_path}", "labels=[unicorn]")
    assert outcome.code == 2
    assert "circle" in outcome.err
