"""What a configuration may make: the `_target_`s that are allowed, and the one place where they are made.

A configuration may come from somebody else. Its targets are therefore looked up in a list: this package's public
names, classes of the libraries it stands on, and modules that a person vouches for in the environment. A name is
checked where it is written, before anything heavy is imported; what it turns out to name is checked again before it
is called, because every module carries others along (`vac_lightning.losses.torch.load`).
"""

from __future__ import annotations

__all__ = ["VOUCHED", "check", "check_hydra", "instantiate", "takes"]

import ast
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import hydra.utils
from hydra._internal.utils import _locate  # the very function that hydra.utils.instantiate looks targets up with
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from vac_lightning.commands import launchers

VOUCHED = "VAC_ALLOW"
"""The environment variable that names further modules, with commas; never a word of a configuration, which could
otherwise vouch for itself."""

OWN = ("attention", "callbacks", "data", "loggers", "losses", "networks", "transforms", "views")
"""The rooms of this package whose public names are targets. Not `runs`, `report`, `commands`: they write files."""

LIBRARIES = {
    "torch.optim": ("torch.optim",),  # optimisers and schedulers
    "torch.nn": ("torch.nn",),  # layers, for a backbone that is written out
    "pytorch_lightning.callbacks": ("pytorch_lightning.callbacks",),
    "pytorch_lightning.loggers": ("pytorch_lightning.loggers", "lightning_fabric.loggers"),
    # What the Trainer takes as objects where a word of its own does not say enough:
    "pytorch_lightning.plugins": ("pytorch_lightning.plugins", "lightning_fabric.plugins"),
    "pytorch_lightning.profilers": ("pytorch_lightning.profilers",),
    "pytorch_lightning.strategies": ("pytorch_lightning.strategies", "lightning_fabric.strategies"),
    "albumentations": ("albumentations",),  # augmentations
}
"""Where classes may be taken from -> the modules that such a class must be defined in."""

CLASSES = ("pytorch_lightning.Trainer", "datetime.timedelta")  # timedelta: of the Trainer's max_time and the Timer

HYDRAS_OWN = (
    "hydra.experimental.callbacks.LogJobReturnCallback",
    "hydra.experimental.callbacks.PickleJobInfoCallback",
    "logging.Formatter",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.StreamHandler",
    "logging.handlers.RotatingFileHandler",
    "logging.handlers.TimedRotatingFileHandler",
    "rich.logging.RichHandler",
    "colorlog.ColoredFormatter",
)
"""What Hydra makes by itself: its callbacks, and where messages go. Launchers and sweepers are those installed."""


def check(config: Mapping[str, Any]) -> None:
    """Check the name of every target in a resolved configuration, importing none.

    A target that still refers to another word, whose value is not known yet, is left to `instantiate`.

    Raises:
        HydraException: a target that is not allowed; one line that names its word and the remedy.
    """
    for word, key, value in _leaves(config):
        if key == "_target_" and not _is_allowed(value) and "${" not in str(value):
            raise _refusal(word, value)


def check_hydra(config: DictConfig) -> None:
    """Check what Hydra itself makes, before a command is reached: callbacks, launcher, sweeper and logging.

    config: Hydra's own part of a configuration. In these places targets are names as they stand: what refers to
    another word could be one thing now and another when Hydra reads it.

    Raises:
        HydraException: a target that is not allowed, a reference, or a variable set in the environment.
    """
    launchers.check(config.launcher)
    plugins = {f"{made.__module__}.{made.__qualname__}" for kind in (Launcher, Sweeper) for made in _installed(kind)}
    for part in ("callbacks", "launcher", "sweeper", "hydra_logging", "job_logging"):
        allowed = {*HYDRAS_OWN, *(plugins if part in ("launcher", "sweeper") else ())}
        node = config.get(part)
        plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else None
        for word, key, value in _leaves(plain, f"hydra.{part}"):
            if key in ("_target_", "class", "()") and value not in allowed:
                if not _is_vouched(value):
                    raise _refusal(word, value)
                _check_object(word, value)
            elif isinstance(value, str) and _refers(value):
                raise HydraException(f"{word}={value}: here a value is written out, not referred to")
    if config.job.env_set:
        raise HydraException("hydra.job.env_set: set these variables in the environment that vac is started from")


def instantiate(node: DictConfig | None, word: str, **changes: Any) -> Any:
    """Make what a configuration describes at a word; `changes` take the place of its arguments.

    Raises:
        HydraException: a target, here or within, that is not allowed, by its name or by what it names.
    """
    if node is None:
        return None
    plain = OmegaConf.to_container(node, resolve=True)
    for inner, key, value in _leaves(plain, word):
        if key == "_target_":
            if not _is_allowed(value):
                raise _refusal(inner, value)
            _check_object(inner, value)
        elif isinstance(value, str) and "${" in value:
            # Hydra would resolve it a second time, after this check.
            raise HydraException(f"{inner}={value}: an escaped reference cannot be passed on; write the value out")
    return hydra.utils.instantiate(plain, **changes, _convert_="all")


def takes(node: DictConfig, word: str, argument: str) -> bool:
    """Whether the target at a word takes an argument of this name.

    Raises:
        HydraException: the target is not allowed.
    """
    target = node["_target_"]
    if not _is_allowed(target):
        raise _refusal(f"{word}._target_", target)
    _check_object(f"{word}._target_", target)
    try:
        parameters = inspect.signature(_locate(target)).parameters.values()
    except ValueError:  # builtins may have none
        return False
    return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in parameters)


def _leaves(value: Any, word: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every value that is no mapping or list, with its word and the last key of it."""
    if isinstance(value, Mapping):
        for name, child in value.items():
            if name == "_target_" and not isinstance(child, str):
                yield f"{word}._target_".lstrip("."), "_target_", child
            yield from _leaves(child, f"{word}.{name}".lstrip("."), str(name))
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from _leaves(child, f"{word}.{position}".lstrip("."))
    else:
        yield word, key, value


def _is_allowed(target: Any) -> bool:
    """Whether a target's name is on the list."""
    if not _is_public_name(target):
        return False
    module, _, name = target.rpartition(".")
    return (
        name in _public(module)
        or target in CLASSES
        or any(_is_below(target, place) for place in LIBRARIES)
        or _is_vouched(target)
    )


def _check_object(word: str, target: str) -> None:
    """Check what a target of an allowed name is: made where it was said to be, and of a library a class."""
    module, _, name = target.rpartition(".")
    if name in _public(module) or target in CLASSES:
        return
    try:
        found = _locate(target)
    except ImportError as error:
        raise HydraException(f"{word}={target}: cannot be found; {error}") from error
    home = str(getattr(found, "__module__", ""))
    for place, homes in LIBRARIES.items():
        if _is_below(target, place) and inspect.isclass(found) and any(_is_below(home, h) for h in homes):
            return
    if _is_vouched(target):
        if not (inspect.isclass(found) or inspect.isroutine(found)):
            # An object, such as a partial, is at home in the module that holds it.
            home = str(getattr(_locate(module), "__name__", "")) if module else ""
        if any(_is_below(home, vouched) for vouched in _vouched()):
            return
    raise _refusal(word, target, f" ({home or type(found).__name__}.{getattr(found, '__name__', name)})")


@cache
def _public(module: str) -> frozenset[str]:
    """The public names of one of our modules that may be a target, read from its file without importing it."""
    package, _, room = module.partition(".")
    file = Path(__file__).parents[1].joinpath(*room.split(".")).with_suffix(".py") if room else Path()
    # Not what lies deeper in a room, which keeps files and writes lists.
    if package != "vac_lightning" or room.partition(".")[0] not in OWN or room.count(".") > 1 or not file.is_file():
        return frozenset()
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and [*map(ast.unparse, statement.targets)] == ["__all__"]:
            return frozenset(ast.literal_eval(statement.value))
    return frozenset()


def _is_public_name(target: Any) -> bool:
    return isinstance(target, str) and all(part.isidentifier() and part[0] != "_" for part in target.split("."))


def _is_vouched(target: Any) -> bool:
    return _is_public_name(target) and any(_is_below(target, module) for module in _vouched())


def _vouched() -> set[str]:
    return {module.strip() for module in os.environ.get(VOUCHED, "").split(",")} - {""}


def _is_below(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def _refers(value: str) -> bool:
    """Whether a text stands for something else: a word of the configuration, or an object of logging's."""
    if value in ("ext://sys.stdout", "ext://sys.stderr"):
        return False
    return "${" in _HYDRAS_PLACES.sub("", value) or value.startswith(("cfg://", "ext://"))


def _installed(kind: Any) -> list[Any]:
    return list(Plugins.instance().discover(kind))


def _refusal(word: str, target: Any, what: str = "") -> HydraException:
    top = str(target).partition(".")[0]
    # Nobody should be led to vouch for all of torch.
    known = {*sys.stdlib_module_names, *(place.partition(".")[0] for place in LIBRARIES), "hydra", "vac_lightning"}
    example = top if top.isidentifier() and top not in known else "MODULE"
    return HydraException(
        f"{word}={target}{what} is not among the targets that a configuration may name; a module that you trust as your"
        f" own you vouch for in the environment, with {VOUCHED}={example}"
    )


_HYDRAS_PLACES = re.compile(r"\$\{hydra\.(runtime\.(output_dir|cwd)|job\.(name|id|num)|run\.dir|sweep\.(dir|subdir))\}")
"""References to words that Hydra's schema holds to be texts, so that no target can hide behind them."""
