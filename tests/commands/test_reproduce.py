"""`vac reproduce` and `vac status`: real sweeps, killed, failing and mended; and what the overview makes of states."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SMOKE, Vac
from omegaconf import OmegaConf

from vac_lightning.commands import finished
from vac_lightning.commands.app import RunError
from vac_lightning.commands.failures import recorded
from vac_lightning.commands.overview import JobState, job_state, lines, seconds_left, summary
from vac_lightning.commands.planning import Job, Plan, read_plan
from vac_lightning.commands.reproduce import _parted, _with_data_compared
from vac_lightning.configurations import config_hash
from vac_lightning.runs import Run
from vac_lightning.status import StatusFile

PROGRAM = "import sys; from vac_lightning.cli import main; sys.exit(main())"
ROWS = {
    "A": "transform: none",
    "B": "transform: f\nlambda: 0\ndata: {difficulty: 4}",  # refused when the data is made
    "C": "transform: f\nlambda: -1",  # refused when words are read
    "D": "transform: f\ntrainer: {max_epochs: 20}",
}


class Reproduction:
    """`vac reproduce mine` as a process, with an experiment of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = folder / "own" / "mine"
        self.runs = folder / "runs" / "mine"
        self.process: subprocess.Popen[bytes] | None = None

    def words(self) -> list[str]:
        of_runs = ["--", *(word for word in SMOKE if "progress" not in word)]
        place = ["--config-dir", str(self.rows.parent), f"runs_dir={self.runs.parent}"]
        return ["reproduce", "mine", "seeds=[0]", *place, *of_runs]

    def start(self) -> None:
        with (self.folder / "printed").open("wb") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *self.words()],
                start_new_session=True,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def kill(self) -> None:
        """kill -9 of it and of the sweep it started."""
        assert self.process is not None
        sweeps = [
            int(line) for line in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]
        for group in (self.process.pid, *sweeps):
            os.killpg(group, signal.SIGKILL)
        self.process.wait()

    def wait_for(self, happened: Callable[[], bool], seconds: float = 600) -> None:
        deadline = time.time() + seconds
        while not happened():
            assert self.process is not None and self.process.poll() is None, self.printed()
            assert time.time() < deadline, self.printed()
            time.sleep(0.05)

    def code(self, seconds: float = 600) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def printed(self) -> str:
        log = self.runs / "sweep.log"
        swept = log.read_text(errors="replace")[-3000:] if log.is_file() else ""
        return (self.folder / "printed").read_text(errors="replace")[-3000:] + "\n--- sweep.log\n" + swept

    def run(self, row: str) -> Run:
        return Run(self.runs / row / "seed=0")

    def results(self) -> dict[str, tuple[int, int]]:
        files = self.runs.glob("*/seed=0/results.json")
        return {file.parents[1].name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.mark.slow
def test_a_sweep_is_killed_gone_on_with_and_mended(vac: Vac, tmp_path: Path) -> None:
    sweep = Reproduction(tmp_path)
    sweep.rows.mkdir(parents=True)
    for row, text in ROWS.items():
        (sweep.rows / f"{row}.yaml").write_text(f"# @package _global_\nexperiment: mine\nrow: {row}\n{text}\n")

    sweep.start()
    state = sweep.run("D").path / "status.json"
    sweep.wait_for(lambda: state.is_file() and json.loads(state.read_text())["epoch"] >= 1)
    shown = vac("status", str(tmp_path / "runs"))  # from another process
    sweep.kill()
    assert shown.code == 0
    assert "running, epoch " in next(line for line in shown.out.splitlines() if " D " in line)
    assert "/20" in shown.out
    assert "done, mAP" in next(line for line in shown.out.splitlines() if " A " in line)
    assert shown.out.count("failed") == 3  # rows B and C, and their sum
    assert "stopped, epoch" in vac("status", str(sweep.runs)).out  # once killed
    before = sweep.results()
    assert before.keys() == {"A"}

    sweep.start()
    assert sweep.code() == 1, sweep.printed()
    printed = sweep.printed()
    after = sweep.results()
    assert after.keys() == {"A", "D"}
    assert after["A"] == before["A"]
    assert sweep.run("D").results()["resumed_at_steps"] != []
    assert "B seed=0: failed: difficulty=4" in printed
    assert "C seed=0: failed: lambda=-1: expected a number of at least 0" in printed
    assert "2 of 4 runs are not done" in printed
    assert "| A" in (sweep.runs / "report.md").read_text()
    assert not (sweep.run("A").path / "status.json").exists()

    for row in "BC":
        (sweep.rows / f"{row}.yaml").write_text(f"# @package _global_\nexperiment: mine\nrow: {row}\ntransform: none\n")
    log = (sweep.runs / "sweep.log").stat().st_size
    sweep.start()
    assert sweep.code() == 0, sweep.printed()
    assert sweep.results().keys() == {"A", "B", "C", "D"}
    assert {row: sweep.results()[row] for row in after} == after
    launched = (sweep.runs / "sweep.log").read_text()[log:]
    assert "+mine='B'" in launched and "+mine='C'" in launched
    assert "+mine='A'" not in launched and "+mine='D'" not in launched

    # A finished run whose data has changed is neither taken nor lost.
    path = sweep.run("A").path / "results.json"
    results = json.loads(path.read_text())
    results["data_fingerprint"]["test"] = "other scenes"
    path.write_text(json.dumps(results))
    outcome = vac(*sweep.words())
    assert outcome.code == 1
    assert "A seed=0: failed" in outcome.err and "other data (test: other scenes -> " in outcome.err
    assert json.loads(path.read_text()) == results


@pytest.mark.slow
def test_without_the_data_one_message_says_how_to_get_it_and_what_runs_here(tmp_path: Path) -> None:
    program = f"import sys; {PROGRAM.split('; ', 1)[1].replace('sys.exit(main())', 'code = main()')}; "
    program += "sys.exit(100 if 'torch' in sys.modules else code)"
    done = subprocess.run(
        [sys.executable, "-c", program, "reproduce", "table1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for part in (
        "data/wider",
        "mmlab.ie.cuhk.edu.hk",
        "DATA_DIR=FOLDER",
        "make reproduce-table1 DATA=shapes",
        "16 rows",
    ):
        assert part in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nope"], ["name=nope", "table1, table4, table6"]),
        (["table1_on_shapes"], ["vac reproduce table1", "data=shapes"]),
        (["table1", "rows=[R50+x]"], ["R50+x", "R101+ACfs"]),
        (["table1", "rows=[]"], ["rows=[]"]),
        (["table1", "seeds=3"], ["seeds=3", "[0,1,2]"]),
        (["table1", "data=nowhere"], ["data=nowhere", "shapes, wider"]),
        (["table1", "launcher=cluster"], ["launcher=cluster", "local, joblib, slurm, ray"]),
        (["demo", "data=shapes", "data_dir=here"], ["data_dir"]),
        (["demo", "--", "overwrite=true"], ["overwrite=true"]),
        pytest.param(["demo", "--", "lamda=1"], ["'lamda'", "did you mean lambda?"], marks=pytest.mark.slow),
        pytest.param(["demo", "words=[lambda=-1,logger=csv]"], ["lambda=-1", "at least 0"], marks=pytest.mark.slow),
    ],
)
def test_words_that_cannot_be_used_get_one_line_and_code_2(
    vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], named: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = vac("reproduce", *words)
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1, outcome.err
    assert all(text in outcome.err for text in named), outcome.err
    assert list(tmp_path.iterdir()) == []


def test_words_for_every_run_are_told_from_those_of_the_command() -> None:
    listed = "words=[recipe=smoke, data.scenes={train: 24, val: 10},small_sizes=[32,16]]"
    inside = ["recipe=smoke", "data.scenes={train: 24, val: 10}", "small_sizes=[32,16]"]
    assert _parted(["demo", listed]) == (["demo"], inside)
    assert _parted(["demo", "seeds=[0]", "--", *inside]) == (["demo", "seeds=[0]"], inside)


def job(row: str, folder: Path, epochs: int = 10, seed: int = 0, error: str | None = None) -> Job:
    return Job(row, seed, row, "mine", str(folder / row / f"seed={seed}"), epochs, "hash", error)


def test_a_job_is_what_its_folder_says(tmp_path: Path) -> None:
    a = job("A", tmp_path)
    assert job_state(a).state == "waiting"
    (a.run.checkpoints).mkdir(parents=True)
    (a.run.checkpoints / "last.ckpt").touch()
    assert job_state(a).state == "stopped"
    file = StatusFile(a.run)
    file.begin(2, 10)
    assert (job_state(a).state, job_state(a).epoch, job_state(a).left) == ("running", 2, None)
    file.end("failed", "no room")
    assert (job_state(a).state, job_state(a).error) == ("failed", "no room")
    results = {"config_hash": "hash", "train_seconds": 50.0, "metrics": {"best": {"test": {"mAP": 81.5}}}}
    a.run.write_results(results)
    done = job_state(a)
    assert (done.state, done.mAP, done.seconds_per_epoch) == ("done", 81.5, 5.0)
    b = job("B", tmp_path)
    b.run.write_results({**results, "config_hash": "another"})
    assert job_state(b).state == "failed"
    assert "another configuration" in str(job_state(b).error)
    (b.run.path / "results.json").write_text("{")
    assert "cannot be read" in str(job_state(b).error)


def test_time_left_is_of_the_same_row_where_that_is_known_and_shared_by_what_runs(tmp_path: Path) -> None:
    done = JobState(job("A", tmp_path), "done", 10, 80.0, 2.0, 0.0)
    again = JobState(job("A", tmp_path, seed=1), "waiting")
    running = JobState(job("B", tmp_path), "running", 5, 70.0, 6.0, 30.0)
    unknown = JobState(job("C", tmp_path), "waiting")
    assert seconds_left([unknown]) is None
    assert seconds_left([done]) == 0
    assert seconds_left([done, again]) == 20
    assert seconds_left([done, again, running, unknown]) == 20 + 30 + 40
    assert seconds_left([done, again, running, JobState(job("D", tmp_path), "running", 5, None, 6.0, 30.0)]) == 40
    assert "not known yet" in summary([unknown])
    assert summary([done, running]) == "2 runs: 1 done, 1 running; time left: about 30 s"


def test_in_a_pipe_a_line_tells_what_changed(tmp_path: Path) -> None:
    waiting = JobState(job("A\x1b[2J", tmp_path), "waiting")
    running = JobState(waiting.job, "running", 1, 61.25, 2.0, 18.0)
    assert lines([], [waiting]) == []
    assert lines([waiting], [running]) == ["A\\x1b[2J seed=0: running, epoch 1/10, mAP 61.2, 18 s left"]
    assert lines([running], [running]) == []
    trained = JobState(waiting.job, "running", 10, 61.25, 2.0, 0.0)
    assert lines([running], [trained]) == ["A\\x1b[2J seed=0: running, testing, mAP 61.2"]
    failed = JobState(waiting.job, "failed", error="no room")
    assert lines([running], [failed]) == ["A\\x1b[2J seed=0: failed: no room"]


def test_a_finished_run_is_compared_with_the_data_of_its_own_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = (job(row, tmp_path) for row in "ABC")
    for each, data in ((a, "a"), (b, "changed since")):
        each.run.write_results({"data_fingerprint": {"test": data}})
    c.run.path.mkdir(parents=True)
    (c.run.path / "results.json").write_text("{")
    monkeypatch.setattr(finished, "fingerprints", lambda config: {"test": config.data.scenes})
    composed = {row: OmegaConf.create({"data": {"scenes": row.lower()}}) for row in "ABC"}
    compared = _with_data_compared(Plan("mine", "mine", (a, b, c), ()), composed)
    assert [each.error is None for each in compared.jobs] == [True, False, True]
    assert "other data (test: changed since -> b)" in str(compared.jobs[1].error)
    assert "results.json cannot be read" in str(job_state(c).error)


def test_a_finished_run_without_a_metric_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test split without any positive sample has no mAP."""
    run = job("A", tmp_path).run
    run.write_results({"config_hash": config_hash({}), "metrics": {"best": {"test": {"mAP": float("nan")}}}})
    monkeypatch.setattr(finished, "data_difference", lambda results, config: "")
    assert math.isnan(finished.already_done(run, OmegaConf.create(), {}))


def test_why_a_run_failed_is_told_where_its_status_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(StatusFile, "end", full)
    with pytest.raises(RunError, match="no room"), recorded(StatusFile(Run(tmp_path)), always=True):
        raise RunError("no room on the disk")


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    planned = Plan("mine", "mine", (job("A", tmp_path), job("B", tmp_path, error="no")), ("recipe=smoke",), 7)
    planned.write(tmp_path / "sweep.json")
    assert read_plan(tmp_path / "sweep.json") == planned
    (tmp_path / "sweep.json").write_text("{}")
    assert read_plan(tmp_path / "sweep.json") is None


def test_status_without_any_run_says_so(vac: Vac, tmp_path: Path) -> None:
    assert "no run in" in vac("status", str(tmp_path)).out
    assert vac("status", str(tmp_path / "nowhere")).code == 2


def test_status_of_the_folder_one_is_in(vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = job("A", tmp_path)
    StatusFile(a.run).begin(3, 12)
    monkeypatch.chdir(a.run.path)
    outcome = vac("status", ".")
    assert outcome.code == 0 and "A " in outcome.out and "running, epoch 3/12" in outcome.out


@pytest.mark.slow
def test_a_folder_may_be_named_as_people_name_folders(
    vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = vac("reproduce", "lambda_sweep", "data_dir=/no where/it's [here], (1)")
    assert outcome.code == 2
    assert "no data at /no where/it's [here], (1). " in outcome.err
    assert "make reproduce-lambda_sweep" not in outcome.err  # there is no such target
