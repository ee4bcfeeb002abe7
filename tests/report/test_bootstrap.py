"""The bootstrap over test samples against evaluating the samples that were drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vac_lightning.metrics import evaluate
from vac_lightning.report import bootstrap

pytestmark = pytest.mark.filterwarnings("ignore:left out of")


def _problem(seed: int, samples: int, labels: int, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = (generator.random((samples, labels)) < np.linspace(0.5, 0.03, labels)).astype(np.int8)
    logits = apart * targets + generator.normal(size=targets.shape)
    targets[generator.random(targets.shape) < 0.1] = -1
    return logits.astype(np.float32), targets


def _drawn(logits: np.ndarray, targets: np.ndarray, counts: torch.Tensor, protocol: str) -> list[float]:
    """The oracle: mAP of the samples drawn, each as often as it was."""
    return [
        evaluate(np.repeat(logits, times, 0), np.repeat(targets, times, 0), protocol)["mAP"]
        for times in counts.numpy().T
    ]


@pytest.mark.parametrize("protocol", ["vac", "srn", "csra"])
@pytest.mark.parametrize("ties", [False, True])
def test_scores_are_those_of_the_samples_drawn(protocol: str, ties: bool) -> None:
    logits, targets = _problem(0, 60, 5)
    logits = logits.round(1) if ties else logits
    targets[:, 4] = 0
    targets[7, 4] = 1  # one positive sample: left out of a third of the resamples
    counts = bootstrap.resamples(60, 40)
    assert (counts.sum(0) == 60).all()
    expected = _drawn(logits, targets, counts, protocol)
    assert bootstrap.scores(logits, targets, counts, protocol) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("protocol", ["vac", "srn"])
def test_merged_steps_change_scores_by_far_less_than_resamples_differ(protocol: str) -> None:
    logits, targets = _problem(1, 3000, 4, apart=1.5)
    counts = bootstrap.resamples(3000, 25)
    expected = np.array(_drawn(logits, targets, counts, protocol))
    merged = bootstrap.scores(logits, targets, counts, protocol, most_steps=128)
    assert np.abs(merged - expected).max() < 0.06 * expected.std()
    assert bootstrap.scores(logits, targets, counts, protocol, most_steps=3000) == pytest.approx(expected, abs=1e-3)


def test_labels_without_a_positive_sample_have_no_part() -> None:
    logits, targets = _problem(2, 50, 3)
    counts = bootstrap.resamples(50, 20)
    before = bootstrap.scores(logits, targets, counts)
    empty = np.zeros((50, 1), np.int8)
    after = bootstrap.scores(np.hstack([logits, logits[:, :1]]), np.hstack([targets, empty]), counts)
    assert after == pytest.approx(before)
    assert np.isnan(bootstrap.scores(logits[:, :1], empty, counts)).all()


@pytest.mark.slow
def test_p_values_of_equally_good_models_are_about_uniform() -> None:
    """Two noisy views of one truth, 150 times: p below 0.1 a tenth of the time, and below 0.5 half of it."""
    p_values = []
    for trial in range(150):
        generator = np.random.default_rng(trial)
        targets = (generator.random((200, 2)) < 0.4).astype(np.int8)
        counts = bootstrap.resamples(200, 200, seed=trial)
        a, b = (
            bootstrap.scores(targets + generator.normal(size=targets.shape), targets, counts, most_steps=64)
            for _ in range(2)
        )
        p_values.append(bootstrap.compare([a], [b]).p_value)
    shares = [np.mean(np.array(p_values) < bound) for bound in (0.1, 0.5, 0.9)]
    assert shares == pytest.approx([0.1, 0.5, 0.9], abs=0.1)


def test_a_better_model_has_a_small_p_and_a_worse_one_a_large_one() -> None:
    targets = _problem(3, 400, 4)[1]
    good, poor = (apart * (targets == 1) + _problem(4, 400, 4, 0.0)[0] for apart in (1.5, 1.0))
    counts = bootstrap.resamples(400, 300)
    better, worse = bootstrap.scores(good, targets, counts), bootstrap.scores(poor, targets, counts)
    found = bootstrap.compare([better, better], [worse, worse])
    assert found.p_value == pytest.approx(1 / 301)
    assert 0 < found.low < evaluate(good, targets)["mAP"] - evaluate(poor, targets)["mAP"] < found.high
    assert bootstrap.compare([worse], [better]).p_value == 1.0
    assert bootstrap.compare([worse], [worse]).p_value == pytest.approx(0.5, abs=0.01)
