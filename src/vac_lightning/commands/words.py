"""The words on the command line: reading them, their ranges and names, explaining what is wrong with one."""

from __future__ import annotations

__all__ = ["as_text", "check", "check_letters", "explain", "help_text", "normalised", "positional", "variant"]

import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
import hydra.version
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf

from vac_lightning.commands.ranges import RANGES
from vac_lightning.names import is_printable, shown
from vac_lightning.shipped import shipped

PROTOCOLS = ("vac", "srn", "csra")
"""metrics.PROTOCOLS, which cannot be asked without importing torch."""


def help_text(command: str) -> str:
    """The words of a command with their defaults and comments, as its configuration file gives them."""
    text = (shipped("conf") / f"{command}.yaml").read_text()
    words = re.sub(r"^(defaults|hydra):\n(?: .*\n?|\n)*", "", text, flags=re.MULTILINE).strip()
    if command != "train":
        return words
    groups = {
        folder.name: ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        for place in ("conf", "experiments")
        for folder in sorted(shipped(place).iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }
    title, _, rest = words.partition("\n")
    choices = "\n".join(f"{group}={names}" for group, names in groups.items())
    heading = "# choices, whose own words are in conf/; a row of an experiment is added, as +demo=Tiny+f"
    return f"{title}\n\n{heading}\n{choices}\n\n# words\n{rest.strip()}"


def normalised(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra's parser wants them: -m and options first, and values that hold an equals sign quoted.

    Run folders hold one (seed=0), and -m may stand anywhere on the line of a person.
    """
    of_an_option = _of_options(arguments)
    leading: list[str] = []
    words: list[str] = []
    for i, argument in enumerate(arguments):
        if i in of_an_option or argument.partition("=")[0] in ("-m", "--multirun", *_WITH_A_VALUE):
            leading.append(argument)
        else:
            words.append(_quoted(argument))
    return leading + words


def positional(arguments: Sequence[str], word: str, several: bool = True) -> list[str]:
    """The arguments with those that are paths, not overrides, gathered into one override `word=[...]`.

    Where the word takes one path only, not several, a single one becomes `word=...`.
    """
    at = [i for i, argument in enumerate(arguments) if i not in _of_options(arguments) and _is_path(argument)]
    quoted = ",".join(as_text(arguments[i]) for i in at)
    value = f"[{quoted}]" if several or len(at) > 1 else quoted
    return [a for i, a in enumerate(arguments) if i not in at] + ([f"{word}={value}"] if at else [])


def as_text(path: str) -> str:
    """A path as Hydra's grammar takes it word for word: quotes, backslashes before them, and references escaped."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), path)
    return "'" + escaped.replace("${", "\\${") + "'"


def variant(arguments: Sequence[str]) -> list[str]:
    """For a sweep over words that the row's name does not hold, the override that adds them to it.

    Without it the jobs of `-m optimizer.lr=0.1,0.01` would all claim one run folder.
    """
    asked = get_args_parser().parse_args(list(arguments))
    words = asked.overrides
    if not asked.multirun or any(word.startswith("variant=") for word in words):
        return []
    overrides = OverridesParser.create().parse_overrides(words)
    swept = [o.get_key_element().lstrip("+") for o in overrides if o.is_sweep_override()]
    named = {"backbone", "backbone.name", "transform", "lambda", "seed", "experiment", "run_dir"}
    rows = [shipped("experiments"), *([Path(asked.config_dir)] if asked.config_dir else [])]
    chosen = [word for word in swept if word not in named and not any((place / word).is_dir() for place in rows)]
    if not chosen:
        return []
    values = [
        f"{word}=${{hydra:runtime.choices.{word}}}" if (shipped("conf") / word).is_dir() else f"{word}=${{{word}}}"
        for word in chosen
    ]
    return [f"variant='{'_'.join(values)}'"]


def check(config: DictConfig) -> None:
    """Check every word that has a range, and the names that become folders.

    Raises:
        HydraException: a value out of range; one line that names the word, its value and what is allowed.
    """
    for word, (allowed, accepts) in RANGES.items():
        value = OmegaConf.select(config, word, default=_ABSENT)
        if value is not _ABSENT and not accepts(value):
            raise HydraException(f"{word}={value}: expected {allowed}")
    if "predictions" in config and (config.run is None) == (config.predictions is None):
        raise HydraException("say either run=RUN_FOLDER or predictions=RUN_FOLDER/predictions.npz, one of the two")
    if "protocol" in config:
        allowed_here = (*PROTOCOLS, "all", None) if "predictions" in config else PROTOCOLS
        if config.protocol not in allowed_here:
            known = ", ".join(PROTOCOLS)
            raise HydraException(f"protocol={config.protocol}: expected {known}; all of them is for vac evaluate")
    if "backbone" in config and OmegaConf.is_missing(config.backbone, "name"):
        raise HydraException("backbone.name is needed: say backbone.name=MODEL, such as vit_small_patch16_224")
    if isinstance(config.get("data"), DictConfig) and OmegaConf.is_missing(config.data, "table"):
        raise HydraException("data.table is needed: say data.table=FILE, a .csv, .tsv or .parquet of samples")
    if config.get("augmentation") is not None and "augmentation" not in config.data:
        raise HydraException("augmentation: this data set takes none; leave the word out")
    if config.get("augmentation") is not None and "_target_" not in config.augmentation:
        raise HydraException("augmentation=none takes no steps: add them to augmentation=srn or augmentation=strong")
    transform = OmegaConf.select(config, "transform", default=_ABSENT)
    if transform is not _ABSENT:
        check_letters("transform", str(transform), config.views.letters)
    _check_names(config)


def check_letters(word: str, value: str, letters: Iterable[str]) -> None:
    """Check a word that names transforms: "none", or distinct ones of `letters` and "s".

    Raises:
        HydraException: it does not; one line that names the word, its value and what is allowed.
    """
    known = {*letters, "s"}
    if value != "none" and (not value or set(value) - known or len(set(value)) < len(value)):
        allowed = ", ".join(sorted(known))
        raise HydraException(f"{word}={value}: expected none, or distinct letters out of {allowed}, such as f or fs")


def explain(command: str, error: Exception) -> str:
    """What was wrong and what is allowed, in one line."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        allowed = ", ".join(sorted(str(o) for o in error.options)) or "none"
        return f"{group}={option}: unknown; allowed: {allowed}"
    text = str(error)
    if match := re.match(r"Could not override '([^']+)'", text):
        return _unknown_word(command, match.group(1))
    if match := re.match(r"Missing mandatory value: (\S+)", text):
        return f"{match.group(1)} is needed: say {match.group(1)}=..."
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def _check_names(config: DictConfig) -> None:
    """Names that become folders and files must stay below runs_dir, on one line, and fit."""
    for word in ("experiment", "row", "hydra.job.name"):
        name = OmegaConf.select(config, word, default=_ABSENT)
        if name is _ABSENT:
            continue
        parts = str(name).split("/") if word == "experiment" else [str(name)]
        problem = next(filter(None, map(_problem, parts)), None)
        if problem is not None:
            raise HydraException(f"{word}={shown(str(name)[:_LONGEST])}: {problem}; choose a name such as demo")


def _problem(name: str) -> str | None:
    """What keeps a name from being that of a folder."""
    if name in ("", ".", "..") or "/" in name:
        return "a name must not lead out of its folder or be empty; only an experiment may hold a /"
    if name.startswith("~"):
        return "a name must not begin with ~, which stands for a home folder"
    if not is_printable(name):
        return "a name must not hold control characters"
    if len(name.encode()) > _LONGEST:
        return f"a name must not be longer than {_LONGEST} bytes"
    return None


def _of_options(arguments: Sequence[str]) -> set[int]:
    """The positions of values of Hydra's own options."""
    return {i + 1 for i, argument in enumerate(arguments) if argument in _WITH_A_VALUE}


def _is_path(argument: str) -> bool:
    """Whether an argument is a path, there or not, such as runs/demo/Tiny/seed=0, and not an override or an option."""
    word, equals, _ = argument.partition("=")
    return not argument.startswith("-") and (
        not equals or Path(argument).exists() or "/" in word.removeprefix("hydra/")
    )


def _quoted(argument: str) -> str:
    """Quote a value that holds an equals sign, as run folders do (seed=0), which Hydra's grammar refuses bare."""
    word, equals, value = argument.partition("=")
    if argument.startswith("-") or "=" not in value or value[0] in "'\"[{$":
        return argument
    return f"{word}{equals}'{value}'"


def _unknown_word(command: str, word: str) -> str:
    around = GlobalHydra.instance().hydra  # of a command that composes the words of another
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(shipped("conf")), version_base="1.3"):
            node: Any = hydra.compose(command, _choices())
    finally:
        GlobalHydra.instance().hydra = around
    if word in node:
        return f"{word} is a choice of a file: say {word}.WORD=VALUE, or '~{word}' '+{word}={{...}}' for another whole"
    prefix, _, leaf = word.rpartition(".")
    inside = OmegaConf.select(node, prefix) if prefix else node
    if not isinstance(inside, DictConfig):
        return f"{word}: there is no {prefix} in the configuration"
    names = sorted(str(name) for name in inside if not str(name).startswith("_"))
    near = get_close_matches(leaf, names, n=1)
    hint = f"did you mean {'.'.join(filter(None, (prefix, near[0])))}? " if near else ""
    return f"unknown word {word!r}; {hint}allowed{' in ' + prefix if prefix else ''}: {', '.join(names)}"


def _choices() -> list[str]:
    """The overrides on the command line that choose a file of conf/, whose words are then the ones allowed."""
    words = (argument.partition("=") for argument in sys.argv[1:])
    return [
        f"{group}={file}" for group, _, file in words if file and (shipped("conf") / group / f"{file}.yaml").is_file()
    ]


_WITH_A_VALUE = (
    *("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"),
    *("--cfg", "-c", "--package", "-p", "--experimental-rerun"),
)
"""Hydra's options whose value is the next argument."""
_ABSENT = object()
_LONGEST = 200  # bytes of a name; file systems allow 255, and files beside it need some
