"""Whether a finished run is the one that is asked for: by its configuration, and by its data."""

from __future__ import annotations

__all__ = ["already_done", "data_difference", "differences", "fingerprints", "plain_words"]

import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vac_lightning.commands import app
from vac_lightning.configurations import config_difference, config_hash
from vac_lightning.runs import Run

log = logging.getLogger(__name__)


def plain_words(config: DictConfig) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration with data.root and data.cache_dir absolute, so that the run can be evaluated from any folder.

    A table without a root is given its folder for one, so that both are found where data.root= says they lie now.
    The same resolved, which is what a run is known by, comes second.
    """
    where = {word: config.data.get(word) for word in ("root", "table", "cache_dir")}
    if where["root"] is None and where["table"] is not None:
        where["root"], where["table"] = Path(where["table"]).parent, Path(where["table"]).name
    for word in ("root", "cache_dir"):
        where[word] = where[word] and str(Path(where[word]).expanduser().absolute())
    merged = OmegaConf.merge(config, {"data": {word: place for word, place in where.items() if place is not None}})
    assert isinstance(merged, DictConfig)
    plain = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(plain, dict)
    return merged, {str(word): value for word, value in plain.items()}


def already_done(run: Run, config: DictConfig, plain: Mapping[str, Any]) -> float:
    """The test mAP of a finished run of this configuration and this data, in percent; NaN where it has none.

    Raises:
        UsageError: it is of another.
    """
    results = run.results()
    if results["config_hash"] != config_hash(plain):
        raise app.UsageError(
            f"{run.path} holds a finished run of another configuration ({differences(results, plain)}): choose"
            " experiment=NAME or run_dir=PATH for this one, or overwrite=true to set that one aside"
        )
    try:
        changed = data_difference(results, config)
    except (OSError, ValueError) as error:
        log.warning("%s: its data cannot be read here to see whether it has changed: %s", run.path, error)
        changed = ""
    if changed:
        raise app.UsageError(
            f"{run.path} holds a finished run of other data ({changed}): choose experiment=NAME or run_dir=PATH"
            " for this one, or overwrite=true to set that one aside"
        )
    log.info("%s is finished already; overwrite=true trains it again", run.path)
    mAP = results["metrics"]["best"]["test"]["mAP"]
    return float("nan") if mAP is None else float(mAP)


def differences(results: Mapping[str, Any], plain: Mapping[str, Any], most: int = 8) -> str:
    """The first words in which a run differs, those that both have before others, and how many more there are."""
    listed = config_difference(results["config"], plain)
    more = len(listed) - most
    return ", ".join(sorted(listed, key=lambda each: "(not set)" in each)[:most]) + (
        f", and {more} more" if more > 0 else ""
    )


def data_difference(results: Mapping[str, Any], config: DictConfig) -> str:
    """The splits whose fingerprints are not those that a run was trained and tested on; "" where all are.

    Raises:
        ValueError, OSError: the data cannot be read.
    """
    now = fingerprints(config)
    before = results["data_fingerprint"]
    return ", ".join(f"{role}: {before[role]} -> {now[role]}" for role in sorted(now) if before.get(role) != now[role])


def fingerprints(config: DictConfig) -> dict[str, str]:
    """The fingerprint of every split, by role. Read once for all runs of the same data.

    Raises:
        ValueError, OSError: the data cannot be read.
    """
    data = OmegaConf.to_container(config.data, resolve=True)
    assert isinstance(data, dict)
    # What is drawn for a sample, and what is kept of its pixels, is not in a fingerprint.
    words = {word: value for word, value in data.items() if word not in ("augmentation", "cache", "cache_format")}
    return dict(_fingerprints(json.dumps(words, sort_keys=True), (config.image_size, *config.small_sizes)))


@lru_cache(maxsize=8)
def _fingerprints(words: str, sizes: Sequence[int]) -> dict[str, str]:
    from vac_lightning.commands.targets import instantiate
    from vac_lightning.data.base import fingerprint

    make = instantiate(OmegaConf.create(json.loads(words)), "data")
    return {role: fingerprint(make(role, sizes)) for role in ("train", "val", "test")}
