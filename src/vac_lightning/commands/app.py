"""What all commands share: Hydra started with our words, errors of one line, the terminal."""

from __future__ import annotations

__all__ = ["RunError", "UsageError", "console", "leave_process_group", "main", "placement", "quieten", "usage"]

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from vac_lightning.commands import composition, job, launchers, words
from vac_lightning.commands.errors import RunError, UsageError
from vac_lightning.shipped import shipped
from vac_lightning.signals import Stopped, stop_requests


class Experiments(SearchPathPlugin):
    """Puts experiments/ on Hydra's search path, so that +demo=Tiny+ACf and +demo=glob(*) find their files."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("vac_lightning", f"file://{shipped('experiments')}")


def main(command: str, task: Callable[[DictConfig], Any]) -> int:
    """Compose the configuration of `command` from sys.argv, check it, and run `task` on it, once or as a sweep.

    Returns the exit code: 0; 2 with one line on standard error for words or data that cannot be used; 1 after one
    line on what went wrong on the way, or after a traceback; 143 after SIGTERM and 130 after Ctrl-C. A job of a
    sweep that fails is reported and the next one starts; one that is stopped ends the sweep.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(words.help_text(command))
        return 0
    Plugins.instance().register(Experiments)
    job.prepare_process()
    job.failures.clear()
    sys.argv[1:] = words.normalised(sys.argv[1:])
    try:
        sys.argv += words.variant(sys.argv[1:])
        jobs = composition.check_arguments(command, sys.argv[1:])
        with stop_requests.heeded(handed_on=launchers.hand_on), job.checkpoints_are_data():
            made = job.Job(command, task, jobs)
            hydra.main(version_base="1.3", config_path=str(shipped("conf")), config_name=command)(made)()
    except (HydraException, OmegaConfBaseException) as error:
        job.failed(command, error)
    except OSError as error:  # Hydra could not make the run folder
        job.failed(command, UsageError(f"the run folder cannot be made: {error}"))
    except Stopped as stopped:
        print(job.farewell(command, stopped), file=sys.stderr)
        return stopped.code
    except Exception as error:
        if not launchers.is_of_a_launcher(error):
            raise
        job.failed(command, RunError(f"a job ended without a result, other jobs may go on: {launchers.gist(error)}"))
    return min((failure.code for failure in job.failures), default=0)


@contextmanager
def usage() -> Iterator[None]:
    """While things are built from the configuration, what a constructor refuses is the user's to mend."""
    try:
        yield
    except UsageError:
        raise
    except _MENDABLE as error:
        raise UsageError(str(error)) from error
    except HydraException as error:
        # Hydra wraps what a constructor raises.
        if isinstance(error.__cause__, _MENDABLE):
            raise UsageError(str(error.__cause__)) from error
        raise


@contextmanager
def placement(accelerator: str) -> Iterator[None]:
    """While Lightning looks for devices, what it does not find is the user's to mend."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise UsageError(f"accelerator={accelerator}: {error}") from error


def quieten() -> None:
    """Keep the terminal to what a command has to say: no tips, and no warning about what is meant."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _NOT_NEWS:
        warnings.filterwarnings("ignore", message)


def leave_process_group() -> None:
    """End the process group, where there is one, when all its processes have come here.

    One that ends with threads of the group still running is aborted, which Lightning takes for a crash of the run.
    """
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def console() -> Console:
    """Where tables are printed: names are shown as they are, and a pipe is as wide as a table needs."""
    terminal = Console(markup=False, highlight=False)
    return terminal if terminal.is_terminal else Console(markup=False, highlight=False, width=160)


_MENDABLE = (AssertionError, OSError, TypeError, ValueError)
_NOT_NEWS = (
    "It is recommended to use .*sync_dist=True",  # what is logged is computed over all processes already
    "Experiment logs directory .* exists and is not empty",  # the run folder holds more than Lightning's logs
    "The number of training batches .* is smaller than the logging interval",
    "The `srun` command is available on your system but is not used",  # one process needs none
    "The '.*' does not have many workers",  # num_workers is a word of ours
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "You're resuming from a checkpoint that ended before the epoch ended",  # at the exact batch, see data/datamodule.py
)
