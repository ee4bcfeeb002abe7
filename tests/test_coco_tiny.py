"""Real photographs: 160 of MS-COCO, where they lie beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Vac

from vac_lightning.metrics import evaluate
from vac_lightning.runs import Run

SPLITS = "data.splits={train: train2017, val: val2017, test: %s}"


@pytest.mark.slow
def test_training_overfits_80_photographs(vac: Vac, coco_tiny: Path, tmp_path: Path) -> None:
    outcome = vac(
        "train",
        "data=coco",
        f"data.root={coco_tiny}",
        SPLITS % "train2017",
        "data.cache=true",
        f"data.cache_dir={tmp_path / 'kept'}",
        "recipe=shapes",
        "backbone=tiny",
        "image_size=64",
        "transform=f",
        "lambda=0.1",
        "batch_size=16",
        "trainer.max_epochs=60",
        "trainer.check_val_every_n_epoch=60",
        "callbacks.heatmaps.every_n_epochs=0",
        "callbacks.progress=null",
        "trainer.enable_progress_bar=false",
        "logger=csv",
        f"run_dir={tmp_path / 'run'}",
    )
    assert outcome.code == 0, outcome.err
    run = Run(tmp_path / "run")
    assert len(run.results()["labels"]) == 80
    predictions = run.predictions()
    assert predictions["logits"].shape == (80, 80)
    assert (tmp_path / "kept" / "crops").is_dir()
    # "test" was pointed at the training photographs: this is the training mAP.
    assert evaluate(predictions["logits"], predictions["targets"])["mAP"] >= 95
