"""What reproducing an experiment means: its jobs, a row and a seed each, and the words they are trained with."""

from __future__ import annotations

__all__ = ["LAUNCHERS", "Job", "Plan", "Wanted", "plan", "read_plan"]

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vac_lightning.commands import words
from vac_lightning.commands.app import UsageError
from vac_lightning.commands.composition import composer
from vac_lightning.commands.finished import plain_words
from vac_lightning.configurations import config_hash
from vac_lightning.experiments import Experiment, ExperimentRow
from vac_lightning.runs import Run, write_atomically

LAUNCHERS = {"local": "basic", "joblib": "joblib", "slurm": "submitit_slurm", "ray": "ray"}
"""Our names of Hydra's launchers."""


@dataclass(frozen=True)
class Wanted:
    """What a person asks for. own: the folder of --config-dir, whose experiments are known too."""

    experiment: Experiment
    seeds: tuple[int, ...]
    data: str | None
    data_dir: str | None
    devices: int | None
    runs_dir: str
    words: tuple[str, ...]
    own: str | None = None


@dataclass(frozen=True)
class Job:
    """One run.

    choice: its row's file, as Hydra names it. experiment: where its runs lie below the folder of runs.
    path: the run folder. epochs: of how many. config_hash: of the run that is asked for.
    error: why it cannot be trained or taken as done, in one line.
    """

    row: str
    seed: int
    choice: str
    experiment: str
    path: str
    epochs: int
    config_hash: str
    error: str | None = None

    @property
    def run(self) -> Run:
        return Run(Path(self.path))


@dataclass(frozen=True)
class Plan:
    """All jobs of an experiment. name: its own, on other data with their name. folder: of experiments/.

    words: what every job is trained with. pid: of the process that sees to them.
    """

    name: str
    folder: str
    jobs: tuple[Job, ...]
    words: tuple[str, ...]
    pid: int = 0

    def write(self, path: Path) -> None:
        """Write it whole or not at all, for `vac status` in another terminal."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))


def read_plan(path: Path) -> Plan | None:
    """A plan written before, or None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        jobs = tuple(Job(**job) for job in content.pop("jobs"))
        return Plan(jobs=jobs, words=tuple(content.pop("words")), **content)
    except (KeyError, OSError, TypeError, ValueError):
        return None


def plan(wanted: Wanted) -> tuple[Plan, dict[str, DictConfig]]:
    """Compose every row, so that a row whose words cannot be used keeps no other from its run.

    Second come the configurations, a row's choice each, of those that can be composed.

    Raises:
        UsageError: no row can be composed.
    """
    with composer("train", wanted.own) as compose:
        rows = wanted.experiment.rows
        folder = rows[0].file.parent.name
        first = _first(compose, [[f"+{folder}={words.as_text(row.file.stem)}"] for row in rows])
        data = wanted.data or first.hydra.runtime.choices.data
        on = "" if data == first.hydra.runtime.choices.data else f"_on_{data}"
        common = [f"data={data}", f"runs_dir={words.as_text(wanted.runs_dir)}"]
        if wanted.data_dir is not None:
            common.append(f"data.root={words.as_text(wanted.data_dir)}")
        if on and data == "shapes" and "weights" in first.backbone:
            # ImageNet's weights say little of drawings, and may not be at hand. Hydra composes a sweep without its rows
            # first, with the backbone that shapes bring, which has no such word.
            common.append("++backbone.weights=null")
        if wanted.devices is not None:
            common.append(f"trainer.devices={wanted.devices}")
            if wanted.devices > 1:
                common += ["trainer.strategy=ddp", "trainer.sync_batchnorm=true"]
        common += wanted.words
        jobs: list[Job] = []
        composed: dict[str, DictConfig] = {}
        errors: list[Exception] = []
        for row in rows:
            experiment = f"{row.experiment}{on}"
            chosen = [
                f"+{folder}={words.as_text(row.file.stem)}",
                *common,
                *([f"experiment={experiment}"] if on else []),
            ]
            try:
                config = compose(chosen)
                own = OmegaConf.masked_copy(config, [str(word) for word in config if word != "hydra"])
                jobs += _jobs(row, experiment, own, wanted.seeds)
                composed[row.file.stem], _ = plain_words(own)
            except (HydraException, OmegaConfBaseException) as error:
                errors.append(error)
                place = Path(wanted.runs_dir, experiment, row.name).absolute()
                line = words.explain("train", error)
                jobs += [
                    Job(row.name, seed, row.file.stem, experiment, str(place / f"seed={seed}"), 0, "", line)
                    for seed in wanted.seeds
                ]
        if not composed:
            raise UsageError(words.explain("train", errors[0]))
    jobs.sort(key=lambda job: wanted.seeds.index(job.seed))  # all rows of a seed first: a whole table soon
    return Plan(wanted.experiment.name + on, folder, tuple(jobs), tuple(common)), composed


def _first(compose: Callable[[Sequence[str]], DictConfig], jobs: Sequence[Sequence[str]]) -> DictConfig:
    """The first of the jobs that can be composed."""
    for job in jobs[:-1]:
        try:
            return compose(job)
        except (HydraException, OmegaConfBaseException):
            continue
    return compose(jobs[-1])


def _jobs(row: ExperimentRow, experiment: str, config: DictConfig, seeds: Sequence[int]) -> list[Job]:
    jobs = []
    for seed in seeds:
        seeded = OmegaConf.merge(config, {"seed": seed})
        assert isinstance(seeded, DictConfig)
        _, plain = plain_words(seeded)
        epochs = int(plain["trainer"]["max_epochs"])
        jobs.append(Job(plain["row"], seed, row.file.stem, experiment, plain["run_dir"], epochs, config_hash(plain)))
    return jobs
