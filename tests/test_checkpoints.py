"""When checkpoints are written, and what is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Outcome

from vac_lightning.checkpoints import CheckpointFiles, read_checkpoint
from vac_lightning.runs import find_runs

Smoke = Callable[..., Outcome]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, dict[str, int] | None]]:
    """Name, step and progress of every checkpoint that is written."""
    found: list[tuple[str, int, dict[str, int] | None]] = []
    save = CheckpointFiles.save_checkpoint

    def spy(self: CheckpointFiles, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        found.append((Path(path).stem, checkpoint["global_step"], checkpoint.get("progress")))
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(CheckpointFiles, "save_checkpoint", spy)
    return found


def last(written: list) -> list[tuple[int, int, int]]:
    """Step, epoch and batches of what was written as last.ckpt."""
    return [(step, place["epoch"], place["batches"]) for name, step, place in written if name == "last"]


ALWAYS = [(3, 0, 3), (3, 1, 0), (6, 1, 3), (6, 2, 0)]
"""Two epochs of three steps: before a validation with all batches done, after an epoch with none of the next."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("checkpoints.every_n_minutes=10", ALWAYS),
        ("checkpoints.every_n_steps=2", sorted([*ALWAYS, (2, 0, 2), (4, 1, 1)])),
        ("checkpoints.every_n_minutes=0", sorted([*ALWAYS, (1, 0, 1), (2, 0, 2), (4, 1, 1), (5, 1, 2)])),
    ],
)
def test_checkpoints_by_epoch_by_steps_and_by_time(smoke: Smoke, written: list, word: str, expected: list) -> None:
    assert smoke("transform=none", word).code == 0
    assert last(written) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        ((), [(1, 0, 2), (2, 0, 4), (3, 0, 5), (3, 1, 0)]),
        (("+trainer.val_check_interval=3",), [(1, 0, 2), (2, 0, 4), (3, 1, 0)]),  # a batch after the first step
    ],
)
def test_gradients_that_accumulate_are_not_cut_apart(
    smoke: Smoke, written: list, validation: tuple[str, ...], expected: list
) -> None:
    words = ("data.scenes={train: 40, val: 8, test: 8}", "trainer.limit_train_batches=null")
    accumulate = ("trainer.accumulate_grad_batches=2", "checkpoints.every_n_minutes=0", "trainer.max_epochs=1")
    assert smoke("transform=none", *words, *accumulate, *validation).code == 0
    assert last(written) == expected


@pytest.mark.slow
def test_the_best_checkpoint_is_that_of_the_highest_value(smoke: Smoke, written: list, tmp_path: Path) -> None:
    assert smoke("transform=none", "trainer.max_epochs=4").code == 0
    (run,) = find_runs([tmp_path / "runs"])
    value = {epoch: row["val/mAP"] for epoch, row in run.history().items() if "val/mAP" in row}
    best = [epoch for epoch in value if all(value[epoch] > value[before] for before in range(epoch))]
    assert [step // 3 - 1 for name, step, _ in written if name == "best"] == best
    assert read_checkpoint(run.checkpoints / "best.ckpt")["epoch"] == best[-1]
    assert read_checkpoint(run.checkpoints / "last.ckpt")["epoch"] == 3


@pytest.mark.slow
def test_without_validation_the_last_epoch_stands_for_the_best(smoke: Smoke, tmp_path: Path) -> None:
    assert smoke("transform=none", "trainer.check_val_every_n_epoch=5").code == 0
    (run,) = find_runs([tmp_path / "runs"])
    metrics = run.results()["metrics"]
    assert metrics["best"]["chosen_on"] == "nothing, being the last"
    assert metrics["best"]["test"] == metrics["last"]["test"]


def test_a_checkpoint_becomes_the_previous_one(tmp_path: Path) -> None:
    files = CheckpointFiles()
    for step in range(3):
        files.save_checkpoint({"global_step": step, "weights": torch.ones(5)}, tmp_path / "last.ckpt")
    files.save_checkpoint({"global_step": 7}, tmp_path / "best.ckpt")
    steps = {path.stem: read_checkpoint(path)["global_step"] for path in tmp_path.iterdir()}
    assert steps == {"last": 2, "previous": 1, "best": 7}


def test_a_checkpoint_that_cannot_be_written_leaves_both(tmp_path: Path) -> None:
    files = CheckpointFiles()
    for step in range(2):
        files.save_checkpoint({"global_step": step}, tmp_path / "last.ckpt")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Exception, match="pickle"):
        files.save_checkpoint({"global_step": 2, "f": lambda: None}, tmp_path / "last.ckpt")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
