"""The words of the commands that have a range, and what is allowed of each."""

from __future__ import annotations

__all__ = ["RANGES"]

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import ListConfig


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _share(value: Any) -> bool:
    return value is None or (_number(value) and value > 0)


def _sizes(value: Any) -> bool:
    return isinstance(value, ListConfig) and len(value) > 0 and all(_whole(1)(size) for size in value)


def _seeds(value: Any) -> bool:
    return isinstance(value, ListConfig) and len(value) > 0 and all(map(_whole(0), value))


RANGES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "data.cache": ("true or false", lambda value: value is None or isinstance(value, bool)),
    "data.cache_format": ("raw or jpeg", lambda value: value in ("raw", "jpeg")),
    "lambda": ("a number of at least 0", _number),
    "seed": ("a whole number of at least 0", _whole(0)),
    "batch_size": ("a whole number of at least 1", lambda value: value is None or _whole(1)(value)),
    "num_workers": ("auto, or a whole number of at least 0", lambda value: value in (None, "auto") or _whole(0)(value)),
    "prefetch_factor": ("a whole number of at least 1", _whole(1)),
    "pin_memory": ("auto, true or false", lambda value: value == "auto" or isinstance(value, bool)),
    "reuse_memory": ("true or false", lambda value: isinstance(value, bool)),
    "compile": ("true or false", lambda value: isinstance(value, bool)),
    "image_size": ("a whole number of pixels, at least 1", _whole(1)),
    "small_sizes": ("a list of whole numbers of pixels, such as [192]", _sizes),
    "pair_weights.large": ("a number of at least 0", _number),
    "pair_weights.small": ("a number of at least 0", _number),
    "pair_weights.scale": ("a number of at least 0", _number),
    "loss.unspecified": ("negative or ignore", lambda value: value in ("negative", "ignore")),
    "detach": ("true or false", lambda value: isinstance(value, bool)),
    "channels_last": ("true or false", lambda value: isinstance(value, bool)),
    "activation_checkpointing": ("true or false", lambda value: isinstance(value, bool)),
    "norm": ("mse (authors' code) or l2 (the paper's formula)", lambda value: value in ("mse", "l2")),
    "data.crowd": ("true or false", lambda value: isinstance(value, bool)),
    "data.holdout": (
        "a share between 0 and 1, or null",
        lambda value: value is None or (_number(value) and 0 < value < 1),
    ),
    "data.holdout_seed": ("a whole number of at least 0", _whole(0)),
    "devices": ("a whole number of at least 1", lambda value: value is None or _whole(1)(value)),
    "seeds": ("a list of whole numbers, such as [0,1,2]", _seeds),
    "checkpoints.every_n_steps": ("a whole number of at least 1, or null", lambda v: v is None or _whole(1)(v)),
    "checkpoints.every_n_minutes": ("a number of at least 0, or null", lambda value: value is None or _number(value)),
    "optimizer.lr": ("a number of at least 0", _number),
    "trainer.max_epochs": ("a whole number of at least 1", _whole(1)),
    "trainer.limit_train_batches": ("a number above 0, or null", _share),
    "trainer.limit_val_batches": (
        "a number above 0, or null; trainer.check_val_every_n_epoch=1000 trains without validation",
        _share,
    ),
    "trainer.max_steps": ("null, as a run is measured in trainer.max_epochs", lambda value: value in (None, -1)),
    "trainer.fast_dev_run": ("null; recipe=smoke tries everything", lambda value: not value),
    "trainer.callbacks": ("null; say +callbacks.NAME={_target_: ...}", lambda value: value is None),
    "trainer.logger": ("null; say logger=...", lambda value: value is None),
    "trainer.plugins": ("null; a run brings its own for checkpoints", lambda value: value is None),
    "trainer.limit_test_batches": ("a number above 0, or null", _share),
    "resamples": ("0, or a whole number of at least 100", lambda value: value == 0 or _whole(100)(value)),
    "watch": (
        "true, false or a number of seconds",
        lambda value: isinstance(value, bool) or (_number(value) and value > 0),
    ),
    "run": ("one run folder", lambda value: not isinstance(value, ListConfig)),
    "predictions": ("one predictions.npz", lambda value: not isinstance(value, ListConfig)),
    "top_k": ("a whole number of at least 1, or null", lambda value: value is None or _whole(1)(value)),
    "test_views": ("none, or letters such as f or fs", lambda value: isinstance(value, str)),
    "strict": ("true or false", lambda value: isinstance(value, bool)),
    "threads": ("a whole number of at least 1, or null", lambda value: value is None or _whole(1)(value)),
    "top": ("a whole number from 1 to 100", lambda value: _whole(1)(value) and value <= 100),
    "split": ("train, val or test", lambda value: value in ("train", "val", "test")),
    "checkpoint": ("best or last", lambda value: value in ("best", "last")),
}
"""Word -> what is allowed, in words, and whether a value is; checked before the first job of a sweep starts."""
