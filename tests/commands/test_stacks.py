"""Images of other than 3 channels through the commands: trained, evaluated, predicted, shown, and refused."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SMOKE, Outcome, Vac
from omegaconf import OmegaConf

from vac_lightning.commands import assembly, predict
from vac_lightning.metrics import SUMMARY
from vac_lightning.report.figures import rgb
from vac_lightning.runs import Run

MINE = '''
import zlib

import numpy as np
import torch
from torch import nn

from vac_lightning.data.base import Sample
from vac_lightning.networks.backbones import Backbone


class Stains:
    """Noise of so many channels; a label is a bright red, green or blue, whichever channel c mod 3 is."""

    def __init__(self, role, sizes, channels):
        rng = np.random.default_rng(zlib.crc32(role.encode()))
        self.targets = rng.integers(0, 2, (16, 3)).astype(np.int8)
        self.labels = ("red", "green", "blue")
        base = 40 + 120 * self.targets[:, np.arange(channels) % 3, None, None]
        self.images = [base + rng.integers(0, 90, (16, channels, size, size)) for size in sizes]

    def __len__(self):
        return 16

    def __getitem__(self, index):
        images = [torch.from_numpy(images[index].astype(np.uint8)) for images in self.images]
        return Sample(images, torch.from_numpy(self.targets[index]), index)

    def source(self, index):
        return str(index)


def stains(role, sizes, *, channels):
    return Stains(role, sizes, channels)


def plain(width, first=3):
    return Backbone(nn.Sequential(nn.Conv2d(first, width, 5, stride=8, padding=2), nn.ReLU()), channels=width)


def wide(width, in_channels):
    return plain(width, in_channels)
'''


@pytest.fixture
def train(vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`vac train` on stains of so many channels, into tmp_path/<channels>."""
    (tmp_path / "stained.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "stained", raising=False)
    monkeypatch.setenv("VAC_ALLOW", "stained")
    smoke = [word for word in SMOKE if "scenes" not in word]

    def run(channels: int, *more: str) -> Outcome:
        data = f"+data={{_target_: stained.stains, _partial_: true, channels: {channels}}}"
        return vac("train", "~data", data, *smoke, "backbone=tiny", f"run_dir={tmp_path / str(channels)}", *more)

    return run


def test_pictures_show_any_number_of_channels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    for channels in (3, 4):
        np.testing.assert_array_equal(rgb(pixels[..., :channels]), pixels[..., :3])
    assert (rgb(pixels[..., :1]) == pixels[..., :1]).all() and rgb(pixels[..., :1]).shape == (5, 6, 3)
    np.testing.assert_array_equal(rgb(pixels[..., :2])[..., :2], pixels[..., :2])
    assert not rgb(pixels[..., :2])[..., 2].any()


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 4])
def test_they_are_trained_evaluated_shown_and_predicted(train, vac: Vac, tmp_path: Path, channels: int) -> None:
    outcome = train(channels, "trainer.max_epochs=1", "transform=f")
    assert outcome.code == 0, outcome.err
    run = Run(tmp_path / str(channels))
    assert (run.heatmaps / "epoch=000.png").read_bytes().startswith(b"\x89PNG")
    with np.load(run.heatmaps / "test.npz") as arrays:
        assert arrays["images_original"].shape[1:] == (64, 64, 3)
    task = assembly.load_task(run, assembly.run_config(run))
    assert task.channels == channels == task.network.backbone.layers[0].weight.shape[1]

    outcome = vac("evaluate", str(run.path))
    assert outcome.code == 0, outcome.err
    tested = run.results()["metrics"]["best"]["test"]
    assert all(f"{tested[name]:.1f}" in outcome.out for name in SUMMARY if np.isfinite(tested[name]))

    files = [tmp_path / f"{c}.png" for c in range(channels)]
    rng = np.random.default_rng(0)
    layers = rng.integers(0, 256, (channels, 64, 64), dtype=np.uint8)
    for file, layer in zip(files, layers, strict=True):
        cv2.imwrite(str(file), layer)
    words = (f"run={run.path}", f"out={tmp_path / 'out'}", "top_k=1")
    outcome = vac("predict", ",".join(map(str, files)), *words)
    assert outcome.code == 0, outcome.err
    with torch.inference_mode():
        score = task.eval()(torch.from_numpy(layers)[None]).logits.sigmoid().max()
    assert f"{float(score):.3f}" in outcome.out
    assert cv2.imread(str(tmp_path / "out" / "0.png")) is not None
    outcome = vac("predict", *([",".join(map(str, files * 2))] if channels == 1 else map(str, files)), *words)
    assert outcome.code == 2
    assert f"images of {channels} channels: give {'one' if channels == 1 else 'the 4 files'}" in outcome.err

    config = (run.path / ".hydra" / "config.yaml").read_text()
    (run.path / ".hydra" / "config.yaml").write_text(config.replace(f"channels: {channels}", "channels: 3"))
    outcome = vac("evaluate", str(run.path))
    assert outcome.code == 2
    assert f"its images have {channels} channels, those of this data set 3\n" in outcome.err


@pytest.mark.slow
def test_a_network_of_ones_own_is_told_or_fits_or_is_refused(train, tmp_path: Path) -> None:
    def backbone(text: str) -> list[str]:
        return ["~backbone", f"+backbone={{_target_: stained.{text}}}", "+backbone_name=Mine", "transform=none"]

    outcome = train(4, *backbone("plain, width: 8"))
    assert outcome.code == 2
    assert "the images have 4 channels, which it does not take: give it an argument in_channels" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    for text in ("plain, width: 8, first: 4", "wide, width: 8"):
        outcome = train(4, *backbone(text), "overwrite=true", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
        assert outcome.code == 0, outcome.err


def test_files_are_merged_for_prediction_as_they_were_for_training(tmp_path: Path) -> None:
    files = [tmp_path / f"{c}.png" for c in range(4)]
    for c, file in enumerate(files):
        cv2.imwrite(str(file), np.full((2, 3), 20 * (c + 1), np.uint8))
    trained = OmegaConf.create({"data": {"paths": list("abcd"), "merge": "rgb"}})
    pixels = predict.pixels(files, 3, predict.merged_files(trained))
    assert pixels[0, 0].tolist() == [60, 80, 60]
    with pytest.raises(ValueError, match="or 4 files, joined by commas"):
        predict.pixels(files[:3], 3, predict.merged_files(trained))
    trained.data.merge = "stack"
    assert predict.merged_files(trained) is None
