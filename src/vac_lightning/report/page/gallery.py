"""The pictures of the page: Figure 5 drawn anew in small, and the panels of training, as data URIs within a budget."""

from __future__ import annotations

__all__ = ["BUDGET", "PANELS", "Pictures", "Sample", "pictures"]

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from vac_lightning.report.contents import Row
from vac_lightning.report.figures import COLOURS, differences
from vac_lightning.runs import Run, read_arrays

BUDGET = 10_000_000
"""Characters that all pictures may take: with plotly's 5 MB and the numbers the page stays below 20 MB."""

PANELS = 96
"""Panels of all rows together; a row has at least two, of its first and its last epoch."""

VIEWS = ("flipped", "original", "scaled")


@dataclass(frozen=True)
class Sample:
    """One label's heatmap on three views of one image: view -> data URI, and view -> difference from the original's.

    scale: the smaller image's side as a share of the original's.
    """

    label: str
    scale: float
    tiles: Mapping[str, str]
    errors: Mapping[str, float]


@dataclass(frozen=True)
class Pictures:
    """Of one row's first seed: Figure 5's samples, and the panels (epoch, data URI) of training."""

    row: str
    seed: int
    samples: tuple[Sample, ...]
    panels: tuple[tuple[int, str], ...]


def pictures(rows: Sequence[Row], budget: int = BUDGET) -> list[Pictures]:
    """The pictures of every row that has some, in order, for as long as the budget lasts.

    Figure 5 of all rows comes first. What is missing or damaged in a run folder is left out.
    """
    first = [(row.name, row.seeds[0], row.runs[0]) for row in rows if row.runs and row.seeds]
    samples: dict[str, tuple[Sample, ...]] = {}
    for name, _, run in first:
        made = _samples(run)
        size = sum(len(uri) for sample in made for uri in sample.tiles.values())
        samples[name] = made if size <= budget else ()
        budget -= len(samples[name]) and size
    each = max(2, PANELS // max(1, len(first)))
    found = []
    for name, seed, run in first:
        panels = []
        for path in _spaced(sorted(run.heatmaps.glob("epoch=*.png")), each):
            epoch, uri = re.search(r"\d+", path.stem), _panel(path)
            if epoch and uri and len(uri) <= budget:
                panels.append((int(epoch[0]), uri))
                budget -= len(uri)
        if samples[name] or panels:
            found.append(Pictures(name, seed, samples[name], tuple(panels)))
    return found


def _samples(run: Run) -> tuple[Sample, ...]:
    try:
        arrays = read_arrays(run.heatmaps / "test.npz")
        return tuple(_sample(arrays, i, int(j)) for i, j in enumerate(arrays["label"]))
    except (OSError, ValueError, KeyError, IndexError):
        return ()


def _sample(arrays: Mapping[str, np.ndarray], i: int, label: int) -> Sample:
    heatmaps = {view: arrays[f"heatmaps_{view}"][i, label] for view in VIEWS}
    low, high = min(float(m.min()) for m in heatmaps.values()), max(float(m.max()) for m in heatmaps.values())
    side = arrays["images_original"].shape[1]
    tiles = {}
    for view, heatmap in heatmaps.items():
        pixels = arrays[f"images_{view}"][i]
        tiles[view] = _jpeg(_overlay(pixels, heatmap, low, high, round(_TILE * pixels.shape[0] / side)))
    scale = arrays["images_scaled"].shape[1] / side
    return Sample(str(arrays["names"][label]), scale, tiles, differences(heatmaps))


def _overlay(image: np.ndarray, heatmap: np.ndarray, low: float, high: float, side: int) -> Image.Image:
    """Half the image in grey, half the heatmap in colours, at side pixels."""
    grey = np.asarray(Image.fromarray(image).convert("L").resize((side, side)))
    large = Image.fromarray(heatmap.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    share = (np.asarray(large) - low) / max(high - low, 1e-6)
    colours = matplotlib.colormaps[COLOURS](share, bytes=True)[..., :3]
    return Image.fromarray((colours // 2 + grey[..., None] // 2).astype(np.uint8))


def _panel(path: Path) -> str:
    try:
        with Image.open(path) as picture:
            picture.thumbnail((_WIDTH, 4 * _WIDTH), reducing_gap=2)
            return _jpeg(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""


def _jpeg(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _spaced(paths: Sequence[Path], count: int) -> list[Path]:
    """At most so many, evenly spaced, with the first and the last."""
    if len(paths) <= count:
        return list(paths)
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count).round().astype(int)]


_TILE = 144  # pixels, shown at about 100 on a screen of any density
_WIDTH = 900  # pixels
