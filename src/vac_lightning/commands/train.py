"""`vac train`: one run, or a sweep of runs with -m."""

from __future__ import annotations

__all__ = ["main", "train"]

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from vac_lightning import hardware
from vac_lightning.commands import app, credentials, launchers
from vac_lightning.commands.finished import already_done, plain_words
from vac_lightning.commands.targets import instantiate
from vac_lightning.configurations import config_hash
from vac_lightning.runs import Run, versions
from vac_lightning.signals import Stopped
from vac_lightning.status import StatusFile

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from vac_lightning.attention import AttentionQuality
    from vac_lightning.checkpoints import ResumePoint
    from vac_lightning.commands.assembly import DataModule, VACTask

log = logging.getLogger(__name__)


def main() -> int:
    return app.main("train", train)


def train(config: DictConfig) -> float | None:
    """Train, test the last and the best epoch, and leave a self-describing run folder.

    A run that was killed goes on from its last checkpoint. Returns the test mAP of the best epoch in percent, for
    sweepers that optimise.
    """
    run = Run(Path(HydraConfig.get().runtime.output_dir))
    config, plain = plain_words(config)
    credentials.check(plain, HydraConfig.get().overrides.task)  # a job's own words are known in full only here
    if run.finished and not config.overwrite:
        return already_done(run, config, plain)
    from pytorch_lightning.utilities import rank_zero_only

    from vac_lightning.commands.failures import recorded
    from vac_lightning.commands.folder import alone

    status = StatusFile(run, writes=rank_zero_only.rank == 0)  # type: ignore[attr-defined]
    swept = HydraConfig.get().mode == RunMode.MULTIRUN
    with _own_process_arguments(run), alone(run), _wandb_closed(), recorded(status, always=swept):
        if run.finished and not config.overwrite:  # by the process that this one waited for
            return already_done(run, config, plain)
        return _fit_and_test(run, config, plain, status)


def _fit_and_test(run: Run, config: DictConfig, plain: dict[str, Any], status: StatusFile) -> float | None:
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.utilities import rank_zero_only

    from vac_lightning.callbacks import PredictionWriter, StatusWriter, Throughput
    from vac_lightning.checkpoints import CheckpointFiles, Checkpoints, resume_point
    from vac_lightning.commands import assembly, memory, omissions
    from vac_lightning.commands.failures import explained
    from vac_lightning.commands.folder import prepare

    app.quieten()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    with app.usage():
        device, processes = hardware.device_type(config.trainer.accelerator), launchers.processes_here(config)
        data = assembly.datamodule(config, assembly.views(config).sizes, device, processes, _limits(config))
        data.setup("fit")
        data.setup("test")
        task = assembly.task(config, data.labels, data.positive_ratio, data.channels)
        task.plan(epoch=0, batch=0)  # sizes and transforms that do not suit the network show here, not an epoch later
        if config.compile:
            assembly.compile_backbone(task)
        identity = {"config": plain, "config_hash": config_hash(plain), "data_fingerprint": data.fingerprints()}
        anew = run.finished and config.resume in ("auto", True)  # it is only here to be overwritten
        start = resume_point(run, False if anew else config.resume, identity)
        config = _with_precision(config, device, start)
        if device == "cpu":
            hardware.reuse_memory(config.reuse_memory)
        identity["precision"] = config.trainer.precision
        throughput, checkpoints = Throughput(), Checkpoints(run.path, identity, **config.checkpoints, start=start)
        # Checkpoints come first: what another callback does when an epoch starts is then done again, not twice.
        callbacks = [checkpoints, throughput, StatusWriter(status), PredictionWriter(run.path)]
        made = (instantiate(node, f"callbacks.{name}") for name, node in config.callbacks.items())
        callbacks += [callback for callback in made if callback is not None]
        trainer: pl.Trainer = instantiate(
            config.trainer,
            "trainer",
            callbacks=callbacks,
            logger=False,
            plugins=[CheckpointFiles()],
            limit_val_batches=None,  # the data module's, see _limits
            limit_test_batches=None,
        )
        data.trainer = trainer
        data.train_dataloader()  # refuses a batch size that does not suit the split or the processes
        quality: AttentionQuality | None = instantiate(config.attention, "attention")
        # All is known to be good: only now is a finished run set aside, where it is to be, and anything written.
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            prepare(run, config, start)
            omissions.write(run, data)
        status.begin(start.epoch if start else 0, trainer.max_epochs or 0)
        trainer.loggers = _loggers(run, config, start)
    accelerator = trainer.accelerator.__class__.__name__
    size = f"{len(data.split('train'))} samples, {len(data.labels)} labels"
    log.info("%s: %s, %s, %s", run.path, size, accelerator, trainer.precision)
    if start is not None:
        data.start_at(start.epoch, start.batches)
        log.info("going on from %s: epoch %d, after %d batches", start.path, start.epoch, start.batches)
    with explained(data, trainer, lambda: memory.of_training(config, trainer, task.network)):
        if start is None and trainer.is_global_zero and quality is not None:
            _measure_attention(run, quality, task, data, trained=False)
        trainer.fit(task, datamodule=data, ckpt_path=start.path if start else None)
        metrics = _test_epochs(run, config, trainer, task, data)
        if trainer.is_global_zero:
            if quality is not None:
                _measure_attention(run, quality, task, data, trained=True)
            results = {
                **{word: config[word] for word in ("row", "experiment", "seed", "lambda")},
                **identity,
                "labels": list(data.labels),
                "versions": versions(),
                "device": _device(trainer),
                "metrics": metrics,
                "train_seconds": round(throughput.seconds, 1),
                "images_per_s": sorted(throughput.rates)[len(throughput.rates) // 2] if throughput.rates else None,
                "resumed_at_steps": checkpoints.resumed_at_steps,
                "peak_device_memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
                **omissions.counts(data),
            }
            _conclude(run, trainer, data, metrics)
            run.write_results(results)
            status.remove()
            (run.checkpoints / "previous.ckpt").unlink(missing_ok=True)
    best = metrics["best"]
    if trainer.is_global_zero:
        chosen = f"epoch {best['epoch']}, chosen on {best['chosen_on']}"
        log.info("%s: test mAP %.1f (%s)", config.row, best["test"]["mAP"], chosen)
    for logger in trainer.loggers:
        logger.finalize("success")
    app.leave_process_group()
    return float(best["test"]["mAP"])


def _measure_attention(run: Run, quality: AttentionQuality, task: VACTask, data: DataModule, trained: bool) -> None:
    """Write attention.json: of an untrained network what is known before training, of the best epoch the rest."""
    measured = quality.measure(task, data.split("test"))
    found = {"split": "test", "samples": min(quality.samples, len(data.split("test"))), "before": None}
    if trained:
        found["before"] = (run.attention() or found)["before"]
        found |= {"checkpoint": "best", "after": measured["consistency"], "localisation": measured["localisation"]}
    else:
        found["before"] = measured["consistency"]
    run.write_attention(found)


def _with_precision(config: DictConfig, device: str, start: ResumePoint | None) -> DictConfig:
    """The configuration with trainer.precision=auto settled: a run goes on as it began, on whatever device."""
    if config.trainer.precision != "auto":
        return config
    chosen = (start and start.precision) or hardware.precision(device)
    settled = OmegaConf.merge(config, {"trainer": {"precision": chosen}})
    assert isinstance(settled, DictConfig)
    return settled


def _limits(config: DictConfig) -> dict[str, float | None]:
    """Evaluation batches of all processes together; the Trainer's own limit would be that of each."""
    return {role: config.trainer[f"limit_{role}_batches"] for role in ("val", "test")}


def _test_epochs(
    run: Run, config: DictConfig, trainer: pl.Trainer, task: VACTask, data: DataModule
) -> dict[str, dict[str, Any]]:
    """The metrics of the last and the best epoch; the best is tested last, so predictions.npz is the best epoch's."""
    from vac_lightning.checkpoints import read_checkpoint

    history = run.history() if trainer.is_global_zero else {}
    split = OmegaConf.select(config, "data.splits.val", default="val")
    metrics: dict[str, dict[str, Any]] = {}
    chosen = (run.checkpoints / "best.ckpt").is_file()
    for name in ("last", "best"):
        state = read_checkpoint(run.checkpoints / f"{name if chosen else 'last'}.ckpt")
        # Loaded here: given a path, trainer.test would put back the weights that a moving average was made of.
        task.load_state_dict(state["state_dict"])
        trainer.test(task, datamodule=data, verbose=False)
        epoch = int(state["epoch"])
        tested = {
            key.removeprefix("test/"): float(value)
            for key, value in trainer.callback_metrics.items()
            if key.startswith("test/")
        }
        validated = {
            key.removeprefix("val/"): value for key, value in history.get(epoch, {}).items() if key.startswith("val/")
        }
        metrics[name] = {"epoch": epoch, "val": validated, "test": tested}
    metrics["best"]["chosen_on"] = f"val/mAP of split {split!r}" if chosen else "nothing, being the last"
    return metrics


@contextlib.contextmanager
def _own_process_arguments(run: Run) -> Iterator[None]:
    """Make the further processes that Lightning starts read this run's composed configuration.

    Given the original arguments they would compose it again, and as part of a sweep start a sweep of their own. Where
    this process was started with `python -m`, as by a launcher, they would run that module. They log warnings alone,
    and write no file. What a process group leaves in the environment is undone, so that the next job of a sweep starts
    clean.
    """
    program = sys.modules["__main__"]
    arguments, specification, environment = sys.argv, program.__spec__, dict(os.environ)
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    sys.argv = [__file__, "--config-dir", str(run.path / ".hydra"), "--config-name", "config", *quiet]
    program.__spec__ = None
    try:
        yield
    finally:
        sys.argv, program.__spec__ = arguments, specification
        os.environ.clear()
        os.environ.update(environment)


def _loggers(run: Run, config: DictConfig, start: ResumePoint | None) -> list[Any]:
    from vac_lightning.history import MetricsFile

    loggers: list[Any] = [MetricsFile(run.path / "metrics.csv", keep=start.rows if start else 0)]
    if config.logger is not None:
        make = instantiate(config.logger, "logger")
        name, group = f"{config.row}/seed={config.seed}", f"{config.experiment}/{config.row}"
        resumed = start is not None
        words = OmegaConf.to_container(config, resolve=True)
        loggers.append(make(save_dir=run.path, name=name, group=group, hyperparameters=words, resumed=resumed))
    return loggers


def _conclude(run: Run, trainer: pl.Trainer, data: DataModule, metrics: dict[str, dict[str, Any]]) -> None:
    from vac_lightning.loggers import conclude

    positives = (run.predictions()["targets"] == 1).sum(0)
    for logger in trainer.loggers:
        conclude(logger, metrics, dict(zip(data.labels, positives.tolist(), strict=True)))


@contextlib.contextmanager
def _wandb_closed() -> Iterator[None]:
    """Close W&B's run, as what it came to, so that the next job of a sweep gets a run of its own."""
    from vac_lightning.loggers import close_wandb

    try:
        yield
    except Stopped as stopped:
        close_wandb(stopped.code, preempted=True)
        raise
    except BaseException:
        close_wandb(1)
        raise
    close_wandb(0)


def _device(trainer: pl.Trainer) -> str:
    import platform

    import torch

    name = (
        torch.cuda.get_device_name()
        if trainer.strategy.root_device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return f"{trainer.world_size} x {trainer.strategy.root_device.type} ({name})"


if __name__ == "__main__":
    sys.exit(main())
