"""status.json: what a run says of itself, and when it is not believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vac_lightning.runs import Run
from vac_lightning.status import SILENCE_SECONDS, StatusFile, read_status

KEYS = {"state", "epoch", "epochs", "val_mAP", "updated", "started", "host", "pid", "error"}


def test_a_run_says_how_far_it_is_until_it_has_results(tmp_path: Path) -> None:
    run, file = Run(tmp_path), StatusFile(Run(tmp_path))
    assert read_status(run) is None
    file.begin(3, 12)
    file.end_epoch(4, 71.5)
    written = json.loads((tmp_path / "status.json").read_text())
    assert written.keys() >= KEYS
    said = read_status(run)
    assert said is not None
    assert (said.state, said.epoch, said.epochs, said.val_mAP, said.pid) == ("running", 4, 12, 71.5, os.getpid())
    file.end_epoch(5, float("nan"))
    assert json.loads((tmp_path / "status.json").read_text())["val_mAP"] is None
    file.end_epoch(4, 71.5)
    file.end("failed", "what went wrong")
    said = read_status(run)
    assert said is not None
    assert (said.state, said.epoch, said.error) == ("failed", 4, "what went wrong")
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_pace_is_that_of_this_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    file = StatusFile(Run(tmp_path))
    file.begin(6, 12)  # six epochs were done by an attempt before
    for epoch in (7, 8):
        now[0] += 50
        file.end_epoch(epoch, None)
    said = read_status(Run(tmp_path))
    assert said is not None
    assert said.seconds_per_epoch == 50


def test_it_says_it_runs_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    file = StatusFile(Run(tmp_path))
    file.begin(0, 12)
    writes = set()
    for _ in range(240):
        now[0] += 1
        file.beat()
        writes.add(json.loads((tmp_path / "status.json").read_text())["updated"])
    assert 3 <= len(writes) <= 5


@pytest.mark.parametrize("waited_for", [True, False])
def test_a_run_whose_process_is_gone_is_stopped(tmp_path: Path, waited_for: bool) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert gone.stdout is not None
    gone.stdout.read()  # until it ends
    if waited_for:
        gone.wait()
    else:
        os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    StatusFile(Run(tmp_path)).begin(2, 12)
    path = tmp_path / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": gone.pid}))
    said = read_status(Run(tmp_path))
    assert said is not None
    assert (said.state, said.epoch) == ("stopped", 2)
    gone.wait()


@pytest.mark.parametrize(("silent", "state"), [(0.5, "running"), (1.1, "stopped")])
def test_a_run_elsewhere_is_believed_until_it_was_silent_for_long(tmp_path: Path, silent: float, state: str) -> None:
    StatusFile(Run(tmp_path)).begin(0, 12)
    path = tmp_path / "status.json"
    elsewhere = {"host": "another", "pid": 1, "updated": time.time() - silent * SILENCE_SECONDS}
    path.write_text(json.dumps({**json.loads(path.read_text()), **elsewhere}))
    said = read_status(Run(tmp_path))
    assert said is not None
    assert said.state == state


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"state": "running"}', "not JSON", '"text"'])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    assert read_status(Run(tmp_path)) is None
