"""Contents of a report as real as need be: generated numbers, and run folders with pictures."""

from __future__ import annotations

__all__ = ["LABELS", "METRICS", "ROWS", "contents", "large"]

from pathlib import Path

import numpy as np
from PIL import Image

from vac_lightning.report.contents import (
    Attention,
    Comparison,
    Contents,
    Cost,
    Curve,
    LambdaSeries,
    Row,
)
from vac_lightning.runs import Run

METRICS = ("mAP", "mA", "F1-C", "P-C", "R-C", "F1-O", "P-O", "R-O")
LABELS = (
    "circle",
    "<script>",
    "<b>x</b>",
    "</script><script>alert(1)</script>",
    '<a href="https://example.org">red</a>',
    "$x^2$ & &lt;",
    "%{x}",
)
ROWS = ("Tiny", "Tiny+f", "Tiny+ACf", "<b>x</b>", "</script><script>alert(1)</script>")
PUBLISHED = {"mAP": 83.4, "mA": 82.0, "F1-C": 73.9, "P-C": 79.5, "R-C": 69.4, "F1-O": 79.4, "P-O": 82.3, "R-O": 76.6}


def contents(folder: Path, rows: tuple[str, ...] = ROWS, seeds: int = 3, epochs: int = 4) -> Contents:
    """Rows that ran with pictures in `folder`, one that is missing, and one of other authors."""
    random = np.random.default_rng(0)
    runs = {row: tuple(_run(folder / str(i) / f"seed={s}", random) for s in range(seeds)) for i, row in enumerate(rows)}
    return _contents(rows, runs, LABELS, seeds, epochs, random)


def large() -> Contents:
    """200 runs: 50 rows of 4 seeds, 12 epochs of 8 terms, 80 labels."""
    rows = tuple(f"R{50 + i % 2}+AC{'trsf'[i % 4]}_lambda={i / 8:g}" for i in range(50))
    runs = {row: tuple(Run(Path("nowhere")) for _ in range(4)) for row in rows}
    return _contents(rows, runs, tuple(f"label {j}" for j in range(80)), 4, 12, np.random.default_rng(0))


def _contents(
    names: tuple[str, ...],
    runs: dict[str, tuple[Run, ...]],
    labels: tuple[str, ...],
    seeds: int,
    epochs: int,
    random: np.random.Generator,
) -> Contents:
    def around(value: float, count: int = seeds) -> tuple[float, ...]:
        return tuple((value + random.normal(0, 0.8, count)).tolist())

    rows = tuple(
        Row(
            name,
            "done",
            runs=runs[name],
            seeds=tuple(range(seeds)),
            backbone="tiny",
            transform="f",
            lambda_=float(i),
            metrics={e: {m: around(PUBLISHED[m] + d + i / 5) for m in METRICS} for e, d in (("best", 0), ("last", -2))},
            epochs={"best": tuple(range(seeds)), "last": (epochs - 1,) * seeds},
            chosen_on="val mAP, 500 images",
            published=PUBLISHED if i < 3 else {},
        )
        for i, name in enumerate(names)
    )
    terms = (
        "train/loss",
        "train/loss_c",
        "train/loss_a",
        "train/loss_a/f",
        "val/mAP",
        "val/mA",
        "val/F1-C",
        "val/F1-O",
    )
    return Contents(
        title="table1_on_shapes",
        protocol="vac",
        metrics=METRICS,
        rows=(
            *rows,
            Row("R50+ACr", "missing", published={"mAP": 84.1}),
            Row("SRN", "published", published={"mAP": 86.2}),
        ),
        notes=("Rows differ in their number of seeds: see the column.", "Chosen on <validation> & tested on test."),
        comparisons=tuple(
            Comparison(
                row,
                names[0],
                0.6 * i - 0.9,
                0.6 * i - 1.7,
                0.6 * i - 0.1,
                0.2 / i**2,
                tuple(range(seeds)),
                1500,
                min(i, seeds),
            )
            for i, row in enumerate(names[1:], 1)
        ),
        curves=tuple(
            Curve(
                name,
                seed,
                term,
                tuple(range(epochs)),
                tuple((base + lift * np.log1p(np.arange(epochs)) + random.normal(0, 0.1 * abs(lift), epochs)).tolist()),
            )
            for name in names
            for seed in range(seeds)
            for term in terms
            for base, lift in [(60, 8) if "val" in term else (2, -0.5)]
        ),
        lambdas=tuple(
            LambdaSeries(
                f"{names[1]} and its kin, {k}",
                (0, 0.1, 0.3, 1, 3),
                tuple(around(75 + k + y) for y in (0, 0.5, 1.4, 1, -1)),
            )
            for k in range(2)
        ),
        labels=labels,
        label_ap={
            name: {label: around(50 + 5 * (j % 9) + i, seeds) for j, label in enumerate(labels)}
            for i, name in enumerate(names)
        },
        attention=tuple(
            Attention(
                name,
                {letter: 0.5 + 0.1 * k for k, letter in enumerate("trsf")},
                {letter: 0.4 / (i + 1) + 0.05 * k for k, letter in enumerate("trsf")},
                {
                    "pointing game": 60.0 + i,
                    "pointing game, chance": 21.0,
                    "energy inside": 40.0,
                    "energy inside, chance": 20.9,
                },
            )
            for i, name in enumerate(names)
        ),
        differences={name: (f"lambda: 0 -> {i}", "transform: none -> f") if i else () for i, name in enumerate(names)},
        costs=tuple(Cost(name, "cpu", 0.05 * (i + 1), 310.0, None if i else 2**31) for i, name in enumerate(names)),
        versions={"torch": "2.8.0", "vac_lightning": "0.1.0"},
    )


def _run(path: Path, random: np.random.Generator) -> Run:
    """A run folder with panels of two epochs, and the heatmaps of two samples on 32 and 24 pixels."""
    run = Run(path)
    run.heatmaps.mkdir(parents=True)
    for epoch in (0, 5, 11):
        Image.fromarray(np.full((90, 120, 3), 20 * epoch, np.uint8)).save(run.heatmaps / f"epoch={epoch:03d}.png")
    sizes = {"original": (32, 4), "flipped": (32, 4), "scaled": (24, 3)}
    arrays = {"index": np.arange(2), "label": np.array([1, 2]), "names": np.array(LABELS)}
    for view, (side, grid) in sizes.items():
        arrays[f"images_{view}"] = random.integers(0, 255, (2, side, side, 3), np.uint8)
        arrays[f"heatmaps_{view}"] = random.normal(size=(2, len(LABELS), grid, grid)).astype(np.float32)
    np.savez_compressed(run.heatmaps / "test.npz", **arrays)
    return run
