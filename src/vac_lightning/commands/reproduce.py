"""`vac reproduce NAME`: every row of an experiment, for several seeds, as often interrupted as need be."""

from __future__ import annotations

__all__ = ["main", "reproduce"]

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from os import getpid
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vac_lightning import experiments
from vac_lightning.commands import app, overview, words
from vac_lightning.commands.overview import JobState
from vac_lightning.commands.planning import LAUNCHERS, Plan, Wanted, plan
from vac_lightning.commands.sweeping import Sweep
from vac_lightning.data import obtaining
from vac_lightning.names import shown
from vac_lightning.runs import Run
from vac_lightning.shipped import shipped


def main() -> int:
    arguments, others = _parted(sys.argv[1:])
    if others:
        arguments.append(f"words=[{','.join(map(words.as_text, others))}]")
    # data=... is a choice of a file to Hydra, which would then be this command's to compose.
    arguments = [_folder_as_text(re.sub(r"^data=", "dataset=", argument)) for argument in arguments]
    sys.argv[1:] = words.positional(arguments, "name", several=False)
    return app.main("reproduce", reproduce)


def reproduce(config: DictConfig) -> None:
    """Train what is not done of an experiment, showing how far it is, and write its report.

    Raises:
        UsageError: words or data that cannot be used.
        RunError: a run that is not done in the end.
    """
    with app.usage():
        wanted = _wanted(config)
        _check_data_is_there(wanted)
        planned, composed = plan(wanted)
        planned = _with_data_compared(planned, composed)
    folder = Path(wanted.runs_dir, planned.name)
    console = app.console()
    with ExitStack() as stack:
        try:
            stack.enter_context(Run(folder).alone(seconds=0))
        except BlockingIOError as error:
            raise app.UsageError(
                f"another process reproduces {planned.name} in {folder}: vac status {folder} shows how far it is"
            ) from error
        planned = replace(planned, pid=getpid())
        planned.write(folder / "sweep.json")
        launcher = _launcher(config)
        with _shown(console, f"{planned.name}, {folder}") as watch:
            sweep = Sweep(planned, launcher, wanted.own, folder / "sweep.log", watch)
            states = sweep.run()
    console.print(overview.table(f"{planned.name}, {folder}", states))
    _report(planned, states, folder)
    failed = [state for state in states if state.state != "done"]
    for state in failed:
        print(f"{shown(state.name)}: {state.state}: {shown(state.error or 'no reason known')}", file=sys.stderr)
    if failed:
        raise app.RunError(
            f"{len(failed)} of {len(states)} runs are not done; what they printed is in {folder / 'sweep.log'};"
            " the same words try them again"
        )


def _parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of this command, and those for every run: after two dashes, or bare in words=[...]."""
    before = list(arguments[: arguments.index("--")]) if "--" in arguments else list(arguments)
    after = list(arguments[len(before) + 1 :])
    for listed in [argument for argument in before if re.fullmatch(r"words=\[[^'\"]*\]", argument, re.DOTALL)]:
        before.remove(listed)
        after += [word.strip() for word in _COMMA.split(listed[len("words=[") : -1]) if word.strip()]
    return before, after


def _folder_as_text(argument: str) -> str:
    """A folder's name may hold what Hydra's grammar has a use for, and comes bare from make DATA_DIR=FOLDER."""
    word, _, folder = argument.partition("=")
    bare = word in ("data_dir", "runs_dir") and folder not in ("", "null") and folder[0] not in "'\""
    return f"{word}={words.as_text(folder)}" if bare else argument


def _wanted(config: DictConfig) -> Wanted:
    own = next((source.path for source in HydraConfig.get().runtime.config_sources if source.provider == _OWN), None)
    known = [*experiments.names(), *(experiments.names(Path(own)) if own else [])]
    if config.name not in known:
        base, on, data = str(config.name).rpartition("_on_")
        hint = f"say {base} data={data}" if on and base in known else f"the experiments are {', '.join(known)}"
        raise ValueError(f"name={config.name}: {hint}; such as vac reproduce table1")
    experiment = experiments.find(config.name, Path(own) if own else None)
    assert experiment is not None
    if config.rows is not None:
        chosen = {config.rows} if isinstance(config.rows, str) else {str(name) for name in config.rows}
        if not chosen:
            raise ValueError("rows=[]: leave the word out for all rows")
        if unknown := sorted(chosen - {name for row in experiment.rows for name in (row.name, row.file.stem)}):
            raise ValueError(f"rows={unknown}: {config.name} has {', '.join(row.name for row in experiment.rows)}")
        rows = tuple(row for row in experiment.rows if chosen & {row.name, row.file.stem})
        experiment = replace(experiment, rows=rows)
    seeds = tuple(dict.fromkeys(config.seeds))
    sets = sorted(file.stem for file in (shipped("conf") / "data").glob("*.yaml") if file.stem != "table")
    if config.dataset not in (None, *sets):
        raise ValueError(f"data={config.dataset}: expected {', '.join(sets)}")
    if config.launcher not in LAUNCHERS:
        raise ValueError(f"launcher={config.launcher}: expected {', '.join(LAUNCHERS)}")
    if config.dataset == "shapes" and config.data_dir is not None:
        raise ValueError("data_dir: shapes are drawn, not read; leave the word out")
    for word in config.words:
        if str(word).partition("=")[0].lstrip("+~") in _OURS:
            raise ValueError(f"words: {word} is not for every run; the words of vac reproduce itself are before the --")
    return Wanted(
        experiment,
        seeds,
        config.dataset,
        config.data_dir,
        config.devices,
        str(config.runs_dir),
        tuple(word for word in words.normalised(config.words) if not _is_hydras(word)),
        own,
    )


def _check_data_is_there(wanted: Wanted) -> None:
    """Look for the folder of the data, which needs no more than the first row, and nothing heavy.

    Raises:
        UsageError: it is not there.
    """
    rows = wanted.experiment.rows
    planned, composed = plan(replace(wanted, experiment=replace(wanted.experiment, rows=rows[:1]), seeds=(0,)))
    data = composed[rows[0].file.stem].data
    kind = str(data["_target_"]).rpartition(".")[2]
    if kind in _PLACES and not Path(data.root, _PLACES[kind]).is_dir():
        raise app.UsageError(f"no data at {data.root}. {_remedy(kind)}. {_without(planned.folder, len(rows))}")


def _with_data_compared(planned: Plan, composed: Mapping[str, DictConfig]) -> Plan:
    """The plan, its finished runs compared with the data as it is now.

    composed: choice of a row -> its configuration, whose data may be its own.

    Raises:
        UsageError: the data cannot be read.
    """
    finished = [job for job in planned.jobs if job.error is None and job.run.finished]
    one = next(iter(composed.values()))
    if one.data.get("root") is None and not finished:
        return planned
    from vac_lightning.commands.finished import data_difference, fingerprints

    changed = {}
    try:
        fingerprints(one)
        for job in finished:
            with suppress(KeyError, OSError, json.JSONDecodeError):  # of results.json, which job_state tells
                if differing := data_difference(job.run.results(), composed[job.choice]):
                    changed[job] = (
                        f"{job.path} holds a finished run of other data ({differing}): move it away, or say"
                        " runs_dir=FOLDER"
                    )
    except ValueError as error:
        rows = len({job.row for job in planned.jobs})
        raise app.UsageError(f"{error}. {_without(planned.folder, rows)}") from error
    return replace(planned, jobs=tuple(replace(job, error=changed.get(job, job.error)) for job in planned.jobs))


def _remedy(kind: str) -> str:
    text = {"wider": obtaining.WIDER, "pa100k": obtaining.PA100K, "coco": obtaining.coco().partition(";")[0]}[kind]
    return text.replace("data.root=FOLDER", "data_dir=FOLDER, in make DATA_DIR=FOLDER")


def _without(name: str, rows: int) -> str:
    make = f"make reproduce-{name} DATA=shapes, or " if name in _TARGETS else ""
    return f"Without it, {make}vac reproduce {name} data=shapes, runs the same {rows} rows here on the embedded data"


def _launcher(config: DictConfig) -> list[str]:
    """Hydra's words for a launcher, a person's own last; with several devices SLURM starts a task for each."""
    name = LAUNCHERS[config.launcher]
    tasks = [f"hydra.launcher.tasks_per_node={config.devices}"] if name == "submitit_slurm" and config.devices else []
    chosen = [] if name == "basic" else [f"hydra/launcher={name}", *tasks]
    return [*chosen, *(word for word in words.normalised(config.words) if _is_hydras(word))]


def _is_hydras(word: str) -> bool:
    """Whether a word is of the sweep, not of a run."""
    return word.lstrip("+~").startswith(("hydra.", "hydra/"))


@contextmanager
def _shown(console: Any, title: str) -> Iterator[Callable[[Sequence[JobState]], None]]:
    """A function that shows states: a table that follows them on a terminal, a line for what changed in a pipe."""
    if console.is_terminal:
        from rich.live import Live

        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda states: live.update(overview.table(title, states), refresh=True)
        return
    before: list[JobState] = []

    def show(states: Sequence[JobState]) -> None:
        for line in (changed := overview.lines(before, states)):
            print(line, flush=True)
        if changed:
            print(overview.summary(states), flush=True)
        before[:] = states

    yield show


def _report(planned: Plan, states: Sequence[JobState], folder: Path) -> None:
    """Run `vac report` on what is done; what it does not manage stops nothing here."""
    done = [state.job.path for state in states if state.state == "done"]
    if not done:
        print("no run is done, so there is no report", file=sys.stderr)
        return
    elsewhere = any(Path(path).parents[1] != folder.absolute() for path in done)
    runs = [*done, f"table={planned.name}", f"out={words.as_text(str(folder))}"] if elsewhere else [str(folder)]
    code = subprocess.run([sys.executable, "-m", "vac_lightning.commands.report", *runs], check=False).returncode
    if code:
        print(f"the report could not be made (exit code {code}); vac report {folder} tries again", file=sys.stderr)


_COMMA = re.compile(r",(?![^{]*\}|[^\[]*\])")
"""One between words, not within the brackets of a value."""
_OWN = "command-line"
_OURS = ("seed", "experiment", "row", "run_dir", "runs_dir", "overwrite", "data", "data.root")
_TARGETS = ("table1", "table4", "table6", "figure5")
"""The experiments that the Makefile has a target for, and whose data may be missing."""
_PLACES = {"wider": "Image", "coco": "", "pa100k": ""}
"""A folder below the root of data without which none of it is there."""


if __name__ == "__main__":
    sys.exit(main())
