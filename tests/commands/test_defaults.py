"""Defaults that follow the device, and switches for speed: precision, loading, fused optimisers, torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
import torch._dynamo
from conftest import ROOT, Outcome
from omegaconf import OmegaConf
from torch import nn

from vac_lightning import hardware
from vac_lightning.commands import assembly
from vac_lightning.commands.targets import instantiate
from vac_lightning.networks.backbones import Backbone
from vac_lightning.networks.cam import CAMNetwork
from vac_lightning.report.results import read
from vac_lightning.runs import Run
from vac_lightning.task import VACTask
from vac_lightning.views import Views

Smoke = Callable[..., Outcome]


@pytest.mark.slow
def test_precision_left_to_the_device_is_recorded_and_stays(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another device would choose makes no other run of a finished one, nor of one to go on from."""
    words = ("transform=none", "trainer.precision=auto")
    run = Run(tmp_path / "runs" / "shapes" / "Tiny" / "seed=0")
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: True)
    assert smoke(*words).code == 0
    assert run.results()["precision"] == "bf16-mixed"
    assert OmegaConf.load(run.path / ".hydra" / "config.yaml").trainer.precision == "bf16-mixed"
    assert read(run).config["trainer"]["precision"] == "bf16-mixed"
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: False)
    again = smoke(*words)
    assert (again.code, "is finished already" in again.out + again.err) == (0, True)
    assert "trainer.precision: auto -> 32-true" in smoke("transform=none", "trainer.precision=32-true").err
    (run.path / "results.json").unlink()  # as if it had been killed before its end
    assert smoke(*words).code == 0
    assert run.results()["precision"] == "bf16-mixed"
    assert smoke(*words, "overwrite=true").code == 0
    assert run.results()["precision"] == "32-true"


@pytest.mark.parametrize(
    ("accelerator", "words", "expected"),
    [
        ("cuda", {}, (8, 2, True)),
        ("cpu", {}, (0, 2, False)),
        ("cpu", {"num_workers": 3, "prefetch_factor": 5, "pin_memory": True}, (3, 5, True)),
        ("cuda", {"num_workers": 0, "pin_memory": False}, (0, 2, False)),
    ],
)
def test_loading_follows_the_device_unless_told(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, words: dict[str, Any], expected: tuple[int, int, bool]
) -> None:
    monkeypatch.setattr(hardware, "processors", lambda: 64)
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("train", [f"{word}={value}" for word, value in words.items()])
    data = assembly.datamodule(config, [64], accelerator, 1)
    assert (data.num_workers, data.prefetch_factor, data.pin_memory) == expected


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_fused_optimiser_takes_the_steps_of_the_plain_one(optimizer: str) -> None:
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("train", [f"optimizer={optimizer}"])
    assert config.optimizer.fused is True
    weights = []
    for fused in (True, False):
        torch.manual_seed(0)
        layer = torch.nn.Linear(7, 5).double()
        steps = instantiate(config.optimizer, "optimizer", fused=fused)(layer.parameters())
        for _ in range(4):
            layer.zero_grad()
            layer(torch.randn(3, 7, dtype=torch.double)).square().sum().backward()
            steps.step()
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_compiled_once_for_all_batches_and_sizes() -> None:
    """No batch size or image size after the first makes a program of its own, and what comes out is the same."""
    counters = torch._dynamo.utils.counters["stats"]
    small = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
    plain = CAMNetwork(Backbone(small, 4), 5)
    compiled = deepcopy(plain)
    task = VACTask(compiled, Views("none", 16, [], {}, {}), list("abcde"), torch.full((5,), 0.5))
    assembly.compile_backbone(task)
    counters.clear()
    for network in (plain, compiled):
        network.to(memory_format=torch.channels_last)
    for batch, size in [(32, 16), (32, 12), (20, 16), (17, 12), (24, 20)]:
        images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
        for network in (plain, compiled):
            network.zero_grad()
            network(images).logits.square().sum().backward()
        torch.testing.assert_close(compiled.classifier.weight.grad, plain.classifier.weight.grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(small[0].weight.grad, compiled.backbone.layers[0].weight.grad, rtol=1e-4, atol=1e-3)
    assert counters["unique_graphs"] == 1
    for network in (plain, compiled):
        network.eval()
    with torch.no_grad():
        for batch, size in [(32, 16), (20, 16), (17, 12)]:
            images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(compiled(images).heatmaps, plain(images).heatmaps, rtol=1e-4, atol=1e-4)
            assert compiled(images, heatmaps=False).heatmaps is None
    assert counters["unique_graphs"] == 2


def test_without_a_compiler_it_is_said_before_training(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    outcome = smoke("compile=true")
    assert outcome.code == 2
    assert "compile=true: needs a C++ compiler, and there is no no-such-compiler" in outcome.err
