"""Fixtures that run the real commands on the real configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from vac_lightning import cli

ROOT = Path(__file__).parents[1]
COCO_TINY = ROOT.parent / "shared" / "coco_tiny"


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
