"""Training what is not done yet: `vac train -m` started, watched, stopped with us, and started again for the rest."""

from __future__ import annotations

__all__ = ["Sweep"]

import ctypes
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vac_lightning.commands import words
from vac_lightning.commands.app import RunError
from vac_lightning.commands.overview import JobState, job_state
from vac_lightning.commands.planning import Job, Plan
from vac_lightning.signals import GRACE_SECONDS, Stopped

POLL_SECONDS = 1.0
ATTEMPTS = 2
"""Of a job within one call: one that failed is tried once more after all others, and again at the next call."""


class Sweep:
    """The jobs of a plan, trained in processes of their own until each is done or has failed twice.

    Args:
        plan: the jobs.
        launcher: words for Hydra's launcher.
        own: the folder of --config-dir.
        log: file that takes what the processes print.
        watch: called with all states, again and again.
    """

    def __init__(
        self,
        plan: Plan,
        launcher: Sequence[str],
        own: str | None,
        log: Path,
        watch: Callable[[Sequence[JobState]], None],
    ) -> None:
        self.plan = plan
        self.launcher = list(launcher)
        self.own = own
        self.log = log
        self.watch = watch
        self._attempts: Counter[Job] = Counter()
        self._elsewhere = plan.name != plan.folder

    def states(self) -> list[JobState]:
        """Of all jobs, now."""
        return [job_state(job) for job in self.plan.jobs]

    def run(self) -> list[JobState]:
        """Train what is not done, and return what became of every job.

        Raises:
            RunError: a sweep that ended before any of its jobs began.
            Stopped: by a signal, after the sweep was told and ended.
        """
        while True:
            states = self.states()
            self.watch(states)
            if jobs := self._due(states):
                self._train(jobs)
            elif any(state.state == "running" for state in states):  # in a sweep that ours did not start
                time.sleep(POLL_SECONDS)
            else:
                return states

    def _due(self, states: Sequence[JobState]) -> list[Job]:
        """The jobs to train next: those not tried yet, then those that failed once.

        On other data than the experiment's own their place is a word, one of all jobs of a sweep.
        """
        open_ = [s.job for s in states if s.state in ("waiting", "stopped", "failed") and s.job.error is None]
        open_ = [job for job in open_ if not job.run.finished]  # finished with other words: not to be lost
        for attempts in range(ATTEMPTS):
            if jobs := [job for job in open_ if self._attempts[job] == attempts]:
                return [job for job in jobs if job.experiment == jobs[0].experiment] if self._elsewhere else jobs
        return []

    def _train(self, jobs: Sequence[Job]) -> None:
        """One `vac train -m` for these jobs. It skips what is finished of the rows times seeds that it stands for."""
        began = time.time()
        with self._process(jobs) as process:
            while process.poll() is None:
                self.watch(self.states())
                time.sleep(POLL_SECONDS)
        if process.returncode in _STOPPED:
            raise Stopped(_STOPPED[process.returncode])
        states = [job_state(job) for job in jobs]
        tried = [s.job for s in states if s.state == "done" or _spoke_since(s.job, began)]
        if not tried:
            raise RunError(f"the sweep ended before any run began: {self._last_line()} (all of it is in {self.log})")
        self._attempts.update(tried)

    @contextmanager
    def _process(self, jobs: Sequence[Job]) -> Iterator[subprocess.Popen[bytes]]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self._command(jobs),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it through us, once
                preexec_fn=_end_with_parent,
            )
        try:
            yield process
        except BaseException as error:
            process.send_signal(error.signal if isinstance(error, Stopped) else signal.SIGTERM)
            try:
                process.wait(GRACE_SECONDS)
            finally:
                process.kill()
                process.wait()
            raise

    def _command(self, jobs: Sequence[Job]) -> list[str]:
        rows = ",".join(words.as_text(choice) for choice in dict.fromkeys(job.choice for job in jobs))
        seeds = ",".join(str(seed) for seed in dict.fromkeys(job.seed for job in jobs))
        place = [f"experiment={jobs[0].experiment}"] if self._elsewhere else []
        return [
            *(sys.executable, "-m", "vac_lightning.commands.train", "-m"),
            *(["--config-dir", self.own] if self.own is not None else []),
            *(f"seed={seeds}", f"+{self.plan.folder}={rows}"),
            *(*self.plan.words, *place, f"hydra.sweep.dir={words.as_text(str(self.log.parent))}"),
            *("callbacks.progress=null", "trainer.enable_progress_bar=false", *self.launcher),
        ]

    def _last_line(self) -> str:
        printed = self.log.read_text(errors="replace").strip().splitlines()
        return printed[-1] if printed else "it printed nothing"


_STOPPED = {number: sign for sign in (signal.SIGTERM, signal.SIGINT) for number in (128 + sign, -sign)}
"""Exit codes of a sweep that somebody stopped -> the signal."""


def _spoke_since(job: Job, moment: float) -> bool:
    """Whether a run has written its status since; one killed in the middle has, too."""
    path = job.run.path / "status.json"
    return path.is_file() and path.stat().st_mtime >= moment


def _end_with_parent() -> None:
    """Have Linux send SIGTERM to this process when its parent is gone, even where that was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
