"""Fixtures that run the real commands on the real configuration."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from vac_lightning import cli

ROOT = Path(__file__).parents[1]
COCO_TINY = ROOT.parent / "shared" / "coco_tiny"


@pytest.fixture(autouse=True, scope="session")
def _kept_among_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept between runs stays among the tests."""
    os.environ["VAC_CACHE"] = str(tmp_path_factory.mktemp("kept"))


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Vac = Callable[..., Outcome]


@pytest.fixture
def vac(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Vac:
    """Run `vac ARGUMENTS...` in this process, as from the terminal but without W&B unless it is asked for."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["vac", *arguments])
        GlobalHydra.instance().clear()
        code = cli.main()
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


SMOKE: Sequence[str] = (
    "recipe=smoke",
    "logger=csv",
    "data.scenes={train: 24, val: 10, test: 12}",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
)


class Training:
    """`vac train` as a process in a session of its own, so that it can be signalled with all that it starts.

    Words are SMOKE's, with all batches, and then the test's. Modules of tests can be named as targets.
    """

    def __init__(self, run_dir: Path, *words: str, limit_file_bytes: int | None = None) -> None:
        self.run_dir = run_dir
        self.output = run_dir.parent / f"{run_dir.name}.log"
        folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        limits = (limit_file_bytes, limit_file_bytes) if limit_file_bytes else None
        smoke = [word for word in SMOKE if "~data" not in words or not word.startswith("data.")]
        self.began = time.time()
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, "train", *smoke, *_ALL_BATCHES, f"run_dir={run_dir}", *words],
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": os.pathsep.join(filter(None, folders)),
                    "VAC_ALLOW": "test_failures,test_memory,test_processes",
                },
                preexec_fn=limits and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)),
            )

    def wait_for(self, happened: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until something happened, or the process ended."""
        deadline = time.time() + seconds
        while self.process.poll() is None and not happened():
            assert time.time() < deadline, self.printed()
            time.sleep(0.01)

    def wait_for_checkpoint(self) -> None:
        """Wait until this attempt has written its first checkpoint: it trains."""
        last = self.run_dir / "checkpoints" / "last.ckpt"
        self.wait_for(lambda: last.exists() and last.stat().st_mtime > self.began)

    def kill(self, number: signal.Signals) -> None:
        """Signal all processes of the session."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def code(self, seconds: float = 240) -> int:
        return self.process.wait(seconds)

    def printed(self) -> str:
        return self.output.read_text(errors="replace")[-5000:]


_PROGRAM = "import sys; from vac_lightning.cli import main; sys.exit(main())"
_ALL_BATCHES = ("trainer={limit_train_batches: null, limit_val_batches: null, limit_test_batches: null}",)


@pytest.fixture
def smoke(vac: Vac, tmp_path: Path) -> Callable[..., Outcome]:
    """`vac train` on a few small scenes into tmp_path/runs."""
    return lambda *words: vac("train", *SMOKE, f"runs_dir={tmp_path / 'runs'}", *words)


@pytest.fixture
def coco_tiny() -> Path:
    """160 real MS-COCO photographs beside the repository."""
    if not COCO_TINY.is_dir():
        pytest.skip(f"real MS-COCO photographs are not at {COCO_TINY}")
    return COCO_TINY
