"""Sweeps on a real SLURM: an array of jobs, one of which is preempted, queues again and goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SMOKE

from vac_lightning.runs import Run, find_runs

pytest.importorskip("submitit", reason="the extra slurm is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from slurm import UnavailableError, cluster

PROGRAM = "import sys; from vac_lightning.cli import main; sys.exit(main())"


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    try:
        with cluster(cpus=4) as environment:
            folders = filter(None, [str(Path(__file__).parent), environment.get("PYTHONPATH")])
            yield {
                **environment,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(folders),
                "VAC_ALLOW": "inside",
            }
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
def test_a_preempted_job_of_an_array_queues_again_and_ends_as_if_unbroken(
    environment: dict[str, str], tmp_path: Path
) -> None:
    def ask(*command: str) -> str:
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    def states() -> dict[str, str]:
        """Job of the array -> its state."""
        lines = ask("squeue", "--array", "--noheader", "--partition=low", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    gate = tmp_path / "open"
    output = tmp_path / "output.txt"
    with output.open("wb") as file:
        sweep = subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM, "train", "-m", "seed=0,1,2,3", *SMOKE, "transform=f"),
                f"runs_dir={tmp_path / 'runs'}",
                f"+callbacks.gate={{_target_: inside.Gate, file: '{gate}'}}",
                "hydra/launcher=submitit_slurm",
                "hydra.launcher.timeout_min=30",
            ],
            env=environment,
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
        )

    def wait_until(happened, seconds: float = 400) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert sweep.poll() is None and time.monotonic() < deadline, output.read_text()[-5000:]
            time.sleep(0.1)

    try:
        folders = [tmp_path / "runs" / "shapes" / "Tiny+ACf" / f"seed={seed}" for seed in range(4)]
        wait_until(lambda: all((folder / "checkpoints" / "last.ckpt").exists() for folder in folders))
        assert set(states().values()) == {"RUNNING"} and len(states()) == 4
        ask("sbatch", "--partition=high", "--ntasks=1", "--output=/dev/null", "--wrap=true")
        wait_until(lambda: "PENDING" in states().values())
        (preempted,) = (job for job, state in states().items() if state == "PENDING")
        gate.touch()
        # SLURM would let two minutes pass, so that no credential of the first attempt is still valid.
        ask("scontrol", "update", f"JobId={preempted}", "StartTime=now")
        assert sweep.wait(400) == 0, output.read_text()[-5000:]
    finally:
        sweep.kill()
        sweep.wait()

    runs = find_runs([tmp_path / "runs"])
    assert [run.path for run in runs] == folders
    resumed = [run for run in runs if run.results()["resumed_at_steps"]]
    assert [run.path.name for run in resumed] == [f"seed={preempted.rpartition('_')[2]}"]
    unbroken = tmp_path / "unbroken"
    words = [*SMOKE, "transform=f", resumed[0].path.name, f"run_dir={unbroken}"]
    subprocess.run([sys.executable, "-c", PROGRAM, "train", *words], env=environment, capture_output=True, check=True)
    assert Run(unbroken).results()["resumed_at_steps"] == []
    assert resumed[0].results()["metrics"] == Run(unbroken).results()["metrics"]
