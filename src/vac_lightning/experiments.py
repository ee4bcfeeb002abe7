"""The experiments: a folder of rows a published table or figure, and the numbers published of it."""

from __future__ import annotations

__all__ = ["Experiment", "ExperimentRow", "PublishedRow", "find", "names"]

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vac_lightning.runs import row_name
from vac_lightning.shipped import shipped


@dataclass(frozen=True)
class ExperimentRow:
    """One row that can be run.

    name: that of its runs, such as R50+ACf. file: its Hydra experiment file.
    experiment: the folder below runs/ that its runs lie in: another's, where they are the same runs.
    """

    name: str
    file: Path
    experiment: str


@dataclass(frozen=True)
class PublishedRow:
    """What a paper prints of one row.

    method: as the paper prints it, such as ResNet101*. row: the ExperimentRow that reproduces it; None where none does.
    metrics: metric -> percent, of those the paper gives.
    """

    method: str
    row: str | None
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Experiment:
    """rows: in the order of the published table, then by file name. published: in the paper's order."""

    name: str
    rows: tuple[ExperimentRow, ...]
    published: tuple[PublishedRow, ...]


def find(name: str, own: Path | None = None) -> Experiment | None:
    """The experiment of a folder's name, or None where there is none.

    `<name>_on_<data>` are the same rows on other data, which the published numbers say nothing of.

    own: a person's own folder of such folders, looked into first.

    Raises:
        ValueError: a row or a published number that cannot be read.
    """
    for place in filter(None, (own, shipped("experiments"))):
        if name in names(place):
            return _read(place / name, own)
    base, on, data = name.rpartition("_on_")
    if not (on and data) or (experiment := find(base, own)) is None:
        return None
    rows = tuple(ExperimentRow(row.name, row.file, f"{row.experiment}_on_{data}") for row in experiment.rows)
    return Experiment(name, rows, ())


def names(place: Path | None = None) -> list[str]:
    """The names of all experiments, those that come with the package or those in a person's own folder."""
    return sorted({file.parent.name for file in (place or shipped("experiments")).glob("*/*.yaml")})


def _read(folder: Path, own: Path | None) -> Experiment:
    published = _published(folder / "published.csv")
    rows = [_row(file, own) for file in sorted(folder.glob("*.yaml"))]
    order = {row.row: position for position, row in enumerate(published)}
    rows.sort(key=lambda row: order.get(row.name, len(order)))
    return Experiment(folder.name, tuple(rows), published)


def _published(path: Path) -> tuple[PublishedRow, ...]:
    """The lines of a published.csv: method, row, and metrics in percent, empty where the paper has none."""
    if not path.is_file():
        return ()
    try:
        return tuple(
            PublishedRow(
                line["method"],
                line["row"] or None,
                {name: float(cell) for name, cell in line.items() if name not in ("method", "row") and cell},
            )
            for line in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected the columns method, row, and metrics in percent ({error!r})") from error


def _row(file: Path, own: Path | None) -> ExperimentRow:
    content = _yaml(file)
    name, experiment = content.get("row"), str(content.get("experiment", file.parent.name))
    if name is None:
        defaults = _yaml(shipped("conf") / "train.yaml")
        words = {word: content.get(word, defaults[word]) for word in ("transform", "lambda")}
        name = row_name(_backbone_name(content, defaults, own), str(words["transform"]), float(words["lambda"]))
    return ExperimentRow(str(name), file, experiment)


def _backbone_name(content: Mapping[str, Any], defaults: Mapping[str, Any], own: Path | None) -> str:
    """The name that the row itself, or else its backbone's file, gives; data may bring a backbone, which a row wins."""
    if "backbone_name" in content:
        return str(content["backbone_name"])
    chosen, general = _choices(content), _choices(defaults)
    data = chosen.get("data", general["data"])
    brought = _choices(_yaml(_configuration(own, "data", data)))
    backbone = chosen.get("backbone", brought.get("backbone", general["backbone"]))
    return str(_yaml(_configuration(own, "backbone", backbone))["backbone_name"])


def _configuration(own: Path | None, group: str, file: str) -> Path:
    """A file of a group, a person's own before the one of that name that comes with the package."""
    ours = shipped("conf") / group / f"{file}.yaml"
    return theirs if own is not None and (theirs := own / group / f"{file}.yaml").is_file() else ours


def _choices(content: Mapping[str, Any]) -> dict[str, str]:
    """Group -> file of a defaults list: of "override /backbone@_global_.backbone: tiny", backbone and tiny."""
    listed = [entry for entry in content.get("defaults") or () if isinstance(entry, dict)]
    groups = (
        (re.sub(r"^(override )?\s*/?|@.*$", "", group), file) for entry in listed for group, file in entry.items()
    )
    return {group: str(file) for group, file in groups}


def _yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected words such as transform: f")
    return content
