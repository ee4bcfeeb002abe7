"""What of a configuration decides a run's result: its hash, and how two differ."""

from __future__ import annotations

__all__ = ["NOT_OF_THE_RESULT", "config_difference", "config_hash"]

import hashlib
import json
from collections.abc import Mapping
from typing import Any

NOT_OF_THE_RESULT = (
    "run_dir",
    "runs_dir",
    "experiment",
    "row",
    "variant",
    "logger",
    "overwrite",
    "resume",
    "checkpoints",
    "num_workers",
    "prefetch_factor",
    "pin_memory",
    "compile",
    "reuse_memory",
    "activation_checkpointing",
    "attention",
)
"""Top-level words that change where a run lies or how it is watched, not what comes out of it."""


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 (first 16 hex digits) of what determines a run's result."""
    text = json.dumps(_of_the_result(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The words in which two configurations differ, as "recipe.lr: 0.1 -> 0.2"."""
    before, after = _flat(_of_the_result(old)), _flat(_of_the_result(new))
    return [
        f"{word}: {before.get(word, '(not set)')} -> {after.get(word, '(not set)')}"
        for word in sorted({*before, *after})
        if before.get(word, _MISSING) != after.get(word, _MISSING)
    ]


_MISSING = object()
_CACHE = ("cache", "cache_dir", "cache_format")


def _of_the_result(config: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {*NOT_OF_THE_RESULT}
    if config.get("transform") == "none":
        left_out |= {"lambda", "norm", "detach", "pair_weights"}
    kept = {word: value for word, value in config.items() if word not in left_out}
    data = kept.get("data")
    # Pixels kept raw are the pixels; kept as JPEG they are others, which the one word then says.
    through_jpeg = isinstance(data, Mapping) and data.get("cache") is True and data.get("cache_format") == "jpeg"
    for word, watched in (
        ("trainer", ("enable_progress_bar", "log_every_n_steps")),
        ("callbacks", ("progress",)),
        ("data", _CACHE[: 2 if through_jpeg else 3] if isinstance(data, Mapping) and "cache_format" in data else ()),
    ):
        if isinstance(kept.get(word), Mapping):
            kept[word] = {key: value for key, value in kept[word].items() if key not in watched}
    data = kept.get("data")
    if isinstance(data, Mapping) and data.get("augmentation", _MISSING) is None:  # as where a data set takes none
        kept["data"] = {key: value for key, value in data.items() if key != "augmentation"}
    return dict(_without_place(kept, str(config.get("run_dir") or "")))


def _without_place(value: Any, place: str) -> Any:
    """The same run elsewhere has its folder in other words too, such as where checkpoints go."""
    if isinstance(value, Mapping):
        return {word: _without_place(child, place) for word, child in value.items()}
    if isinstance(value, list | tuple):
        return [_without_place(child, place) for child in value]
    if place and isinstance(value, str) and (value == place or value.startswith(place + "/")):
        return "${run_dir}" + value[len(place) :]
    return value


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        name: leaf
        for word, child in value.items()
        for name, leaf in _flat(child, f"{prefix}.{word}".strip(".")).items()
    }
