"""Heatmap quality: exact on heatmaps made by hand, and on networks that follow a transform by construction."""

import numpy as np
import pytest
import torch
from test_task import LABELS, LARGE, RANDOM, RATIO, SMALL, WEIGHTS, Noise
from torch import nn

from vac_lightning.attention import AttentionQuality, energy_inside, pointing_game, squared_differences
from vac_lightning.networks.backbones import Backbone
from vac_lightning.networks.cam import CAMNetwork
from vac_lightning.task import VACTask
from vac_lightning.views import Views

EVERYWHERE = torch.ones(4, 4, dtype=torch.bool)


def heatmaps(seed: int, side: int = 4) -> torch.Tensor:
    return torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def relative(a: torch.Tensor, b: torch.Tensor, visible: torch.Tensor = EVERYWHERE) -> float:
    moved, spread = squared_differences(a, b, visible)
    return moved / spread


def test_the_relative_error_knows_equal_unrelated_and_opposite_patterns() -> None:
    a = heatmaps(0)
    assert relative(a, a + 3) == pytest.approx(0, abs=1e-12)  # an offset is no pattern
    assert relative(a, -a) == pytest.approx(2)
    many = [relative(heatmaps(2 * seed), heatmaps(2 * seed + 1)) for seed in range(20)]
    assert np.mean(many) == pytest.approx(1, abs=0.05)
    assert relative(5 * a, 5 * heatmaps(1)) == pytest.approx(relative(a, heatmaps(1)))  # nor is the scale


def test_what_is_out_of_sight_does_not_count() -> None:
    a, b = heatmaps(0), heatmaps(0)
    b[..., 0] = 100
    visible = EVERYWHERE.clone()
    visible[:, 0] = False
    assert relative(a, b, visible) == pytest.approx(0, abs=1e-12)
    assert relative(a, b) > 0.5


def test_two_grids_are_compared_on_their_common_one() -> None:
    coarse = heatmaps(0, side=2)
    fine = coarse.repeat_interleave(3, -1).repeat_interleave(3, -2)
    assert relative(coarse, fine, torch.ones(2, 2, dtype=torch.bool)) == pytest.approx(0, abs=1e-12)
    assert relative(fine, coarse.flip(-1), torch.ones(6, 6, dtype=torch.bool)) == pytest.approx(
        relative(coarse, coarse.flip(-1), torch.ones(2, 2, dtype=torch.bool))
    )


def test_cells_in_sight_count_as_on_the_common_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 3, side, side, generator=generator) for side in (4, 3))
    visible = torch.rand(4, 4, generator=generator) > 0.3
    fine_a, fine_b = (
        x.repeat_interleave(12 // x.shape[-1], -1).repeat_interleave(12 // x.shape[-1], -2) for x in (a, b)
    )
    seen = visible.repeat_interleave(3, -1).repeat_interleave(3, -2)
    assert squared_differences(a, b, visible) == pytest.approx(squared_differences(fine_a, fine_b, seen), rel=1e-12)


def test_pointing_and_energy_on_heatmaps_made_by_hand() -> None:
    masks = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    masks[:, :, :2, :2] = True
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 1, 1], maps[0, 0, 3, 3] = 3, 1  # highest inside, a quarter of the energy outside
    maps[0, 1, 0, 0], maps[0, 1, 2, 2], maps[0, 1, 3, 0] = 1, 2, -50  # highest outside; what is negative is none
    assert pointing_game(maps, masks).tolist() == [[True, False]]
    assert energy_inside(maps, masks)[0].tolist() == pytest.approx([0.75, 1 / 3])
    assert energy_inside(-maps.abs(), masks).tolist() == [[0, 0]]


class Masked(Noise):
    """Noise with the left half of every image for a mask."""

    def masks(self, index: int) -> torch.Tensor:
        masks = torch.zeros(len(LABELS), LARGE, LARGE, dtype=torch.bool)
        masks[..., : LARGE // 2] = True
        return masks


def task(pattern: torch.Tensor) -> VACTask:
    """A network whose features are one strided convolution: its kernel's symmetry is what it follows."""
    convolution = nn.Conv2d(3, 4, 8, stride=8, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(pattern.expand_as(convolution.weight))
    network = CAMNetwork(Backbone(convolution, channels=4), len(LABELS))
    return VACTask(network, Views("f", LARGE, (SMALL,), RANDOM, WEIGHTS), LABELS, RATIO)


def test_a_network_that_follows_the_mirror_by_construction_has_no_error() -> None:
    quality = AttentionQuality(samples=6, size=LARGE, small_sizes=(SMALL,), letters=RANDOM, batch_size=4)
    kernel = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mirrored = quality.measure(task(kernel + kernel.flip(-1)), Masked("test", (LARGE,)))
    found = mirrored["consistency"]
    assert set(found) == {"t", "r", "f", "s"}
    assert found["f"]["relative"] < 1e-10 and found["f"]["mse"] < 1e-10
    assert found["t"]["relative"] < 1e-10  # whole cells, and no padding
    assert found["r"]["relative"] > 0.1
    lopsided = quality.measure(task(kernel), Masked("test", (LARGE,)))["consistency"]
    assert lopsided["f"]["relative"] > 0.1
    assert mirrored["localisation"]["chance"] == 50
    assert 0 < mirrored["localisation"]["energy inside"] < 100
    assert quality.measure(task(kernel), Noise("test", (LARGE,)))["localisation"] is None


def test_measuring_is_repeatable_and_leaves_no_trace() -> None:
    quality = AttentionQuality(samples=500, size=LARGE, small_sizes=(SMALL,), letters=RANDOM)
    measured = task(torch.randn(1, 3, 8, 8)).train()
    state = torch.get_rng_state()
    first = quality.measure(measured, Masked("test", (LARGE,)))
    assert torch.equal(torch.get_rng_state(), state)
    assert measured.network.training
    assert quality.measure(measured, Masked("test", (LARGE,))) == first


@pytest.mark.parametrize("at_once", [1, 3])
def test_labels_in_chunks_are_all_labels(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 7, side, side, generator=generator) for side in (4, 3))
    visible = torch.rand(4, 4, generator=generator) > 0.3
    whole = squared_differences(a, b, visible)
    monkeypatch.setattr("vac_lightning.views.MAX_ELEMENTS", at_once * 2 * 2 * 36)
    assert squared_differences(a, b, visible) == pytest.approx(whole, rel=1e-12)
