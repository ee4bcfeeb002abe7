"""Sweeps whose jobs are several processes each, one job after another and several at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMOKE
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf

from vac_lightning.commands import launchers
from vac_lightning.runs import Run, find_runs
from vac_lightning.shipped import shipped
from vac_lightning.signals import Stopped, StopRequests

PROGRAM = "import sys; from vac_lightning.cli import main; sys.exit(main())"
LAYERS = "{_target_: torch.nn.Conv2d, in_channels: 3, out_channels: 16, kernel_size: 8, stride: 8}"
PLAIN = (
    "~backbone",  # one without batch norm, whose statistics are of each process's share of the batch
    f"+backbone={{_target_: vac_lightning.networks.backbones.Backbone, channels: 16, layers: {LAYERS}}}",
    "+backbone_name=Linear",
    "trainer.accelerator=cpu",
    "trainer.precision=64-true",
    "optimizer=sgd",
)


def sweep(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """`vac train -m WORDS...` in a process of its own, which starts the others."""
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "train", "-m", *SMOKE, *PLAIN, f"runs_dir={folder}", *words],
        env={**inherited, "PYTHONPATH": os.pathsep.join(filter(None, folders)), **environment},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.slow
def test_three_jobs_of_two_processes_leave_three_runs_as_of_one_process(tmp_path: Path) -> None:
    """Another sweep, started by a second process, or a variable left by the job before, would end or change one."""
    runs: list[list[Run]] = []
    for devices, strategy in (("1", "auto"), ("2", "ddp")):
        words = ("seed=0,1,2", f"trainer.devices={devices}", f"trainer.strategy={strategy}", "transform=f")
        done = sweep(tmp_path / devices, *words, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr[-3000:]
        runs.append(find_runs([tmp_path / devices]))
    assert [run.path.name for run in runs[1]] == ["seed=0", "seed=1", "seed=2"]
    assert len(list(tmp_path.joinpath("2").rglob("train.log"))) == 3
    for one, two in zip(*runs, strict=True):
        assert (one.results()["device"][:7], two.results()["device"][:7]) == ("1 x cpu", "2 x cpu")
        for name in ("last", "best"):
            a, b = (run.results()["metrics"][name] for run in (one, two))
            assert a["epoch"] == b["epoch"]
            for split in ("val", "test"):
                assert a[split] == pytest.approx(b[split], rel=1e-9, nan_ok=True)
    metrics = [run.results()["metrics"]["last"]["test"] for run in runs[0]]
    assert metrics[0] != metrics[1]


@pytest.mark.slow
def test_joblib_runs_jobs_of_two_processes_at_once_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the extra joblib is not installed")
    import joblib

    done = sweep(
        tmp_path,
        "batch_size=8,32",  # 24 samples do not fill 32: that job cannot start
        "drop_last=true",
        "transform=none",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "+callbacks.threads={_target_: inside.Threads, run_dir: '${run_dir}'}",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        VAC_ALLOW="inside",
    )
    assert done.returncode == 2, done.stderr[-3000:]
    told = "batch_size=32 is larger than the train split (24 samples)"
    assert done.stderr.count(told) == 1
    assert "ConfigStore" not in done.stderr
    (run,) = find_runs([tmp_path])
    assert run.results()["row"] == "Linear_batch_size=8"
    assert run.results()["device"].startswith("2 x cpu")
    (failed,) = (log for log in tmp_path.rglob("train.log") if log.parent != run.path)
    assert told in failed.read_text()
    # 2 jobs of 2 processes share them.
    assert json.loads((run.path / "threads.json").read_text()) == [max(1, joblib.cpu_count() // 4)] * 3


@pytest.mark.parametrize(
    ("launcher", "jobs", "devices", "environment", "expected"),
    [
        ("joblib", 3, 1, {}, 4),  # 12 processors, fewer jobs than processors
        ("joblib", 48, 1, {}, 1),
        ("joblib", 3, 2, {}, 2),
        ("submitit_local", 4, 1, {}, 3),
        ("submitit_slurm", 4, 1, {"SLURM_CPUS_PER_TASK": "5"}, 5),
        ("submitit_slurm", 4, 2, {"SLURM_CPUS_ON_NODE": "6", "SLURM_NTASKS_PER_NODE": "2"}, 3),
    ],
)
def test_a_job_has_its_share_of_the_processors(
    monkeypatch: pytest.MonkeyPatch, launcher: str, jobs: int, devices: int, environment: dict, expected: int
) -> None:
    joblib = pytest.importorskip("joblib")
    monkeypatch.setattr(joblib, "cpu_count", lambda: 12)
    monkeypatch.setattr(joblib, "effective_n_jobs", lambda n_jobs: 12 if n_jobs == -1 else n_jobs)
    monkeypatch.setattr(launchers, "processors", lambda: 12)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    hydra = {
        "launcher": OmegaConf.load(shipped("conf") / "hydra" / "launcher" / f"{launcher}.yaml"),
        "sweeper": {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"},
    }
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(hydra))
    config = OmegaConf.create({"trainer": {"devices": devices}})
    assert launchers._processors(jobs) // launchers.processes_here(config) == expected


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm", "ray"])
def test_a_launcher_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch, launcher: str) -> None:
    monkeypatch.setattr(launchers, "_is_installed", lambda module: False)
    extra = launcher if "submitit" not in launcher else "slurm"
    with pytest.raises(HydraException, match=rf'hydra/launcher={launcher}: not installed; .*vac_lightning\[{extra}\]"'):
        launchers.check(OmegaConf.load(shipped("conf") / "hydra" / "launcher" / f"{launcher}.yaml"))


@pytest.mark.parametrize(
    ("word", "value", "told"),
    [
        ("setup", ["rm -rf ~"], "no shell commands"),
        ("partition", "low\nrm -rf ~", "line breaks"),
        ("additional_parameters", {"x\nrm -rf ~ #": 1}, "line breaks"),
    ],
)
def test_a_launchers_words_cannot_become_shell_commands(
    monkeypatch: pytest.MonkeyPatch, word: str, value: object, told: str
) -> None:
    monkeypatch.setattr(launchers.shutil, "which", lambda program: program)
    config = OmegaConf.load(shipped("conf") / "hydra" / "launcher" / "submitit_slurm.yaml")
    with pytest.raises(HydraException, match=told):
        launchers.check(OmegaConf.merge(config, {word: value}))
    launchers.check(config)


def test_a_scheduler_that_repeats_itself_is_not_impatient() -> None:
    """SLURM sends SIGTERM to a task from two sides; the first is enough for the training loop to save and end."""
    stop = StopRequests()
    with stop.heeded(signal.SIGUSR2):
        stop.deferred = True
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.asked == signal.SIGUSR2
        stop.deferred = False
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_others_were_handed_is_left_to_them() -> None:
    stop = StopRequests()
    handed: list[int] = []
    with stop.heeded(handed_on=lambda number: not handed.append(number)):
        os.kill(os.getpid(), signal.SIGTERM)
        assert (handed, stop.asked) == ([signal.SIGTERM], signal.SIGTERM)
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
