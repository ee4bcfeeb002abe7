"""`vac report` while a sweep runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Vac

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from folders import Kind, write_run, write_sweep


def test_a_folder_of_unfinished_runs_is_reported_with_its_rows_missing(vac: Vac, tmp_path: Path) -> None:
    runs = tmp_path / "table1"
    write_run(runs / "R50+ACf" / "seed=0", Kind("R50", "f"), finished=False)
    outcome = vac("report", str(runs))
    assert outcome.code == 0, outcome.err
    assert "Not finished yet, and not in the table: 1 runs, of R50+ACf." in outcome.out
    assert "| R50+ACf | missing |" in (runs / "report.md").read_text()
    (tmp_path / "empty").mkdir()
    outcome = vac("report", str(tmp_path / "empty"))
    assert outcome.code == 2
    assert "has no finished run" in outcome.err


def test_the_table_asked_for_is_the_one_shown(vac: Vac, tmp_path: Path) -> None:
    write_sweep(tmp_path / "mine", [Kind("R50", "f")], experiment="mine")
    outcome = vac("report", str(tmp_path / "mine"), "table=table4", "resamples=0")
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "mine" / "report.md").read_text()
    assert "| R\\*CNN | published |" in text and "| R50+ACf | 2 |" in text
    assert [line for line in outcome.out.splitlines() if line.startswith("report.csv:")]


@pytest.mark.parametrize("words", ["watch=0", "watch=soon", "resamples=10", "table=x"])
def test_words_out_of_range_get_one_line(vac: Vac, tmp_path: Path, words: str) -> None:
    write_run(tmp_path / "run")
    outcome = vac("report", str(tmp_path / "run"), words)
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1 and words.partition("=")[0] in outcome.err


def test_watching_ends_when_no_row_is_missing(vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vac_lightning.commands.report._SECONDS", 0.1)
    rows = [Kind("Tiny", "none"), Kind("Tiny", "f", 0.0), Kind("Tiny", "f", 1.0)]
    names = ["Tiny", "Tiny+f", "Tiny+ACf_lambda=0.3"]
    for kind, name in zip(rows, names, strict=True):
        write_run(tmp_path / "demo" / name / "seed=0", kind, row=name, quality=1.0, experiment="demo")
    outcome = vac("report", str(tmp_path / "demo"), "--watch", "resamples=0")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("report.md:") == 1


@pytest.mark.slow
def test_watching_starts_before_the_sweep_rebuilds_at_changes_alone_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    runs = tmp_path / "table1"
    program = "import sys; from vac_lightning.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "report", str(runs), "watch=0.2", "resamples=0"]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def wait_for(times: int) -> None:
        deadline = time.time() + 90
        while log.read_text().count("labels.csv:") < times:
            assert process.poll() is None and time.time() < deadline, log.read_text()
            time.sleep(0.05)

    try:
        time.sleep(0.5)
        assert process.poll() is None
        write_run(runs / "R50+f" / "seed=0", Kind("R50", "f", 0.0), finished=False)
        wait_for(1)
        assert "| R50+f | missing |" in (runs / "report.md").read_text()
        write_run(runs / "R50+f" / "seed=0", Kind("R50", "f", 0.0), experiment="table1")
        wait_for(2)
        time.sleep(1)
        built = log.read_text().count("labels.csv:")
        time.sleep(1)
        assert log.read_text().count("labels.csv:") == built
        assert "| R50+f | 1 |" in (runs / "report.md").read_text()
    finally:
        os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 130, log.read_text()
