"""What goes wrong while a run trains: one line that names it, a stated code, nothing lost, nothing left running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMOKE, Outcome, Training
from hydra.core.global_hydra import GlobalHydra
from test_resume import WORDS, check_equal, finish
from torch import Tensor, nn

from vac_lightning import cli
from vac_lightning.data.base import DataError, Sample
from vac_lightning.networks.backbones import Backbone
from vac_lightning.runs import Run
from vac_lightning.signals import Stopped, StopRequests

FATAL = 15
"""The training sample whose reading, or whose picture, is fatal; with seed 0 one of the third batch."""


class Squares:
    """Sample i has a square in one of two corners; what happens on reading sample FATAL of training is `fate`."""

    labels = ("left", "right")

    def __init__(self, role: str, sizes: Sequence[int], fate: str) -> None:
        self.role, self.sizes, self.fate = role, sizes, fate
        side = np.arange(24 if role == "train" else 8) % 2
        self.targets = np.stack([side == 0, side == 1], axis=1).astype(np.int8)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        fatal = self.role == "train" and index == FATAL
        if fatal and self.fate == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fatal and self.fate == "unreadable":
            raise DataError(f"sample {index}: cannot read 015.jpg: fetch the file again")
        images = [torch.zeros(3, size, size, dtype=torch.uint8) for size in self.sizes]
        for image in images:
            part = slice(0, 16) if self.targets[index, 0] else slice(-16, None)
            image[:, :16, part] = 200
            if fatal and self.fate == "white":
                image[:] = 255
        return Sample(images, torch.from_numpy(self.targets[index]), index)

    def source(self, index: int) -> str:
        return f"{index:03d}.jpg"


def squares(role: str, sizes: Sequence[int], *, fate: str, root: str = ".") -> Squares:
    return Squares(role, sizes, fate)


class NoWhite(nn.Module):
    """Infinite where an image is all white."""

    def forward(self, x: Tensor) -> Tensor:
        white = x.amin((1, 2, 3), keepdim=True) > 2
        return torch.where(white, torch.inf, x)


def no_white() -> Backbone:
    layers = nn.Sequential(NoWhite(), nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
    return Backbone(layers, channels=8)


def words(fate: str, *more: str) -> list[str]:
    return [
        "~data",
        f"+data={{_target_: test_failures.squares, _partial_: true, fate: {fate}}}",
        "~backbone",
        "+backbone={_target_: test_failures.no_white}",
        "+backbone_name=NoWhite",
        "experiment=squares",
        "transform=f",
        "trainer.accelerator=cpu",
        "checkpoints.every_n_steps=1",
        *more,
    ]


def ended(training: Training) -> bool:
    """Whether every process that the training started has ended, a moment after the first one."""
    for _ in range(50):
        try:
            os.killpg(training.process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.2)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_loss_that_is_not_finite_names_step_term_and_samples(tmp_path: Path, processes: int) -> None:
    training = Training(tmp_path / "run", *words("white", f"trainer.devices={processes}"))
    assert training.code() == 1, training.printed()
    lines = [line for line in training.printed().splitlines() if line.startswith("vac train:")]
    assert len(lines) == 1, training.printed()
    assert "Traceback" not in training.printed()
    assert "epoch 0, step " in lines[0]
    assert "loss_c = nan" in lines[0] or "loss_c = inf" in lines[0]
    assert f"samples: {FATAL} (015.jpg);" in lines[0]
    assert "epoch 0, step 2: " in lines[0]
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
    assert not (tmp_path / "run" / "results.json").exists()
    assert ended(training)


@pytest.mark.slow
@pytest.mark.parametrize(("fate", "workers"), [("killed", 1), ("unreadable", 0), ("unreadable", 2)])
def test_data_that_fails_names_the_sample(tmp_path: Path, fate: str, workers: int) -> None:
    training = Training(tmp_path / "run", *words(fate, f"num_workers={workers}"))
    assert training.code() == 1, training.printed()
    lines = [line for line in training.printed().splitlines() if line.startswith("vac train:")]
    assert len(lines) == 1, training.printed()
    assert "Traceback" not in training.printed()
    expected = {
        "killed": f"a loading process died while it read sample {FATAL} (015.jpg)",
        "unreadable": f"vac train: sample {FATAL}: cannot read 015.jpg",
    }
    assert expected[fate] in lines[0]
    assert ended(training)


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["limited", "full"])
def test_a_disk_without_room_keeps_every_finished_file(tmp_path: Path, disk: str) -> None:
    """A file system of its own that fills up; where that cannot be made, a limit on the size of a file."""
    unbroken, place = tmp_path / "unbroken", tmp_path / "place"
    place.mkdir()
    if disk == "full" and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", place]).returncode:
        pytest.skip("mounting a file system needs more rights than this user has")
    try:
        finish(unbroken)
        run = place / "run"
        training = Training(run, *WORDS)
        training.wait_for_checkpoint()
        training.kill(signal.SIGKILL)
        training.code()
        limit = 1 << 20
        if disk == "full":
            limit = None
            free = shutil.disk_usage(place).free
            (place / "filler").write_bytes(bytes(max(free - (1 << 20), 0)))
        before = {path: path.read_bytes() for path in sorted(run.rglob("*.ckpt"))}
        training = Training(run, *WORDS, limit_file_bytes=limit)
        assert training.code() == 1, training.printed()
        lines = [line for line in training.printed().splitlines() if line.startswith("vac train:")]
        assert lines[-1].startswith("vac train: no room on the disk")
        assert {path: path.read_bytes() for path in sorted(run.rglob("*.ckpt"))} == before
        (place / "filler").unlink(missing_ok=True)
        training = Training(run, *WORDS)
        assert training.code() == 0, training.printed()
        check_equal(run, unbroken)
        assert not list(run.rglob(".*.ckpt.*"))
    finally:
        if disk == "full":
            subprocess.run(["umount", place], check=False)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["validation", "test"])
def test_a_signal_outside_of_training_ends_at_once(tmp_path: Path, phase: str) -> None:
    scenes = {"validation": "{train: 16, val: 3000, test: 8}", "test": "{train: 16, val: 8, test: 3000}"}
    training = Training(tmp_path / "run", f"data.scenes={scenes[phase]}", "trainer.max_epochs=1", "transform=none")
    training.wait_for_checkpoint()
    if phase == "test":
        training.wait_for((tmp_path / "run" / "checkpoints" / "best.ckpt").exists)
        time.sleep(1.0)
    asked = time.time()
    training.process.send_signal(signal.SIGTERM)
    assert training.code() == 143, training.printed()
    assert time.time() - asked < 10
    assert not (tmp_path / "run" / "results.json").exists()
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.slow
def test_processes_with_a_relative_root_go_on_together(tmp_path: Path) -> None:
    more = ("trainer.devices=2", "+data.root=somewhere", "trainer.max_epochs=4")
    training = Training(tmp_path / "run", *words("none", *more))
    training.wait_for_checkpoint()
    training.kill(signal.SIGKILL)
    training.code()
    assert not Run(tmp_path / "run").finished
    training = Training(tmp_path / "run", *words("none", *more))
    assert training.code() == 0, training.printed()
    assert Run(tmp_path / "run").results()["resumed_at_steps"]
    assert Run(tmp_path / "run").results()["config"]["data"]["root"] == str(Path("somewhere").absolute())


@pytest.mark.slow
def test_a_second_process_waits_for_the_first_and_finds_it_finished(tmp_path: Path) -> None:
    words = ("transform=none", "trainer.max_epochs=80")
    first = Training(tmp_path / "run", *words)
    first.wait_for_checkpoint()
    second = Training(tmp_path / "run", *words)
    assert first.code() == second.code() == 0, second.printed()
    assert "waiting for it to end" in " ".join(second.printed().split())
    assert "is finished already" in " ".join(second.printed().split())
    assert Run(tmp_path / "run").results()["resumed_at_steps"] == []


@pytest.mark.slow
def test_a_process_that_does_not_come_to_an_end_is_ended_with_the_code() -> None:
    program = (
        "import os, signal, time; from vac_lightning import signals;"
        "signals.GRACE_SECONDS = 1.0; stop = signals.stop_requests\n"
        "with stop.heeded():\n"
        "    stop.deferred = True\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    began = time.time()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert "not done within 1 s" in done.stderr
    assert time.time() - began < 30


def test_a_signal_is_kept_while_deferred_and_the_second_ends_at_once() -> None:
    stop = StopRequests()
    before = signal.getsignal(signal.SIGINT)
    with stop.heeded():
        stop.deferred = True
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked == signal.SIGINT
        with pytest.raises(Stopped, match="SIGINT") as stopped:
            os.kill(os.getpid(), signal.SIGINT)
        assert stopped.value.code == 130
    with stop.heeded(), pytest.raises(Stopped, match="SIGTERM") as stopped:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture(scope="module")
def whole_and_broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A finished run, and one of the same words that broke between its last epoch and its results."""
    runs = [Run(tmp_path_factory.mktemp("runs") / name) for name in ("whole", "broken")]
    for run, breaks in zip(runs, (False, True), strict=True):
        with pytest.MonkeyPatch.context() as patch:
            if breaks:
                patch.setattr(Run, "write_results", _broken)
            GlobalHydra.instance().clear()
            patch.setattr(sys, "argv", ["vac", "train", *SMOKE, "transform=f", f"run_dir={run.path}"])
            assert cli.main() == breaks
    whole, broken = runs
    assert sorted(path.name for path in whole.checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert sorted(path.name for path in broken.checkpoints.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    return whole, broken


def _broken(run: Run, results: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.fixture
def unfinished(whole_and_broken: tuple[Run, Run], tmp_path: Path) -> Run:
    """The broken run, moved to where `smoke` would train it."""
    run = Run(tmp_path / "runs" / "shapes" / "Tiny+ACf" / "seed=0")
    shutil.copytree(whole_and_broken[1].path, run.path)
    return run


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "one bit": _flip,
    "code": lambda path: path.write_bytes(b"cos\nsystem\n(S'touch taken'\ntR."),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    smoke: partial[Outcome], unfinished: Run, whole_and_broken: tuple[Run, Run], damage: str
) -> None:
    DAMAGES[damage](unfinished.checkpoints / "last.ckpt")
    outcome = smoke("transform=f")
    assert outcome.code == 0, outcome.err
    printed = " ".join(outcome.out.split())
    assert "is damaged or not a checkpoint" in printed
    assert "going on from" in printed
    assert unfinished.results()["resumed_at_steps"] == [6]
    assert not (unfinished.checkpoints / "previous.ckpt").exists()
    assert (unfinished.checkpoints / "last.damaged").is_file()  # and did not become the previous one
    assert not list(unfinished.path.glob("abandoned-*"))
    assert unfinished.results()["metrics"] == whole_and_broken[0].results()["metrics"]


@pytest.mark.slow
def test_where_every_checkpoint_is_damaged_a_run_starts_anew(smoke: partial[Outcome], unfinished: Run) -> None:
    for name in ("last", "previous"):
        _flip(unfinished.checkpoints / f"{name}.ckpt")
    assert smoke("transform=f").code == 0
    assert unfinished.results()["resumed_at_steps"] == []
    assert (unfinished.path / "abandoned-1" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_an_attempt_of_another_configuration_is_set_aside(smoke: partial[Outcome], unfinished: Run) -> None:
    outcome = smoke("transform=f", "optimizer.lr=0.01")
    assert outcome.code == 0
    assert "optimizer.lr: 0.001 -> 0.01" in " ".join(outcome.out.split())
    assert (unfinished.path / "abandoned-1" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_an_early_stop_is_one_after_a_break_too(
    smoke: partial[Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = "{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/mAP, mode: max, patience: 0}"
    words = ("transform=none", "trainer.max_epochs=9", f"+callbacks.stop={stop}")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_results", _broken)
        assert smoke(*words).code == 1
    assert smoke(*words).code == 0
    assert smoke(*words, "experiment=whole").code == 0
    broken, whole = (Run(tmp_path / "runs" / name / "Tiny" / "seed=0") for name in ("shapes", "whole"))
    assert broken.results()["metrics"] == whole.results()["metrics"]
    assert whole.results()["metrics"]["last"]["epoch"] < 8


@pytest.mark.slow
def test_overwriting_a_finished_run_trains_again(
    smoke: partial[Outcome], whole_and_broken: tuple[Run, Run], tmp_path: Path
) -> None:
    run = Run(tmp_path / "runs" / "shapes" / "Tiny+ACf" / "seed=0")
    shutil.copytree(whole_and_broken[0].path, run.path)
    assert smoke("transform=f", "overwrite=true").code == 0
    assert run.results()["resumed_at_steps"] == []
    assert (run.path / "abandoned-1" / "results.abandoned.json").is_file()
    assert run.results()["metrics"] == whole_and_broken[0].results()["metrics"]


@pytest.mark.slow
def test_resume_false_starts_anew(smoke: partial[Outcome], unfinished: Run) -> None:
    assert smoke("transform=f", "resume=false").code == 0
    assert unfinished.results()["resumed_at_steps"] == []


@pytest.mark.slow
def test_resume_takes_a_checkpoint_or_a_run_folder(smoke: partial[Outcome], unfinished: Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else" / "where"
    shutil.copytree(unfinished.path, elsewhere)
    shutil.rmtree(unfinished.path)
    for number, place in enumerate((elsewhere, elsewhere / "checkpoints" / "previous.ckpt")):
        outcome = smoke("transform=f", f"resume={place}", f"run_dir={tmp_path / str(number)}")
        assert outcome.code == 0, outcome.err
        assert "going on from" in outcome.out
    one, other = (Run(tmp_path / name) for name in "01")
    assert one.results()["metrics"] == other.results()["metrics"]
    assert one.history().keys() == other.history().keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("resume={run}/none.ckpt",), "none.ckpt does not exist"),
        (("resume={run}/train.log",), "train.log is damaged, or is no last.ckpt"),
        (("resume={run}/checkpoints/best.ckpt",), "best.ckpt is damaged, or is no last.ckpt"),
        (("resume={run}", "seed=3"), "is of another run (seed: 0 -> 3)"),
        (
            ("resume={run}", "data.scenes={train: 32, val: 10, test: 12}"),
            "is of another run (data.scenes.train: 24 -> 32",
        ),
    ],
)
def test_what_cannot_be_resumed_is_one_line(
    smoke: partial[Outcome], unfinished: Run, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    outcome = smoke(
        "transform=f",
        f"run_dir={tmp_path / 'other'}",
        *(word.format(run=unfinished.path) if "{run}" in word else word for word in more),
    )
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1
    assert message in outcome.err
    assert not (tmp_path / "other" / "checkpoints").exists()
