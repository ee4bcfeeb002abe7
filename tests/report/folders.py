"""Run folders as `vac train` leaves them, made in milliseconds: numbers from a seed instead of a network."""

from __future__ import annotations

__all__ = ["LABELS", "Kind", "kinds", "write_run", "write_sweep"]

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from vac_lightning.configurations import config_hash
from vac_lightning.metrics import SUMMARY, evaluate
from vac_lightning.report.figures import heatmap_panels
from vac_lightning.runs import Run, row_name

LABELS = (
    *("Male", "longHair", "sunglass", "Hat", "T-shirt", "longSleeve", "formal"),
    *("shorts", "jeans", "longPants", "skirt", "faceMask", "logo", "stripe"),
)


@dataclass(frozen=True)
class Kind:
    """What tells a row from others: backbone, transform, lambda."""

    backbone: str = "R50"
    transform: str = "f"
    lambda_: float = 1.0

    @property
    def row(self) -> str:
        return row_name(self.backbone, self.transform, self.lambda_)

    @property
    def quality(self) -> float:
        """How far logits of positive and negative samples lie apart."""
        gain = 0.0 if self.transform == "none" else 0.05 + 0.1 * min(self.lambda_, 1.0)
        return 1.2 + gain + 0.03 * ("R18", "R34", "R50", "R101", "R152").index(self.backbone)


def kinds(rows: int) -> list[Kind]:
    """The first so many rows of: five backbones, each plain, with five transforms as augmentation, and with AC."""
    return list(islice(_kinds(), rows))


def write_sweep(
    root: Path,
    rows: Sequence[Kind] | int = 4,
    *,
    seeds: int = 2,
    samples: int = 200,
    labels: Sequence[str] = LABELS,
    epochs: int = 3,
    experiment: str = "sweep",
    heatmaps: bool = False,
    **words: object,
) -> list[Run]:
    """Folders root/<row>/seed=<n> of finished runs that share their test split. words: see `write_run`."""
    chosen = kinds(rows) if isinstance(rows, int) else rows
    targets = split(samples, len(labels))
    return [
        write_run(
            root / kind.row / f"seed={seed}",
            kind,
            seed=seed,
            targets=targets,
            labels=labels,
            epochs=epochs,
            experiment=experiment,
            heatmaps=heatmaps,
            **words,  # type: ignore[arg-type]
        )
        for kind in chosen
        for seed in range(seeds)
    ]


def split(samples: int, labels: int, seed: int = 0) -> np.ndarray:
    """Targets int8 (N, L) of 1, 0 and some -1, with labels of different frequency."""
    generator = np.random.default_rng(seed)
    frequency = np.linspace(0.5, 0.05, labels)
    targets = (generator.random((samples, labels)) < frequency).astype(np.int8)
    targets[0] = 1  # every label has a positive sample
    targets[generator.random((samples, labels)) < 0.03] = -1
    targets[1] = 1
    return targets


def write_run(
    path: Path,
    kind: Kind = Kind(),
    *,
    seed: int = 0,
    targets: np.ndarray | None = None,
    labels: Sequence[str] = LABELS,
    epochs: int = 3,
    experiment: str = "sweep",
    row: str | None = None,
    quality: float | None = None,
    protocol: str = "vac",
    difficulty: float = 0.5,
    device: str = "2 x cuda (NVIDIA H100)",
    versions: dict[str, str] | None = None,
    heatmaps: bool = False,
    attention: bool = True,
    finished: bool = True,
) -> Run:
    """One run folder with results.json, predictions.npz, metrics.csv, attention.json, and pictures if asked for.

    An unfinished one has metrics.csv alone.
    """
    run = Run(path)
    row = row or kind.row
    targets = split(200, len(labels)) if targets is None else targets
    generator = np.random.default_rng([seed, *row.encode()])
    apart = (kind.quality if quality is None else quality) + generator.normal(scale=0.02)
    logits = (apart * 2 * (targets == 1) - apart + generator.normal(size=targets.shape)).astype(np.float32)
    values = evaluate(logits, targets, protocol)
    tested = {name: values[name] for name in SUMMARY} | {
        f"AP/{label}": values[f"AP/{j}"] for j, label in enumerate(labels)
    }
    chosen_on = {"chosen_on": "val/mAP of split 'val'"}
    best = max(0, epochs - 2)
    earlier = {name: value - 0.5 for name, value in tested.items()}
    config = _config(kind, row, seed, experiment, path, protocol, difficulty, epochs)
    path.mkdir(parents=True, exist_ok=True)
    _write_metrics(run, kind, values["mAP"], epochs, generator)
    if not finished:
        return run
    run.write_predictions(np.arange(len(targets)), logits, targets)
    if attention:
        (path / "attention.json").write_text(json.dumps(_attention(kind, generator)))
    if heatmaps:
        _write_heatmaps(run, labels, epochs, generator)
    run.write_results(
        {
            "row": row,
            "experiment": experiment,
            "seed": seed,
            "lambda": kind.lambda_,
            "config": config,
            "config_hash": config_hash(config),
            "data_fingerprint": dict.fromkeys(("train", "val", "test"), "0123456789abcdef"),
            "labels": list(labels),
            "versions": versions or {"vac_lightning": "0.1.0", "torch": "2.9.0", "numpy": "2.4.0"},
            "device": device,
            "metrics": {
                "last": {"epoch": epochs - 1, "val": {"mAP": values["mAP"]}, "test": earlier},
                "best": {"epoch": best, "val": {"mAP": values["mAP"]}, "test": tested, **chosen_on},
            },
            "train_seconds": 3600.0 + 60 * seed,
            "images_per_s": 400.0 + seed,
            "resumed_at_steps": [],
            "peak_device_memory_bytes": 6_000_000_000 + seed,
        }
    )
    return run


def _kinds() -> Iterator[Kind]:
    for backbone in ("R50", "R101", "R18", "R34", "R152"):
        yield Kind(backbone, "none", 1.0)
        for lambda_ in (0.0, 1.0):
            for transform in ("t", "r", "s", "f", "fs"):
                yield Kind(backbone, transform, lambda_)


def _config(
    kind: Kind, row: str, seed: int, experiment: str, path: Path, protocol: str, difficulty: float, epochs: int
) -> dict[str, object]:
    return {
        "transform": kind.transform,
        "lambda": kind.lambda_,
        "norm": "mse",
        "detach": True,
        "seed": seed,
        "protocol": protocol,
        "num_workers": 0,
        "experiment": experiment,
        "variant": None,
        "row": row,
        "run_dir": str(path),
        "callbacks": {"best": {"dirpath": str(path / "checkpoints")}},
        "backbone_name": kind.backbone,
        "backbone": {"_target_": f"vac_lightning.networks.backbones.{kind.backbone.lower()}"},
        "views": {"_target_": "vac_lightning.views.Views", "transform": kind.transform, "size": 64},
        "loss": {"_target_": "vac_lightning.losses.weighted_bce", "_partial_": True},
        "trainer": {"max_epochs": epochs, "devices": 2},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.001},
        "image_size": 64,
        "batch_size": 16,
        "data": {"_target_": "vac_lightning.data.shapes.shapes", "difficulty": difficulty},
    }


def _write_metrics(run: Run, kind: Kind, reached: float, epochs: int, generator: np.random.Generator) -> None:
    """metrics.csv in lines as Lightning logs them: learning rate, validation, training, and at the end the tests."""
    pairs = {"none": (), "fs": ("f", "f_small", "s")}.get(kind.transform, (kind.transform,))
    lines: list[dict[str, float]] = []
    for epoch in range(epochs):
        loss_c = 10 * np.exp(-epoch / 4) + 2 + generator.normal(scale=0.05)
        terms = {f"train/loss_a/{pair}": 0.5 * np.exp(-epoch / 3) + generator.random() / 50 for pair in pairs}
        loss_a = sum(terms.values())
        losses = {"train/loss_c": loss_c, "train/loss_a": loss_a, "train/loss": loss_c + kind.lambda_ * loss_a}
        mAP = reached * (1 - 0.5 * np.exp(-(epoch + 1) / 2))
        lines += [
            {"lr-SGD": 0.001},
            {"epoch": epoch, "step": 10 * epoch, "val/mAP": mAP, "val/F1-C": mAP - 10, "val/F1-O": mAP - 5},
            {"epoch": epoch, "step": 10 * epoch, **losses, **terms, "train/images_per_s": 400 + generator.normal()},
        ]
    lines += 2 * [{"epoch": epochs, "step": 10 * epochs, "test/mAP": reached}]
    names = sorted(set().union(*lines))
    with (run.path / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(lines)


def _attention(kind: Kind, generator: np.random.Generator) -> dict[str, object]:
    learned = 0.3 if kind.transform != "none" and kind.lambda_ else 0.8
    before = {letter: {"relative": 0.9 + generator.random() / 20, "mse": 0.02} for letter in "trsf"}
    after = {letter: {"relative": learned + generator.random() / 20, "mse": 0.01} for letter in "trsf"}
    localisation = {
        "pointing game": 70 + generator.random(),
        "energy inside": 40 + generator.random(),
        "chance": 20.9,
    }
    return {
        "samples": 500,
        "checkpoint": "best",
        "split": "test",
        "before": before,
        "after": after,
        "localisation": localisation,
    }


def _write_heatmaps(run: Run, labels: Sequence[str], epochs: int, generator: np.random.Generator) -> None:
    """heatmaps/test.npz of two samples at 64 and 48 pixels, and a picture of the first and of the last epoch."""
    run.heatmaps.mkdir(parents=True, exist_ok=True)
    label = np.array([0, len(labels) - 1])
    sides = {"original": 64, "flipped": 64, "scaled": 48}
    pixels = {name: generator.integers(0, 255, (2, side, side, 3), dtype=np.uint8) for name, side in sides.items()}
    maps = {name: generator.random((2, len(labels), side // 8, side // 8)) for name, side in sides.items()}
    arrays = {f"images_{name}": values for name, values in pixels.items()}
    arrays |= {f"heatmaps_{name}": values.astype(np.float32) for name, values in maps.items()}
    np.savez_compressed(run.heatmaps / "test.npz", index=np.arange(2), label=label, names=np.array(labels), **arrays)
    original, flipped = (maps[name][[0, 1], label] for name in ("original", "flipped"))
    for epoch in {0, epochs - 1}:
        heatmap_panels(
            run.heatmaps / f"epoch={epoch:03d}.png",
            original=pixels["original"],
            transformed=pixels["flipped"],
            heatmaps=original,
            aligned=original[:, :, ::-1],
            of_transformed=flipped,
            labels=[labels[j] for j in label],
            title=f"epoch {epoch}, pair f",
        )
