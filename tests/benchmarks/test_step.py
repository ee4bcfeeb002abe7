"""The step that is measured: the rival does the same work, and takes its turns with the real Trainer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from step import Case, Literal, _config
from training import Turns, batch, composed, fit, task


@pytest.mark.slow
def test_the_literal_port_computes_our_objective() -> None:
    """With the same weights on the same images; in evaluation mode, as its four passes have statistics of their own."""
    case = Case("r18", "fs", "fp32", batch=2)
    data = case.data
    ours, literal = task(_config(case), 14).eval(), Literal(case, data)
    network = literal.network.eval()
    network.load_state_dict(ours.network.backbone.layers.state_dict(), strict=False)
    network.fc.load_state_dict(ours.network.classifier.state_dict())
    sources = [ours.normalise(x) for x in data.images]
    literal.images = [view.contiguous() for x in sources for view in (x, x.flip(-1))]
    terms = ours.objective(data, ours.plan(0, 0))
    assert terms["loss_a"] > 0.01 * terms["loss"], "the comparison would not see the consistency loss"
    torch.testing.assert_close(literal.objective(), terms["loss"], rtol=1e-4, atol=0)


@pytest.mark.slow
def test_rivals_take_turns_with_steps_of_the_trainer() -> None:
    events: list[str] = []
    network = task(composed("backbone=tiny", "transform=f", "image_size=64", "data=shapes"), 17)
    network.on_train_batch_end = lambda *_: events.append("ours")  # type: ignore[method-assign]
    turns = Turns(
        batch(4, [64], 17), {"rival": lambda: events.append("rival")}, 2, counting=lambda: events.append("counted")
    )
    fit(composed("backbone=tiny", "transform=f", "image_size=64", "data=shapes"), network, turns)
    assert events == ["ours", "rival", "counted", "rival", "ours", "ours", "rival"]
    assert {name: len(times) for name, times in turns.times.items()} == {"ours": 2, "rival": 2}
    assert min(turns.times["ours"]) > 1e-3, "a step takes its time"
