"""What all commands share: Hydra started with our words, errors of one line, the terminal."""

from __future__ import annotations

__all__ = ["RunError", "UsageError", "console", "leave_process_group", "main", "quieten", "usage"]

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from vac_lightning.commands import composition, credentials, words
from vac_lightning.names import shown
from vac_lightning.runs import row_name, run_dir
from vac_lightning.shipped import shipped
from vac_lightning.signals import Stopped, stop_requests


class UsageError(ValueError):
    """Words on the command line that cannot be used; the message says what is allowed."""


class RunError(RuntimeError):
    """Something that went wrong on the way and that the message explains; a traceback would add nothing."""


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
    # Hydra otherwise prints and exits by itself, with several lines and code 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    Plugins.instance().register(Experiments)
    OmegaConf.register_new_resolver("vac.row", row_name, replace=True)
    OmegaConf.register_new_resolver("vac.run_dir", run_dir, replace=True)
    OmegaConf.register_new_resolver("vac.noun", lambda target: target.rpartition(".")[2], replace=True)
    sys.argv[1:] = words.normalised(sys.argv[1:])
    failures: list[int] = []

    @wraps(task)
    def job(config: DictConfig) -> Any:
        if stop_requests.asked is not None:  # while the job before came to its end
            raise Stopped(stop_requests.asked)
        # A job that fails must not stop the sweep, nor have Hydra print its own lines about it.
        for handler in logging.getLogger().handlers:
            handler.addFilter(_REDACTION)
        try:
            return task(config)
        except Exception as error:
            failures.append(_report(command, error))
            return None

    try:
        sys.argv += words.variant(sys.argv[1:])
        composition.check_arguments(command, sys.argv[1:])
        with stop_requests.heeded(), _checkpoints_are_data():
            hydra.main(version_base="1.3", config_path=str(shipped("conf")), config_name=command)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        failures.append(_report(command, error))
    except OSError as error:  # Hydra could not make the run folder
        failures.append(_report(command, UsageError(f"the run folder cannot be made: {error}")))
    except Stopped as stopped:
        hint = (
            "; what was done is kept, and the same words go on from there" if command in ("train", "reproduce") else ""
        )
        print(f"vac {command}: {stopped}{hint}", file=sys.stderr)
        return stopped.code
    return min(failures, default=0)


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


@contextmanager
def _checkpoints_are_data() -> Iterator[None]:
    """While a command runs, torch unpickles no code, whatever a library asks it for; nor in processes started here."""
    before = dict(os.environ)
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    try:
        yield
    finally:
        for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _report(command: str, error: Exception) -> int:
    """Print an error, in one line where its cause is the user's to mend, and return the exit code."""
    # Messages quote names and values from files of others, and from the command line.
    if isinstance(error, HydraException | OmegaConfBaseException | UsageError):
        line = f"vac {command}: {words.explain(command, error)}"
        print(shown(credentials.redacted(line)), file=sys.stderr)
        return 2
    if isinstance(error, RunError):
        print(shown(credentials.redacted(f"vac {command}: {error}")), file=sys.stderr)
        return 1
    for line in credentials.redacted("".join(traceback.format_exception(error))).splitlines():
        print(shown(line), file=sys.stderr)
    return 1


_REDACTION = credentials.Redaction()
_MENDABLE = (AssertionError, OSError, TypeError, ValueError)
_NOT_NEWS = (
    "It is recommended to use .*sync_dist=True",  # what is logged is computed over all processes already
    "Experiment logs directory .* exists and is not empty",  # the run folder holds more than Lightning's logs
    "The number of training batches .* is smaller than the logging interval",
    "The '.*' does not have many workers",  # num_workers is a word of ours
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "You're resuming from a checkpoint that ended before the epoch ended",  # at the exact batch, see data/datamodule.py
)
