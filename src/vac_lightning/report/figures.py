"""Pictures of heatmaps: the panels of a training run, Figure 5 of several runs, overlays on photographs."""

from __future__ import annotations

__all__ = ["differences", "figure5", "heatmap_panels", "overlays", "rgb"]

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vac_lightning.runs import Run, read_arrays, write_atomically

COLOURS = "turbo"


def heatmap_panels(
    path: Path,
    *,
    original: np.ndarray,
    transformed: np.ndarray,
    heatmaps: np.ndarray,
    aligned: np.ndarray,
    of_transformed: np.ndarray,
    labels: Sequence[str],
    title: str,
) -> None:
    """Draw one pair of views: a line a sample, with original, transformed, aligned heatmap and difference.

    Args:
        path: PNG to write.
        original, transformed: uint8 (n, H, W, 3).
        heatmaps: g(I), (n, h, w).
        aligned: T(g(I)), (n, h, w).
        of_transformed: g(T(I)), (n, h', w').
        labels: the label shown of each sample.
        title: above the picture.
    """
    columns = ("I with g(I)", "T(I) with g(T(I))", "T(g(I))", "g(T(I))", "|T(g(I)) - g(T(I))|")
    figure = Figure(figsize=(2.1 * len(columns), 2.1 * len(labels) + 0.6), layout="constrained")
    axes = figure.subplots(len(labels), len(columns), squeeze=False)
    figure.suptitle(_plain(title), fontsize=10)
    for i, line in enumerate(axes):
        low, high = _range(heatmaps[i], of_transformed[i])
        _overlay(line[0], original[i], heatmaps[i], low, high)
        _overlay(line[1], transformed[i], of_transformed[i], low, high)
        line[2].imshow(aligned[i], cmap=COLOURS, vmin=low, vmax=high)
        line[3].imshow(of_transformed[i], cmap=COLOURS, vmin=low, vmax=high)
        line[4].imshow(np.abs(_difference(aligned[i], of_transformed[i])), cmap="gray", vmin=0, vmax=high - low)
        line[0].set_ylabel(_plain(labels[i]), fontsize=9)
        for axis, column in zip(line, columns, strict=True):
            if i == 0:
                axis.set_title(column, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    _save(figure, path)


def figure5(runs: Sequence[Run], path: Path, labels: Sequence[str] | None = None) -> None:
    """Draw the paper's Figure 5: one label's heatmap on the flipped, the original and the scaled image, run by run.

    A line a sample, a block of three columns a run. Colours span each run's own range of the three heatmaps of a
    sample; the number under a heatmap is its root mean square difference from the original's, once aligned, as a
    share of that range.

    Raises:
        ValueError: runs that show different samples, no run, or a label none of them shows.
    """
    arrays = [_test_heatmaps(run) for run in runs]
    if not arrays or any(not np.array_equal(a["index"], arrays[0]["index"]) for a in arrays):
        raise ValueError("figure 5 needs runs that were tested on the same samples")
    shown = [str(arrays[0]["names"][j]) for j in arrays[0]["label"]]
    lines = [i for i, label in enumerate(shown) if labels is None or label in labels]
    if not lines:
        raise ValueError(f"labels={list(labels or ())}: the runs show heatmaps of {', '.join(shown)}")
    views = ("flipped", "original", "scaled")
    figure = Figure(figsize=(1.75 * 3 * len(runs) + 0.4, 1.95 * len(lines) + 0.7), layout="constrained")
    blocks = figure.subfigures(1, len(runs), wspace=0.03, squeeze=False)[0]
    for block, run, data in zip(blocks, runs, arrays, strict=True):
        block.suptitle(_plain(run.results()["row"]), fontsize=12, fontweight="bold")
        grid = block.subplots(len(lines), len(views), squeeze=False)
        for line, i in zip(grid, lines, strict=True):
            maps = {view: data[f"heatmaps_{view}"][i, data["label"][i]] for view in views}
            low, high = _range(*maps.values())
            errors = differences(maps)
            side = data["images_original"].shape[1]
            for axis, view in zip(line, views, strict=True):
                pixels = data[f"images_{view}"][i]
                _overlay(axis, pixels, maps[view], low, high)
                margin = (side - pixels.shape[0]) / 2
                axis.set_xlim(-margin, side - margin)
                axis.set_ylim(side - margin, -margin)
                axis.set_xticks([])
                axis.set_yticks([])
                if axis is grid[0][views.index(view)]:
                    axis.set_title(view, fontsize=10)
                if view != "original":
                    axis.set_xlabel(f"{errors[view]:.2f}", fontsize=9)
            line[0].set_ylabel(_plain(shown[i]), fontsize=10)
    _save(figure, path)


def differences(heatmaps: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How far the heatmap of the flipped and of the scaled image are from the original's, once aligned.

    heatmaps: "original", "flipped" and "scaled" -> (h, w).
    Returns the root mean square difference by view, as a share of the range of all three.
    """
    low, high = _range(*heatmaps.values())
    original = heatmaps["original"]
    moved = {"flipped": original[:, ::-1], "scaled": original}
    return {
        view: float(np.sqrt(np.mean(_difference(aligned, heatmaps[view]) ** 2)) / (high - low))
        for view, aligned in moved.items()
    }


def overlays(path: Path, image: np.ndarray, heatmaps: np.ndarray, captions: Sequence[str]) -> None:
    """Draw a photograph beside its heatmaps: image uint8 (H, W, 3), heatmaps (n, h, w), a caption each."""
    figure = Figure(figsize=(2.6 * (len(captions) + 1), 2.9), layout="constrained")
    axes = figure.subplots(1, len(captions) + 1, squeeze=False)[0]
    axes[0].imshow(image)
    axes[0].set_title("photograph", fontsize=10)
    for axis, heatmap, caption in zip(axes[1:], heatmaps, captions, strict=True):
        _overlay(axis, image, heatmap, *_range(heatmap))
        axis.set_title(_plain(caption), fontsize=10)
    for axis in axes:
        axis.set_axis_off()
    _save(figure, path)


def rgb(pixels: np.ndarray) -> np.ndarray:
    """Pixels (..., C) as people see them, (..., 3).

    One channel is grey, two are red and green, and of more than three the first three are red, green and blue.
    """
    channels = pixels.shape[-1]
    if channels == 1:
        return np.repeat(pixels, 3, -1)
    if channels == 2:
        return np.concatenate([pixels, np.zeros_like(pixels[..., :1])], -1)
    return pixels[..., :3]


def _overlay(axis: Axes, image: np.ndarray, heatmap: np.ndarray, low: float, high: float) -> None:
    height, width = image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axis.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255, extent=extent)
    axis.imshow(heatmap, cmap=COLOURS, vmin=low, vmax=high, alpha=0.5, extent=extent, interpolation="bilinear")


def _range(*heatmaps: np.ndarray) -> tuple[float, float]:
    low, high = min(float(m.min()) for m in heatmaps), max(float(m.max()) for m in heatmaps)
    return low, max(high, low + 1e-6)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b on the common grid of both, by nearest-neighbour up-sampling."""
    side = np.lcm(a.shape[0], b.shape[0])
    return np.kron(a, np.ones((side // a.shape[0],) * 2)) - np.kron(b, np.ones((side // b.shape[0],) * 2))


def _test_heatmaps(run: Run) -> dict[str, np.ndarray]:
    return read_arrays(run.heatmaps / "test.npz")


def _plain(text: str) -> str:
    """Text for matplotlib, where a pair of dollar signs would start a formula."""
    return text.replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
