"""What all commands share: where the configuration lies, its words, and errors of one line."""

from __future__ import annotations

__all__ = ["UsageError", "console", "main", "positional", "quieten", "usage"]

import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from vac_lightning.commands.words import check
from vac_lightning.runs import row_name, run_dir


class UsageError(ValueError):
    """Words on the command line that cannot be used; the message says what is allowed."""


class Experiments(SearchPathPlugin):
    """Puts experiments/ on Hydra's search path, so that +demo=Tiny+ACf and +demo=glob(*) find their files."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("vac_lightning", f"file://{_shipped('experiments')}")


def main(command: str, task: Callable[[DictConfig], Any]) -> int:
    """Compose the configuration of `command` from sys.argv, check it, and run `task` on it, once or as a sweep.

    Returns the exit code: 0; 2 with one line on standard error for words or data that cannot be used; 1 after a
    traceback. A job of a sweep that fails is reported and the next one starts.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(_help(command))
        return 0
    # Hydra otherwise prints and exits by itself, with several lines and code 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    Plugins.instance().register(Experiments)
    OmegaConf.register_new_resolver("vac.row", row_name, replace=True)
    OmegaConf.register_new_resolver("vac.run_dir", run_dir, replace=True)
    OmegaConf.register_new_resolver("vac.noun", lambda target: target.rpartition(".")[2], replace=True)
    # Hydra's parser takes -m at either end alone; here it may stand anywhere.
    sys.argv[1:] = sorted(map(_quoted, sys.argv[1:]), key=lambda argument: argument not in ("-m", "--multirun"))
    failures: list[int] = []

    @wraps(task)
    def job(config: DictConfig) -> Any:
        # A job that fails must not stop the sweep, nor have Hydra print its own lines about it.
        try:
            return task(config)
        except Exception as error:
            failures.append(_report(command, error))
            return None

    try:
        _check_overrides(command, sys.argv[1:])
        sys.argv += _variant(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(_shipped("conf")), config_name=command)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        failures.append(_report(command, error))
    except KeyboardInterrupt:
        print(f"vac {command}: stopped", file=sys.stderr)
        return 130
    return min(failures, default=0)


@contextmanager
def usage() -> Iterator[None]:
    """While things are built from the configuration, a ValueError or missing file is the user's to mend."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    except HydraException as error:
        # Hydra wraps what a constructor raises.
        if isinstance(error.__cause__, ValueError | FileNotFoundError):
            raise UsageError(str(error.__cause__)) from error
        raise


def positional(word: str) -> None:
    """Turn the arguments of sys.argv that are not overrides into one override `word=[...]`."""
    paths = [a for a in sys.argv[1:] if not a.startswith("-") and (Path(a).exists() or "=" not in a)]
    if paths:
        quoted = ",".join("'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'" for path in paths)
        sys.argv[1:] = [a for a in sys.argv[1:] if a not in paths] + [f"{word}=[{quoted}]"]


def quieten() -> None:
    """Keep the terminal to what a command has to say: no tips, and no warning about what is meant."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _NOT_NEWS:
        warnings.filterwarnings("ignore", message)


def console() -> Console:
    """Where tables are printed: names are shown as they are, and a pipe is as wide as a table needs."""
    terminal = Console(markup=False, highlight=False)
    return terminal if terminal.is_terminal else Console(markup=False, highlight=False, width=160)


def _shipped(folder: str) -> Path:
    """conf/ or experiments/: inside the package when installed from a wheel, else at the top of the repository."""
    package = Path(__file__).parents[1]
    inside = package / folder
    return inside if inside.is_dir() else package.parents[1] / folder


def _help(command: str) -> str:
    """The words of a command with their defaults and comments, as its configuration file gives them."""
    text = (_shipped("conf") / f"{command}.yaml").read_text()
    words = re.sub(r"^(defaults|hydra):\n(?: .*\n?|\n)*", "", text, flags=re.MULTILINE).strip()
    if command != "train":
        return words
    groups = {
        folder.name: ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        for place in ("conf", "experiments")
        for folder in sorted(_shipped(place).iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }
    title, _, rest = words.partition("\n")
    choices = "\n".join(f"{group}={names}" for group, names in groups.items())
    heading = "# choices, whose own words are in conf/; a row of an experiment is added, as +demo=Tiny+f"
    return f"{title}\n\n{heading}\n{choices}\n\n# words\n{rest.strip()}"


def _quoted(argument: str) -> str:
    """Quote a value that holds an equals sign, as run folders do (seed=0), which Hydra's grammar refuses bare."""
    word, equals, value = argument.partition("=")
    if argument.startswith("-") or "=" not in value or value[0] in "'\"[{$":
        return argument
    return f"{word}{equals}'{value}'"


def _variant(arguments: Sequence[str]) -> list[str]:
    """For a sweep over words that the row's name does not hold, the override that adds them to it.

    Without it the jobs of `-m optimizer.lr=0.1,0.01` would all claim one run folder.
    """
    words = [a for a in arguments if not a.startswith("-")]
    if not {"-m", "--multirun"} & set(arguments) or any(word.startswith("variant=") for word in words):
        return []
    overrides = OverridesParser.create().parse_overrides(words)
    swept = [o.get_key_element().lstrip("+") for o in overrides if o.is_sweep_override()]
    named = {"backbone", "transform", "lambda", "seed", "experiment", "run_dir"}
    chosen = [word for word in swept if word not in named and not (_shipped("experiments") / word).is_dir()]
    if not chosen:
        return []
    values = [
        f"{word}=${{hydra:runtime.choices.{word}}}" if (_shipped("conf") / word).is_dir() else f"{word}=${{{word}}}"
        for word in chosen
    ]
    return [f"variant='{'_'.join(values)}'"]


def _check_overrides(command: str, arguments: Sequence[str]) -> None:
    """Compose and check every value of a sweep before its first job starts."""
    words = [a for a in arguments if not a.startswith("-")]
    if len(arguments) - len(words) > len({"-m", "--multirun"} & set(arguments)):
        return  # an option of Hydra's own that asks for something else than a run
    overrides = OverridesParser.create().parse_overrides(words)
    first: dict[int, str] = {}
    values: dict[int, list[str]] = {}
    for place, override in enumerate(overrides):
        if override.is_sweep_override() and override.value_type != ValueType.GLOB_CHOICE_SWEEP:
            key = override.get_key_element()
            values[place] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            first[place] = values[place][0]
    fixed = [first.get(i, w) for i, w in enumerate(words) if i in first or not overrides[i].is_sweep_override()]
    kept = [i for i in range(len(words)) if i in first or not overrides[i].is_sweep_override()]
    with hydra.initialize_config_dir(str(_shipped("conf")), version_base="1.3"):
        check(hydra.compose(command, overrides=fixed))
        for place, choices in values.items():
            for choice in choices[1:]:
                check(hydra.compose(command, [choice if i == place else w for i, w in zip(kept, fixed, strict=True)]))


def _report(command: str, error: Exception) -> int:
    """Print an error, in one line where its cause is the user's to mend, and return the exit code."""
    if isinstance(error, HydraException | OmegaConfBaseException | UsageError):
        print(f"vac {command}: {_one_line(error)}", file=sys.stderr)
        return 2
    traceback.print_exception(error)
    return 1


def _one_line(error: Exception) -> str:
    """What was wrong and what is allowed, in one line."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        allowed = ", ".join(sorted(str(o) for o in error.options)) or "none"
        return f"{group}={option}: unknown; allowed: {allowed}"
    text = str(error)
    if match := re.match(r"Could not override '([^']+)'", text):
        return _unknown_word(match.group(1))
    if match := re.match(r"Missing mandatory value: (\S+)", text):
        return f"{match.group(1)} is needed: say {match.group(1)}=..."
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def _unknown_word(word: str) -> str:
    command = Path(sys.argv[0]).stem
    with hydra.initialize_config_dir(str(_shipped("conf")), version_base="1.3"):
        node: Any = hydra.compose(command)
    prefix, _, leaf = word.rpartition(".")
    inside = OmegaConf.select(node, prefix) if prefix else node
    if not isinstance(inside, DictConfig):
        return f"{word}: there is no {prefix} in the configuration"
    names = sorted(str(name) for name in inside if not str(name).startswith("_"))
    near = get_close_matches(leaf, names, n=1)
    hint = f"did you mean {'.'.join(filter(None, (prefix, near[0])))}? " if near else ""
    return f"unknown word {word!r}; {hint}allowed{' in ' + prefix if prefix else ''}: {', '.join(names)}"


_NOT_NEWS = (
    "Experiment logs directory .* exists and is not empty",  # the run folder holds more than Lightning's logs
    "The number of training batches .* is smaller than the logging interval",
    "The '.*' does not have many workers",  # num_workers is a word of ours
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
)
