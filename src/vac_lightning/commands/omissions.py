"""Images that a run left out, where `data.on_bad_image=skip`: listed in its folder, counted, and told."""

from __future__ import annotations

__all__ = ["counts", "told", "write"]

import csv
import io
import logging
from collections.abc import Mapping

from vac_lightning.data.datamodule import DataModule
from vac_lightning.data.reading import Photos
from vac_lightning.names import shown
from vac_lightning.runs import Run, write_atomically

log = logging.getLogger(__name__)


def write(run: Run, data: DataModule) -> None:
    """Write left_out.csv (split, file, reason, samples), a line for each image left out, and log how many there are."""
    if not (screened := _screened(data)):
        return
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("split", "file", "reason", "samples"))
    for role, split in screened.items():
        lines.writerows((role, shown(file), reason, samples) for file, reason, samples in split.left_out)
    path = run.path / _NAME
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))
    for role, split in screened.items():
        log.info("%s: %s, listed in %s", role, _count(split), path)


def counts(data: DataModule) -> dict[str, dict[str, dict[str, int]]]:
    """For results.json: images and samples left out, by role; nothing where none are to be."""
    numbers = {
        role: {"images": len(split.left_out), "samples": sum(file.samples for file in split.left_out)}
        for role, split in _screened(data).items()
    }
    return {"left_out": numbers} if numbers else {}


def told(run: Run, data: DataModule, role: str) -> str | None:
    """What was left out of a split, and whether the run left out the same; None where nothing is to be left out."""
    split = data.split(role)
    if not isinstance(split, Photos) or split.on_bad_image != "skip":
        return None
    path = run.path / _NAME
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))) if path.is_file() else None
    then = None if rows is None else {row.get("file") for row in rows if row.get("split") == role}
    differs = then is not None and then != {shown(file.file) for file in split.left_out}
    return _count(split) + (f", not those in {path}: metrics are of other samples" if differs else "")


def _screened(data: DataModule) -> Mapping[str, Photos]:
    """The splits that images were to be left out of, by role."""
    splits = {role: data.split(role) for role in ("train", "val", "test")}
    return {role: split for role, split in splits.items() if isinstance(split, Photos) and split.on_bad_image == "skip"}


def _count(split: Photos) -> str:
    samples = sum(file.samples for file in split.left_out)
    return f"{len(split.left_out)} of {split.inspected} images left out (samples: {samples})"


_NAME = "left_out.csv"
