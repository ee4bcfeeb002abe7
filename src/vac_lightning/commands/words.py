"""What the words on the command line may say, checked before anything heavy is imported."""

from __future__ import annotations

__all__ = ["check"]

from collections.abc import Callable, Mapping
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

PROTOCOLS = ("vac",)
"""metrics.PROTOCOLS, which cannot be asked without importing torch."""


def check(config: DictConfig) -> None:
    """Check every word that has a range, and that all interpolations resolve.

    Raises:
        HydraException: a value out of range; one line that names the word, its value and what is allowed.
    """
    for word, (allowed, accepts) in _RANGES.items():
        value = OmegaConf.select(config, word, default=_ABSENT)
        if value is not _ABSENT and not accepts(value):
            raise HydraException(f"{word}={value}: expected {allowed}")
    transform = OmegaConf.select(config, "transform", default=_ABSENT)
    if transform is not _ABSENT:
        letters = sorted({*config.views.letters, "s"})
        text = str(transform)
        if text != "none" and (not text or set(text) - set(letters) or len(set(text)) < len(text)):
            raise HydraException(
                f"transform={text}: expected none, or distinct letters out of {', '.join(letters)}, such as f or fs"
            )


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


_ABSENT = object()
_RANGES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "lambda": ("a number of at least 0", _number),
    "seed": ("a whole number of at least 0", _whole(0)),
    "batch_size": ("a whole number of at least 1", lambda value: value is None or _whole(1)(value)),
    "num_workers": ("a whole number of at least 0", lambda value: value is None or _whole(0)(value)),
    "image_size": ("a whole number of pixels, at least 1", _whole(1)),
    "norm": ("mse (authors' code) or l2 (the paper's formula)", lambda value: value in ("mse", "l2")),
    "optimizer.lr": ("a number of at least 0", _number),
    "trainer.max_epochs": ("a whole number of at least 1", _whole(1)),
    "protocol": (", ".join(PROTOCOLS), lambda value: value in PROTOCOLS),
    "top_k": ("a whole number of at least 1, or null", lambda value: value is None or _whole(1)(value)),
    "split": ("train, val or test", lambda value: value in ("train", "val", "test")),
    "checkpoint": ("best or last", lambda value: value in ("best", "last")),
}
