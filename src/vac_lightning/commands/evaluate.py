"""`vac evaluate`: metrics of a trained run on any of its splits, or of the predictions that it left."""

from __future__ import annotations

__all__ = ["evaluate", "main"]

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from vac_lightning.commands import app, words
from vac_lightning.runs import Run, read_predictions

if TYPE_CHECKING:
    import numpy as np


def main() -> int:
    word = "predictions" if any(argument.endswith(".npz") for argument in sys.argv[1:]) else "run"
    sys.argv[1:] = words.positional(sys.argv[1:], word, several=False)
    return app.main("evaluate", evaluate)


def evaluate(config: DictConfig) -> None:
    """Print the metrics of a run's checkpoint on one split, or of a predictions.npz."""
    from vac_lightning import metrics

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*no positive sample: labels")  # said below, by the labels' names
        scored = _of_run(config) if config.predictions is None else _of_file(config)
        protocol = config.protocol or scored.protocol
        protocols = metrics.PROTOCOLS if protocol == "all" else (protocol,)
        with app.usage():
            rows = {name: metrics.evaluate(scored.logits, scored.targets, name, config.top_k) for name in protocols}
    _print(scored, rows, config.top_k)


@dataclass(frozen=True)
class _Scored:
    """Logits (N, L) and targets (N, L) of the labels named, where they come from, and the run's own protocol."""

    title: str
    labels: Sequence[str]
    logits: np.ndarray
    targets: np.ndarray
    protocol: str


def _of_run(config: DictConfig) -> _Scored:
    import pytorch_lightning as pl

    from vac_lightning import hardware
    from vac_lightning.commands import assembly, launchers, memory, omissions

    app.quieten()
    with app.usage():
        run = Run(Path(config.run))
        trained = assembly.run_config(run)
        changes = {word: config[word] for word in ("batch_size", "num_workers") if config[word] is not None}
        changes["data"] = {word: value for word, value in config.data.items() if value is not None}
        if OmegaConf.select(trained, "data.augmentation") is not None:
            changes["data"]["augmentation"] = None  # of the train split too
        trained = DictConfig(OmegaConf.merge(trained, changes))
        task = assembly.load_task(run, trained, config.checkpoint, config.test_views)
        if config.top_k is not None and config.top_k > len(task.labels):
            raise ValueError(f"top_k={config.top_k}: expected 1 to {len(task.labels)}, the number of labels")
        device, processes = hardware.device_type(config.accelerator), launchers.processes_here(config)
        data = assembly.datamodule(trained, task.views.sizes[:1], device, processes)
        if data.split(config.split).labels != task.labels:
            raise ValueError(f"run={run.path}: its {len(task.labels)} labels are not those of this data set")
        if data.channels != task.channels:
            raise ValueError(
                f"run={run.path}: its images have {task.channels} channels, those of this data set {data.channels}"
            )
        if device == "cpu":
            hardware.reuse_memory()
        if config.compile:
            assembly.compile_backbone(task)
    with app.placement(config.accelerator):
        trainer = pl.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            precision=trained.trainer.precision,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    data.trainer = trainer
    with memory.explained(lambda: memory.of_evaluation(trained.batch_size, trainer)):
        trainer.test(task, dataloaders=data.evaluation_loader(config.split), verbose=False)
    with task.test_evaluation.sync_context():
        index, logits, targets = task.test_evaluation.predictions()
    app.leave_process_group()
    if not trainer.is_global_zero:
        sys.exit(0)
    if config.out is not None:
        Run(Path(config.out)).write_predictions(index, logits, targets)
    title = f"{run.path}: {config.checkpoint} epoch, {config.split} split"
    if config.test_views != "none":
        title += f", mean over the views {config.test_views}"
    if (left_out := omissions.told(run, data, config.split)) is not None:
        title += f", {left_out}"
    return _Scored(title, task.labels, logits, targets, trained.protocol)


def _of_file(config: DictConfig) -> _Scored:
    with app.usage():
        path = Path(config.predictions)
        path = path / "predictions.npz" if path.is_dir() else path
        for word, only in (("checkpoint", "best"), ("split", "test"), ("test_views", "none")):
            if config[word] != only:
                raise ValueError(
                    f"{word}={config[word]}: {path} holds the logits of one split at one epoch; say run=... for others"
                )
        kept = read_predictions(path)
        labels, protocol = _labels_and_protocol(Run(path.parent), kept["logits"].shape[1])
    return _Scored(str(path), labels, kept["logits"], kept["targets"], protocol)


def _labels_and_protocol(run: Run, number: int) -> tuple[list[str], str]:
    """As results.json beside the predictions has them; the labels' numbers and "vac" where there is none."""
    if not run.finished:
        return [str(j) for j in range(number)], "vac"
    try:
        results = run.results()
        labels, protocol = [str(label) for label in results["labels"]], str(results["config"]["protocol"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run.path / 'results.json'} is damaged, and names no labels: move it away") from error
    if len(labels) != number:
        raise ValueError(f"{run.path / 'results.json'} names {len(labels)} labels, the predictions are of {number}")
    return labels, protocol


def _print(scored: _Scored, rows: Mapping[str, Mapping[str, float]], top_k: int | None) -> None:
    """A table with a row per protocol; of one protocol its labels too; and what was undefined, by name."""
    from rich.table import Table

    from vac_lightning import metrics

    console = app.console()
    suffix = "" if top_k is None else f", top-{top_k}"
    console.print(f"{scored.title}, {len(scored.targets)} samples{suffix}", soft_wrap=True)
    table = Table("protocol")
    for name in metrics.SUMMARY:
        table.add_column(name, justify="right")
    for protocol, values in rows.items():
        table.add_row(protocol, *(_cell(values[name]) for name in metrics.SUMMARY))
    console.print(table)
    positive = (scored.targets == 1).sum(0)
    predicted = metrics.decisions(scored.logits, top_k).sum(0)
    if len(rows) == 1:
        (values,) = rows.values()
        table = Table("label")
        for name in ("positive", "predicted", "AP"):
            table.add_column(name, justify="right")
        for j, label in enumerate(scored.labels):
            table.add_row(label, str(positive[j]), str(predicted[j]), _cell(values[f"AP/{j}"]))
        console.print(table)
    for what, count, undefined, rule in (
        ("no positive sample", positive, "no AP, no mA, recall", "recall_of_none"),
        ("never predicted", predicted, "precision", "precision_of_none"),
    ):
        if without := [label for label, times in zip(scored.labels, count, strict=True) if times == 0]:
            taken = {name: getattr(metrics.RULES[name], rule) for name in rows}
            stated = ", ".join(f"{'left out' if math.isnan(x) else f'{x:g}'} in {name}" for name, x in taken.items())
            console.print(f"{what} ({undefined} {stated}): {', '.join(without)}", soft_wrap=True)


def _cell(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
