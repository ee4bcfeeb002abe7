"""`vac evaluate`: metrics of a trained run on any of its splits."""

from __future__ import annotations

__all__ = ["evaluate", "main"]

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vac_lightning.commands import app
from vac_lightning.runs import Run


def main() -> int:
    return app.main("evaluate", evaluate)


def evaluate(config: DictConfig) -> None:
    """Print the metrics of a run's checkpoint on one split."""
    import pytorch_lightning as pl
    from rich.table import Table

    from vac_lightning.commands import assembly
    from vac_lightning.metrics import SUMMARY, MultilabelEvaluation

    app.quieten()
    with app.usage():
        run = Run(Path(config.run))
        trained = assembly.run_config(run)
        changes = {word: config[word] for word in ("batch_size", "num_workers") if config[word] is not None}
        if config.data.root is not None:
            changes["data"] = {"root": config.data.root}
        trained = DictConfig(OmegaConf.merge(trained, changes))
        task = assembly.load_task(run, trained, config.checkpoint)
        if config.top_k is not None and config.top_k > len(task.labels):
            raise ValueError(f"top_k={config.top_k}: expected 1 to {len(task.labels)}, the number of labels")
        task.test_evaluation = MultilabelEvaluation(config.protocol, config.top_k)
        data = assembly.datamodule(trained, task.views.sizes[:1])
        split = data.split(config.split)
        if split.labels != task.labels:
            raise ValueError(f"run={run.path}: its {len(task.labels)} labels are not those of this data set")
    trainer = pl.Trainer(
        accelerator=config.accelerator,
        devices=1,
        precision=trained.trainer.precision,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    (values,) = trainer.test(task, dataloaders=data.evaluation_loader(config.split), verbose=False)
    console = app.console()
    suffix = "" if config.top_k is None else f", top-{config.top_k}"
    console.print(
        f"{run.path}: {config.checkpoint} epoch, {config.split} split, {len(split)} samples{suffix}", soft_wrap=True
    )
    table = Table()
    for name in SUMMARY:
        table.add_column(name, justify="right")
    table.add_row(*(f"{values[f'test/{name}']:.1f}" for name in SUMMARY))
    console.print(table)
    labels = Table("label", "positive", "AP")
    for j, label in enumerate(task.labels):
        labels.add_row(label, str(int((split.targets[:, j] == 1).sum())), f"{values[f'test/AP/{label}']:.1f}")
    console.print(labels)


if __name__ == "__main__":
    sys.exit(main())
