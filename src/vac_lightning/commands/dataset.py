"""The data set of a configuration, for commands that look at data and train nothing."""

from __future__ import annotations

__all__ = ["dataset"]

from collections.abc import Callable, Sequence

from omegaconf import DictConfig

from vac_lightning.commands.targets import instantiate
from vac_lightning.data.base import Dataset


def dataset(config: DictConfig) -> Callable[[str, Sequence[int]], Dataset]:
    """(role, sizes) -> a split as it is on disk: nothing is made ready for training, and nothing left out."""
    plain = {"augmentation": None, "cache": False, "on_bad_image": "raise"}
    return instantiate(config.data, "data", **{word: value for word, value in plain.items() if word in config.data})
