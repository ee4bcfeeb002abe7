"""Hydra's launcher for Ray: every job of a sweep a task of a Ray cluster.

Ours, since hydra-ray-launcher 1.2.2 wants cloudpickle<3, which the other launchers have left behind, and ends the
sweep at the first job whose process dies.
"""

from __future__ import annotations

__all__ = ["RayLauncher"]

import os
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

log = getLogger(__name__)


class RayLauncher(Launcher):
    """Runs jobs on the cluster that RAY_ADDRESS names, else on one that it starts of this machine.

    num_cpus, num_gpus, resources: what each job takes of the cluster, which sets how many run at once.
    """

    def __init__(self, num_cpus: float, num_gpus: float, resources: dict[str, float]) -> None:
        self.takes = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": dict(resources)}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        import ray

        from vac_lightning.commands.job import lost

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if not ray.is_initialized():
            ray.init(configure_logging=False, include_dashboard=False)
        # A task that loses its machine starts again, and its run goes on.
        remote = ray.remote(max_retries=3, max_calls=1, **self.takes)(_run)
        jobs = []
        for index, overrides in enumerate(job_overrides, start=initial_job_idx):
            log.info("#%d : %s", index, " ".join(filter_overrides(overrides)))
            jobs.append(remote.remote(self, list(overrides), index, Singleton.get_state(), str(Path.cwd())))
        results = []
        try:
            for job in jobs:
                try:
                    results.append(ray.get(job))
                except ray.exceptions.RayError as error:
                    results.append(JobReturn(status=JobStatus.COMPLETED, _return_value=lost(error)))
        except BaseException:
            for job in jobs:
                ray.cancel(job)  # as Ctrl-C there: what trains is saved
            ray.wait(jobs, num_returns=len(jobs), timeout=_GRACE_SECONDS)
            raise
        return results


def _run(launcher: RayLauncher, overrides: list[str], index: int, state: Any, folder: str) -> JobReturn:
    """One job, in a process of Ray's, which began in a folder of Ray's; the sweep's own must be there too."""
    import ray

    os.chdir(folder)
    setup_globals()
    Singleton.set_state(state)
    config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, overrides)
    with open_dict(config):
        config.hydra.job.id = ray.get_runtime_context().get_task_id()
        config.hydra.job.num = index
    return run_job(
        hydra_context=launcher.hydra_context,
        task_function=launcher.task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


_GRACE_SECONDS = 25
