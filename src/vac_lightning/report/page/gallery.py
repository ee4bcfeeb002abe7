"""The pictures of the page: Figure 5 drawn anew in small, and the panels of training, as data URIs within a budget."""

from __future__ import annotations

__all__ = ["BUDGET", "PANELS", "Pictures", "Sample", "pictures"]

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from vac_lightning.report.contents import Row
from vac_lightning.report.figures import COLOURS, differences
from vac_lightning.runs import Run, read_arrays

BUDGET = 10_000_000
"""Characters that all pictures may take: with plotly's 5 MB and the numbers the page stays below 20 MB."""

PANELS = 40
"""Panels of all rows together, and at least the last of each row: to decode one takes 40 ms."""

SAMPLES = 150
"""Samples of all rows together, and at least one of each row."""

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
        made = _samples(run, max(1, SAMPLES // len(first)))
        size = sum(len(uri) for sample in made for uri in sample.tiles.values())
        samples[name] = made if size <= budget else ()
        budget -= len(samples[name]) and size
    each = max(1, PANELS // max(1, len(first)))
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


def _samples(run: Run, count: int) -> tuple[Sample, ...]:
    try:
        arrays = read_arrays(run.heatmaps / "test.npz")
        return tuple(_sample(arrays, i, int(j)) for i, j in enumerate(arrays["label"][:count]))
    except (OSError, ValueError, KeyError, IndexError):
        return ()


def _sample(arrays: Mapping[str, np.ndarray], i: int, label: int) -> Sample:
    heatmaps = {view: arrays[f"heatmaps_{view}"][i, label] for view in VIEWS}
    low, high = min(float(m.min()) for m in heatmaps.values()), max(float(m.max()) for m in heatmaps.values())
    side = arrays["images_original"].shape[1]
    tiles = {}
    for view, heatmap in heatmaps.items():
        pixels = arrays[f"images_{view}"][i]
        tiles[view] = _webp(_overlay(pixels, heatmap, low, high, round(_TILE * pixels.shape[0] / side)))
    scale = arrays["images_scaled"].shape[1] / side
    return Sample(str(arrays["names"][label]), scale, tiles, differences(heatmaps))


def _overlay(image: np.ndarray, heatmap: np.ndarray, low: float, high: float, side: int) -> Image.Image:
    """Half the image in grey, half the heatmap in colours, at side pixels."""
    grey = np.asarray(Image.fromarray(image).convert("L").resize((side, side)))
    large = Image.fromarray(heatmap.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    share = (np.asarray(large) - low) / max(high - low, 1e-6)
    colours = _half_colours()[(255 * share.clip(0, 1)).astype(np.uint8)]
    return Image.fromarray(colours + grey[..., None] // 2)


@cache
def _half_colours() -> np.ndarray:
    """The colour map's 256 colours at half their brightness, uint8 (256, 3)."""
    return matplotlib.colormaps[COLOURS](np.arange(256), bytes=True)[:, :3] // 2


def _panel(path: Path) -> str:
    try:
        with Image.open(path) as picture:
            picture.thumbnail((_WIDTH, 4 * _WIDTH), reducing_gap=2)
            return _webp(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""


def _webp(picture: Image.Image) -> str:
    """Less than half of JPEG's size on the sharp cells of a heatmap; method 2 is quicker than the default."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=65, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _spaced(paths: Sequence[Path], count: int) -> list[Path]:
    """At most so many, evenly spaced, with the last and, where there are more, the first."""
    if len(paths) <= count or count == 1:
        return list(paths[-count:])
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count).round().astype(int)]


_TILE = 144  # pixels, shown at about 100 on a screen of any density
_WIDTH = 760  # pixels
