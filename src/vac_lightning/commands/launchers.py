"""Where the jobs of a sweep run: Hydra's launchers, what they may be told, and what a job does in their processes."""

from __future__ import annotations

__all__ = ["check", "gist", "hand_on", "is_of_a_launcher", "processes_here", "queueing_again", "share_threads"]

import importlib.util
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vac_lightning.hardware import processors
from vac_lightning.names import is_printable

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
LOCAL = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"
SLURM = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
RAY = "hydra_plugins.vac_ray_launcher.RayLauncher"

_EXTRAS = {
    JOBLIB: ("joblib", "joblib", ("hydra_plugins.hydra_joblib_launcher", "joblib")),
    LOCAL: ("submitit_local", "slurm", ("hydra_plugins.hydra_submitit_launcher", "submitit")),
    SLURM: ("submitit_slurm", "slurm", ("hydra_plugins.hydra_submitit_launcher", "submitit")),
    RAY: ("ray", "ray", ("ray",)),
}
"""Target -> the name on the command line, the extra that brings it, and the modules that it needs."""


def check(config: DictConfig) -> None:
    """Check the configuration of a launcher before anything is made of it.

    Raises:
        HydraException: it is not installed, there is no SLURM here, or one of its words could become a shell command.
    """
    launcher = OmegaConf.to_container(config, resolve=False)
    target = launcher.get("_target_") if isinstance(launcher, dict) else None
    if not isinstance(launcher, dict) or target not in _EXTRAS:
        return
    name, extra, modules = _EXTRAS[target]
    if not all(map(_is_installed, modules)):
        raise HydraException(f'hydra/launcher={name}: not installed; pip install "vac_lightning[{extra}]"')
    if target == SLURM and shutil.which("srun") is None:
        raise HydraException(f"hydra/launcher={name}: there is no srun on this machine; start the sweep where SLURM is")
    if launcher.get("setup"):
        raise HydraException(
            "hydra.launcher.setup: a configuration may hold no shell commands; what is set in the environment that vac"
            " is started from is set in its jobs too"
        )
    for text in _texts(launcher):  # they become lines of a shell script
        if not is_printable(text):
            raise HydraException(f"hydra.launcher: {text!r} must not hold line breaks or control characters")


def is_of_a_launcher(error: Exception) -> bool:
    """Whether an error says that a launcher has lost a job, or could not start one."""
    return type(error).__module__.partition(".")[0] in ("joblib", "ray", "submitit")


def gist(error: Exception) -> str:
    """Of a launcher's message, which can quote pages of logs, the first line and the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")] or [type(error).__name__]
    return lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"


def hand_on(number: int) -> bool:
    """Hand a signal on to the processes that joblib started, and say whether there are any.

    Each saves what it trains; killed with this process, as joblib would have it, they could not. Ctrl-C reaches
    them from the terminal.
    """
    workers = [child for child in multiprocessing.active_children() if type(child).__module__.startswith("joblib.")]
    if number != signal.SIGINT:
        for worker in workers:
            if worker.pid is not None:
                os.kill(worker.pid, number)
    return bool(workers)


def queueing_again() -> dict[int, Callable[[int, None], Any]]:
    """In a job of SLURM, the signal before its time is up, and submitit's answer to it: to queue the job again.

    Elsewhere nothing. The answer does not save what is trained, so it has to wait.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return {}
    number = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
    handler = signal.getsignal(number)
    return {number: handler} if callable(handler) else {}


def share_threads(config: DictConfig, jobs: int, given: str | None) -> None:
    """Give this job its share of the machine's processors: torch, OpenMP and OpenCV, here and in processes it starts.

    given: OMP_NUM_THREADS as the person who started the sweep has set it; then it stands.
    """
    if given is None:
        threads = max(1, _processors(jobs) // processes_here(config))
        for name in _VARIABLES:
            os.environ[name] = str(threads)
    elif given.isdigit() and int(given) > 0:
        threads = int(given)
    else:
        return
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def processes_here(config: DictConfig) -> int:
    """Processes that a job has on one machine, unless each is a task of SLURM's."""
    devices = OmegaConf.select(config, "trainer.devices") or OmegaConf.select(config, "devices")
    in_tasks = "SLURM_NTASKS_PER_NODE" in os.environ
    return devices if isinstance(devices, int) and devices > 0 and not in_tasks else 1


def _processors(jobs: int) -> int:
    """Processors for one job of so many."""
    hydra = HydraConfig.get()
    launcher, target = hydra.launcher, hydra.launcher.get("_target_")
    if target == SLURM:
        tasks = int(os.environ.get("SLURM_NTASKS_PER_NODE", "1"))
        whole = int(os.environ.get("SLURM_CPUS_ON_NODE", "1"))
        return int(os.environ.get("SLURM_CPUS_PER_TASK", whole // tasks))
    if target == RAY:
        return int(launcher.num_cpus)
    if not hydra.sweeper["_target_"].endswith(".BasicSweeper"):
        jobs = _MANY  # others draw them as they go
    if target != JOBLIB:
        return processors() // jobs
    import joblib

    return joblib.cpu_count() // min(jobs, joblib.effective_n_jobs(launcher.n_jobs))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it would be in
        return False


def _texts(value: Any) -> Iterator[str]:
    """Every text in a configuration, keys too."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield str(key)
            yield from _texts(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _texts(child)
    else:
        yield str(value)


_MANY = 10**6
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
