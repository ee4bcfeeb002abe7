"""Augmentation through the commands: chosen by name in training, and left out of evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMOKE, Vac

from vac_lightning.commands import assembly
from vac_lightning.data.shapes import shapes
from vac_lightning.runs import Run


@pytest.mark.slow
def test_augmented_runs_train_and_are_evaluated_without(vac: Vac, tmp_path: Path) -> None:
    words = ("transform=none", "trainer.max_epochs=1", "trainer.limit_train_batches=null")
    for name in ("srn", "strong"):
        run = Run(tmp_path / name)
        outcome = vac("train", *SMOKE, *words, f"augmentation={name}", f"run_dir={run.path}")
        assert outcome.code == 0, outcome.err
        out = tmp_path / f"{name}-out"
        assert vac("evaluate", str(run.path), "split=train", f"out={out}").code == 0
        task = assembly.load_task(run, assembly.run_config(run)).eval()
        split = shapes("train", [64], scenes={"train": 24})
        with torch.inference_mode():
            logits = task(torch.stack([sample.images[0] for sample in split])).logits
        np.testing.assert_allclose(Run(out).predictions()["logits"], logits, atol=1e-4)
