"""`vac train`: the run folder, sweeps, several processes, W&B, and a second run over the first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import SMOKE, Outcome, Vac
from omegaconf import OmegaConf

from vac_lightning.commands import train as command
from vac_lightning.commands.finished import plain_words
from vac_lightning.metrics import SUMMARY, evaluate
from vac_lightning.runs import Run, find_runs

Smoke = Callable[..., Outcome]


def test_a_run_leaves_one_self_describing_folder(smoke: Smoke, tmp_path: Path) -> None:
    outcome = smoke("transform=fs")
    assert outcome.code == 0, outcome.err
    run = Run(tmp_path / "runs" / "shapes" / "Tiny+ACfs" / "seed=0")
    results = run.results()
    assert results["row"] == "Tiny+ACfs"
    assert results["labels"][:2] == ["circle", "square"]
    assert set(results["data_fingerprint"]) == {"train", "val", "test"}
    assert torch.__version__.startswith(results["versions"]["torch"])
    assert {"config_hash", "device", "train_seconds", "images_per_s", "seed", "lambda"} <= set(results)
    for epoch in ("last", "best"):
        assert set(SUMMARY) <= set(results["metrics"][epoch]["test"])
        assert results["metrics"][epoch]["val"]["mAP"] == run.history()[results["metrics"][epoch]["epoch"]]["val/mAP"]
    best = max(run.history(), key=lambda epoch: run.history()[epoch].get("val/mAP", -1.0))
    assert results["metrics"]["best"]["epoch"] == best
    assert results["metrics"]["last"]["epoch"] == 1
    assert results["metrics"]["best"]["chosen_on"] == "val/mAP of split 'val'"
    predictions = run.predictions()
    assert predictions["index"].tolist() == list(range(12))
    again = evaluate(predictions["logits"], predictions["targets"])
    assert again["mAP"] == pytest.approx(results["metrics"]["best"]["test"]["mAP"], abs=1e-4)
    logged = set().union(*run.history().values())
    assert {"train/loss", "train/loss_c", "train/loss_a", "train/images_per_s", "val/mAP", "test/AP/star"} <= logged
    assert {"train/loss_a/f_large", "train/loss_a/f_small", "train/loss_a/s"} <= logged
    assert any(name.startswith("lr-") for name in logged)
    assert OmegaConf.load(run.path / ".hydra" / "overrides.yaml")[-1] == "transform=fs"
    assert (run.path / "train.log").stat().st_size > 0
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert (run.heatmaps / "epoch=001.png").read_bytes().startswith(b"\x89PNG")
    with np.load(run.heatmaps / "test.npz", allow_pickle=False) as arrays:
        assert arrays["heatmaps_original"].shape[1:] == (17, 8, 8)
        assert arrays["heatmaps_scaled"].shape[1:] == (17, 6, 6)
    attention = run.attention()
    assert attention is not None and attention["samples"] == 8
    assert set(attention["before"]) == set(attention["after"]) == {"t", "r", "f", "s"}
    assert attention["before"] != attention["after"]
    assert 0 < attention["localisation"]["chance"] < 50


@pytest.mark.slow
def test_results_come_last_so_a_run_that_breaks_has_none(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Run, *arrays: np.ndarray) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Run, "write_predictions", full)
    outcome = smoke("transform=none")
    assert outcome.code == 1
    assert "No space left" in outcome.err
    run = Run(tmp_path / "runs" / "shapes" / "Tiny" / "seed=0")
    assert not run.finished
    assert (run.checkpoints / "last.ckpt").is_file()


@pytest.mark.slow
def test_where_data_and_what_is_kept_lie_is_the_same_from_any_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"root": "photos", "table": None, "cache_dir": "kept", "merge": "stack"}
    placed = plain_words(OmegaConf.create({"data": given}))[0].data
    assert placed == {**given, "root": str(tmp_path / "photos"), "cache_dir": str(tmp_path / "kept")}
    table = {"root": None, "table": "mine/labels.csv", "cache_dir": None}
    placed = plain_words(OmegaConf.create({"data": table}))[0].data
    assert placed == {"root": str(tmp_path / "mine"), "table": "labels.csv", "cache_dir": None}


@pytest.mark.slow
def test_a_finished_run_is_kept_and_another_configuration_is_refused(smoke: Smoke, tmp_path: Path) -> None:
    smoke("transform=none")
    path = tmp_path / "runs" / "shapes" / "Tiny" / "seed=0" / "results.json"
    before = path.read_bytes()
    assert smoke("transform=none", "num_workers=1").code == 0
    assert path.read_bytes() == before
    refused = smoke("transform=none", "optimizer.lr=0.5")
    assert refused.code == 2
    assert "optimizer.lr: 0.001 -> 0.5" in refused.err
    assert "experiment=NAME" in refused.err
    assert path.read_bytes() == before
    results = json.loads(before)
    results["data_fingerprint"]["train"] = "of other scenes"
    path.write_text(json.dumps(results))
    changed = smoke("transform=none")
    assert changed.code == 2
    assert "other data (train: of other scenes -> " in changed.err
    path.write_bytes(before)
    assert OmegaConf.load(path.parent / ".hydra" / "config.yaml").optimizer.lr == 0.001
    assert smoke("transform=none", "optimizer.lr=0.5", "overwrite=true").code == 0
    assert json.loads(path.read_text())["config"]["optimizer"]["lr"] == 0.5
    assert (path.parent / "abandoned-1" / "results.abandoned.json").read_bytes() == before


@pytest.mark.slow
def test_a_finished_run_is_not_set_aside_for_words_that_cannot_be_used(smoke: Smoke, tmp_path: Path) -> None:
    smoke("transform=none")
    run = find_runs([tmp_path / "runs"])[0].path
    before = (run / ".hydra" / "config.yaml").read_bytes()
    for words in ("data.difficulty=3", "data.difficulty=abc", "drop_last=true batch_size=99"):
        outcome = smoke("transform=none", "overwrite=true", *words.split())
        assert outcome.code == 2
        assert len(outcome.err.strip().splitlines()) == 1
        assert (run / "results.json").is_file()
        assert (run / ".hydra" / "config.yaml").read_bytes() == before


@pytest.mark.slow
def test_the_last_checkpoint_is_the_last_epoch_validated_or_not(smoke: Smoke, tmp_path: Path) -> None:
    assert smoke("transform=none", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2").code == 0
    metrics = find_runs([tmp_path / "runs"])[0].results()["metrics"]
    assert metrics["last"]["epoch"] == 2
    assert metrics["best"]["epoch"] == 1


@pytest.mark.slow
def test_without_a_transform_lambda_makes_no_other_run(smoke: Smoke, tmp_path: Path) -> None:
    assert smoke("-m", "transform=none", "lambda=0,1", "trainer.max_epochs=1").code == 0
    assert len(find_runs([tmp_path / "runs"])) == 1


@pytest.mark.slow
def test_the_clean_protocol_says_what_its_epoch_was_chosen_on(vac: Vac, tmp_path: Path) -> None:
    root = tmp_path / "coco"
    for split, count in (("train2014", 20), ("val2014", 4)):
        (root / split).mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(root / split / f"{i}.png"), np.full((20, 30, 3), 10 * i, np.uint8))
        content = {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in range(count)],
            "annotations": [{"image_id": i, "category_id": i % 2} for i in range(count)],
            "categories": [{"id": i, "name": f"c{i}"} for i in range(2)],
        }
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    words = [word for word in SMOKE if "scenes" not in word]
    given = ["data=coco_clean", f"data.root={root}", "data.holdout=0.25", *words, "backbone=tiny", "batch_size=4"]
    outcome = vac("train", *given, f"runs_dir={tmp_path / 'runs'}", "transform=none", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    (run,) = find_runs([tmp_path / "runs"])
    assert run.path.relative_to(tmp_path / "runs").parts[0] == run.results()["experiment"] == "coco_clean"
    assert run.results()["metrics"]["best"]["chosen_on"] == "val/mAP of split 'holdout'"
    for split, samples in (("train", 15), ("val", 5), ("test", 4)):
        assert f"{samples} samples" in vac("evaluate", f"run={run.path}", f"split={split}").out


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(smoke: Smoke, tmp_path: Path) -> None:
    for words in (("seed=0",), ("seed=0", "experiment=again"), ("seed=1",)):
        assert smoke("transform=tr", *words).code == 0
    results = {(r.path.parts[-3], r.path.name): r.results()["metrics"] for r in find_runs([tmp_path / "runs"])}
    assert results["shapes", "seed=0"] == results["again", "seed=0"]
    assert results["shapes", "seed=0"] != results["shapes", "seed=1"]


@pytest.mark.slow
def test_a_sweep_trains_every_row_and_goes_on_after_one_that_fails(smoke: Smoke, tmp_path: Path) -> None:
    # 24 samples do not fill a batch of 32 where short batches are dropped: those jobs cannot start.
    outcome = smoke("-m", "transform=none,f", "lambda=0,1", "drop_last=true", "batch_size=8,32", "trainer.max_epochs=1")
    assert outcome.code == 2
    assert outcome.err.count("batch_size=32 is larger than the train split (24 samples)") == 4
    rows = {run.results()["row"] for run in find_runs([tmp_path / "runs"])}
    assert rows == {f"{row}_batch_size=8" for row in ("Tiny", "Tiny+f", "Tiny+ACf")}
    assert (tmp_path / "runs" / "shapes" / "multirun.yaml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["paper_wider", "paper_coco", "modern", "shapes"])
def test_every_recipe_trains(smoke: Smoke, tmp_path: Path, recipe: str) -> None:
    sizes = ("image_size=64", "small_sizes=[48]", "batch_size=8", "trainer.max_epochs=2")
    outcome = smoke(f"recipe={recipe}", "transform=fs", *sizes)
    assert outcome.code == 0, outcome.err
    (run,) = find_runs([tmp_path / "runs"])
    assert run.results()["metrics"]["last"]["epoch"] == 1
    rates = [epoch[name] for epoch in run.history().values() for name in epoch if name.startswith("lr-")]
    assert len(rates) == 2
    assert rates[0] != rates[1] or recipe.startswith("paper")


@pytest.mark.slow
def test_a_moving_average_is_what_is_tested_and_saved(smoke: Smoke, tmp_path: Path) -> None:
    """With a decay of 1 the average stays at the weights of the first step, however long training goes on."""
    ema = "{_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 1.0}"
    for epochs in (1, 2):
        words = ("scheduler=constant", f"trainer.max_epochs={epochs}", f"experiment={epochs}", "transform=none")
        assert smoke(f"+callbacks.ema={ema}", *words).code == 0
    runs = find_runs([tmp_path / "runs"])
    one, two = (torch.load(run.checkpoints / "last.ckpt", weights_only=True) for run in runs)
    name = "network.classifier.weight"
    assert torch.equal(one["state_dict"][name], two["state_dict"][name])
    assert not torch.equal(one["current_model_state"][name], two["current_model_state"][name])
    assert len({run.results()["metrics"]["last"]["test"]["mAP"] for run in runs}) == 1


@pytest.mark.slow
def test_tensorboard_by_choice(smoke: Smoke, tmp_path: Path) -> None:
    assert smoke("logger=tensorboard", "transform=none").code == 0
    assert list(tmp_path.rglob("tensorboard/events.out.tfevents.*"))


@pytest.mark.slow
def test_experiment_files_are_rows(smoke: Smoke, tmp_path: Path) -> None:
    assert smoke("-m", "+demo=glob(*)", "trainer.max_epochs=1").code == 0
    rows = {run.path.parent.name for run in find_runs([tmp_path / "runs" / "demo"])}
    assert rows == {"Tiny", "Tiny+f", "Tiny+ACf_lambda=0.3"}


@pytest.mark.slow
def test_wandb_goes_offline_without_asking_where_nobody_is_logged_in(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: PTH123, SIM115
    outcome = smoke("logger=wandb", "transform=f", "callbacks.heatmaps.every_n_epochs=1")
    assert outcome.code == 0, outcome.err
    run = tmp_path / "runs" / "shapes" / "Tiny+ACf" / "seed=0"
    (offline,) = (run / "wandb").glob("offline-run-*")
    assert list(offline.glob("run-*.wandb"))
    assert len(list(offline.rglob("heatmaps*.png"))) == 2
    stored = _stored(next(offline.glob("run-*.wandb")))
    told = next(record["run"] for record in stored if record["type"] == "run")
    assert (told["run_group"], told["job_type"]) == ("shapes/Tiny+ACf", "shapes")
    config = told["config"]["update"]
    words = ("row", "seed", "lambda", "transform", "backbone_name", "experiment")
    assert [config[word] for word in words] == ["Tiny+ACf", 0, 1, "f", "Tiny", "shapes"]
    rows = [record["history"]["item"] for record in stored if record["type"] == "history"]
    panels = [row for row in rows if "val/heatmaps.filenames" in row]
    assert [row["val/heatmaps.captions"] for row in panels] == [["epoch 0"], ["epoch 1"]]
    assert [row["trainer/global_step"] for row in panels] == [3, 6]
    assert panels[0]["_step"] < panels[1]["_step"]
    summary = {name: value for record in stored for name, value in record.get("summary", {}).get("update", {}).items()}
    results = Run(run).results()["metrics"]
    for name in ("best", "last"):
        assert summary[f"{name}/test/mAP"] == pytest.approx(results[name]["test"]["mAP"])
        assert summary[f"{name}/epoch"] == results[name]["epoch"]
    assert summary["best/chosen_on"] == results["best"]["chosen_on"]
    validated = [row["val/mAP"] for row in rows if "val/mAP" in row]
    assert summary["val/mAP"] == {"max": max(validated), "last": validated[-1]}
    (table,) = offline.rglob("AP_by_label*.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["label", "positives", "AP, best epoch", "AP, last epoch"]
    assert {row[0]: row[2] for row in content["data"]} == {
        label: pytest.approx(results["best"]["test"][f"AP/{label}"]) for label in Run(run).results()["labels"]
    }


def _stored(file: Path) -> list[dict[str, Any]]:
    """The records of a .wandb file, as W&B's own reader gives them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.slow
def test_wandb_that_cannot_be_reached_does_not_stop_a_run(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert smoke("logger=wandb", "transform=none").code == 0
    assert list((tmp_path / "runs" / "shapes" / "Tiny" / "seed=0" / "wandb").glob("offline-run-*"))


def test_a_child_process_reads_the_composed_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "transform=f,r"])
    monkeypatch.setenv("KEPT", "1")
    with command._own_process_arguments(Run(tmp_path)):
        assert sys.argv[:5] == [command.__file__, "--config-dir", str(tmp_path / ".hydra"), "--config-name", "config"]
        monkeypatch.setenv("MASTER_PORT", "1234")
    assert sys.argv == ["train.py", "-m", "transform=f,r"]
    assert "MASTER_PORT" not in os.environ
    assert os.environ["KEPT"] == "1"
