"""Every job that a command line asks for, composed and checked before Hydra, or anything heavy, makes a thing of it."""

from __future__ import annotations

__all__ = ["check_arguments", "composer"]

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import hydra
import hydra.version
from hydra._internal.hydra import Hydra  # what hydra.main does with --config-dir, which has no public function
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vac_lightning.commands import credentials, targets
from vac_lightning.commands.words import check
from vac_lightning.shipped import shipped


def check_arguments(command: str, arguments: Sequence[str]) -> int:
    """Compose what the arguments ask for, every job of a sweep, and check it before anything is made or written.

    Returns how many jobs there are; of a sweeper that draws its values later, those known now.

    Raises:
        HydraException: a word, a target or a name that is not allowed, or a credential; in one line.
    """
    asked = get_args_parser().parse_args(list(arguments))
    if asked.shell_completion:
        return 0  # completes words, composes nothing that runs
    if asked.experimental_rerun is not None:
        raise HydraException("--experimental-rerun: reads a pickle, which can hold code; say the run's words again")
    if asked.config_path is not None:
        raise HydraException("--config-path: the commands keep their own conf/; --config-dir=FOLDER adds one of yours")
    credentials.check({}, asked.overrides)
    name = asked.config_name or command
    runs = asked.cfg is None and asked.info is None
    with _composing(asked.config_dir):
        once, swept = _overrides(asked.overrides)
        sweep = _composed(name, once)
        _check_safe(sweep)
        params = sweep.hydra.sweeper.get("params") or {}
        _, by_sweeper = _overrides([f"{word}={values}" for word, values in params.items()])
        jobs = [*product(*swept, *by_sweeper)]
        for job in jobs:
            config = _composed(name, [*once, *job]) if job else sweep
            _check_safe(config)
            if runs:
                check(config)
    return len(jobs)


@contextmanager
def composer(command: str, folder: str | None) -> Iterator[Callable[[Sequence[str]], DictConfig]]:
    """A function that composes one job from its overrides, checked, Hydra's own part included; inside the block alone.

    folder: a person's own, as of --config-dir. The function raises HydraException as `check_arguments` does.
    """

    def compose(overrides: Sequence[str]) -> DictConfig:
        credentials.check({}, overrides)
        config = _composed(command, overrides)
        _check_safe(config)
        check(config)
        return config

    with _composing(folder):
        yield compose


def _check_safe(config: DictConfig) -> None:
    """Check what a configuration would have made, and that no credential would be saved with it.

    Raises:
        HydraException: a target that is not allowed, or a credential; one line that names its word.
    """
    plain = _plain(config)
    targets.check_hydra(config.hydra)
    targets.check(plain)
    credentials.check(plain)
    credentials.check({"hydra": OmegaConf.to_container(config.hydra, resolve=False)})


@contextmanager
def _composing(folder: str | None) -> Iterator[None]:
    """While Hydra composes as it will for the command: from conf/, experiments/ and a person's own folder."""
    places = create_config_search_path(str(shipped("conf")))
    if folder is not None:
        after = SearchPathQuery(provider="schema")
        places.prepend(provider="command-line", path=f"file://{Path(folder).absolute()}", anchor=after)
    hydra.version.setbase("1.3")
    before, around = (
        HydraConfig.instance().cfg,
        GlobalHydra.instance().hydra,
    )  # of a command that composes others' words
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2("vac", places)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before
        GlobalHydra.instance().hydra = around


def _composed(name: str, overrides: Sequence[str]) -> DictConfig:
    """A job's configuration with Hydra's own part, and with what only Hydra knows put where words refer to it."""
    config = hydra.compose(name, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    return config


def _overrides(words: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The overrides that hold for all jobs, and for every swept word the overrides it stands for, globs included.

    A sweeper that draws its values from a range draws them later; such a word is left out here.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides(list(words))
    once = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    swept = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        for override in overrides
        if override.is_sweep_override() and override.is_discrete_sweep()
    ]
    return once, swept


def _plain(config: DictConfig) -> dict[str, Any]:
    """A configuration without Hydra's part, word by word resolved, and as it is written where that cannot be yet."""
    plain: dict[str, Any] = {}
    for word in config:
        if word == "hydra":
            continue
        try:
            node = config[word]
            plain[str(word)] = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        except OmegaConfBaseException:
            written = OmegaConf.to_container(config, resolve=False)
            assert isinstance(written, dict)
            plain[str(word)] = written[word]
    return plain
