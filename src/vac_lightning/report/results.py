"""What results.json says of a finished run: read once, and what others may have left out filled in."""

from __future__ import annotations

__all__ = ["Result", "read"]

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vac_lightning.report.contents import EPOCHS
from vac_lightning.runs import Run


@dataclass(frozen=True)
class Result:
    """One finished run.

    metrics, epochs: "best" and "last" -> of it the test metrics in percent, NaN where undefined, and its number.
    devices: how many trained together.
    """

    run: Run
    row: str
    experiment: str
    seed: int
    config: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, float]]
    epochs: Mapping[str, int]
    chosen_on: str
    labels: tuple[str, ...]
    versions: Mapping[str, str]
    device: str
    devices: int
    train_seconds: float
    images_per_s: float | None
    peak_memory_bytes: int | None
    data: str

    @property
    def protocol(self) -> str:
        return str(self.config.get("protocol", "vac"))

    @property
    def backbone(self) -> str | None:
        return self.config.get("backbone_name")

    @property
    def transform(self) -> str | None:
        return self.config.get("transform")

    @property
    def lambda_(self) -> float | None:
        """None where no transform makes views that could agree."""
        return None if self.transform == "none" else self.config.get("lambda")


def read(run: Run) -> Result:
    """A run's results.json.

    Raises:
        ValueError: the file is damaged, or lacks what names a run and its metrics.
    """
    try:
        held = run.results()
        epochs = {name: held["metrics"][name] for name in EPOCHS}
        device = str(held.get("device") or "")
        return Result(
            run=run,
            row=str(held["row"]),
            experiment=str(held["experiment"]),
            seed=int(held["seed"]),
            config=_as_trained(held),
            metrics={name: {key: _number(v) for key, v in epochs[name]["test"].items()} for name in EPOCHS},
            epochs={name: int(epochs[name]["epoch"]) for name in EPOCHS},
            chosen_on=str(epochs["best"]["chosen_on"]),
            labels=tuple(map(str, held.get("labels") or ())),
            versions={str(name): str(version) for name, version in (held.get("versions") or {}).items()},
            device=device,
            devices=int(match[1]) if (match := re.match(r"(\d+) x ", device)) else 1,
            train_seconds=float(held.get("train_seconds") or 0),
            images_per_s=held.get("images_per_s"),
            peak_memory_bytes=held.get("peak_device_memory_bytes"),
            data=str((held.get("data_fingerprint") or {}).get("test", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{run.path / 'results.json'} is damaged or not of a run ({error!r}): train it again, or move it away"
        ) from error


def _as_trained(held: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with what "auto" came to on the device of the run."""
    config = dict(held["config"])
    if "precision" in held and isinstance(config.get("trainer"), Mapping):
        config["trainer"] = {**config["trainer"], "precision": held["precision"]}
    return config


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
