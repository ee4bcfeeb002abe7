"""One job of a command: its task and what must hold around it, here or in a process that a launcher started.

A launcher sends the job, pickled, to a process where nothing of the command has happened, and brings back what it
returns.
"""

from __future__ import annotations

__all__ = ["Failure", "Job", "checkpoints_are_data", "failed", "failures", "farewell", "lost", "prepare_process"]

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vac_lightning.commands import credentials, errors, launchers
from vac_lightning.runs import row_name, run_dir
from vac_lightning.signals import Stopped, stop_requests

log = logging.getLogger(__name__)


class Failure:
    """What a job that failed, or was stopped, returns: its exit code, and the text for the terminal.

    A launcher discards what jobs return, so one that comes from another process is told and counted as it arrives:
    when it is unpickled.
    """

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text

    def __reduce__(self) -> tuple[Callable[[int, str], Failure], tuple[int, str]]:
        return _told, (self.code, self.text)


failures: list[Failure] = []
"""Those of this process's command, its own jobs' and other processes'."""


class Job:
    """The task of a command as Hydra calls it, once for every job; an error in one is no error of the sweep.

    command: its name, such as "train".
    jobs: how many the sweep has, as far as is known before.
    """

    def __init__(self, command: str, task: Callable[[DictConfig], Any], jobs: int) -> None:
        update_wrapper(self, task)  # Hydra names the job after the task's module
        self.command = command
        self.task = task
        self.jobs = jobs
        self.threads = os.environ.get("OMP_NUM_THREADS")  # a person's word on it
        self.elsewhere = False

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Unpickled in another process, before Hydra composes the job's configuration there."""
        self.__dict__.update(state, elsewhere=True)
        prepare_process()

    def __call__(self, config: DictConfig) -> Any:
        for handler in logging.getLogger().handlers:
            handler.addFilter(_REDACTION)
        if self.elsewhere:
            return self._elsewhere(config)
        if stop_requests.asked is not None:  # while the job before came to its end
            raise Stopped(stop_requests.asked)
        try:
            return self.task(config)
        except Exception as error:
            return failed(self.command, error)

    def _elsewhere(self, config: DictConfig) -> Any:
        """Run the task as the first process would, in one that takes signals and returns failures."""
        if _stopped:  # the process, while its job before ran
            return Failure(_stopped[0].code, "")
        queueing_again = launchers.queueing_again()
        try:
            with stop_requests.heeded(*queueing_again), checkpoints_are_data():
                launchers.share_threads(config, self.jobs, self.threads)
                return self.task(config)
        except Stopped as stopped:
            return self._stopped(stopped, queueing_again)
        except SystemExit as ended:  # a further process of a run, whose first process tells what happened
            if ended.code:
                raise
            return None
        except Exception as error:
            return self._logged(Failure(errors.code(error), errors.text(self.command, error)))

    def _stopped(self, stopped: Stopped, queueing_again: Mapping[int, Callable[[int, None], Any]]) -> Any:
        """What comes of a job that was stopped: another attempt, where a scheduler makes one, or a failure."""
        failure = self._logged(Failure(stopped.code, farewell(self.command, stopped)))
        if stopped.signal in queueing_again:
            try:
                return queueing_again[stopped.signal](stopped.signal, None)  # of several processes, in the first
            except Exception as error:
                return self._logged(Failure(1, f"vac {self.command}: {stopped}: {error}"))
        if queueing_again:  # SLURM, which stopped it, starts it again; with a result it would count as done
            raise SystemExit(stopped.code) from stopped
        _stopped.append(stopped)
        return failure

    def _logged(self, failure: Failure) -> Failure:
        log.error("%s", failure.text)
        return failure


def failed(command: str, error: Exception) -> Failure:
    """Tell an error on the terminal, and count it."""
    return _told(errors.code(error), errors.text(command, error))


def farewell(command: str, stopped: Stopped) -> str:
    """What is said when a command was stopped."""
    hint = "; what was done is kept, and the same words go on from there" if command in ("train", "reproduce") else ""
    return f"vac {command}: {stopped}{hint}"


def lost(error: Exception) -> Failure:
    """Tell that a job's process ended without a result, and count it."""
    return _told(1, f"vac: a job ended without a result, the others go on: {launchers.gist(error)}")


def prepare_process() -> None:
    """Give Hydra and OmegaConf what our configuration needs, in this process."""
    # Hydra otherwise prints and exits by itself, with several lines and code 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    # Our files in conf/hydra/launcher/ are meant to stand before those that the launchers bring.
    warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
    OmegaConf.register_new_resolver("vac.row", row_name, replace=True)
    OmegaConf.register_new_resolver("vac.run_dir", run_dir, replace=True)
    OmegaConf.register_new_resolver("vac.noun", _noun, replace=True)


@contextmanager
def checkpoints_are_data() -> Iterator[None]:
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


def _told(code: int, text: str) -> Failure:
    if text:
        print(text, file=sys.stderr, flush=True)
    failures.append(failure := Failure(code, text))
    return failure


def _noun(target: str) -> str:
    return target.rpartition(".")[2]


_REDACTION = credentials.Redaction()
_stopped: list[Stopped] = []
