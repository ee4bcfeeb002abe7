"""The folder of a run about to train: one process at a time, an earlier attempt set aside or gone on from."""

from __future__ import annotations

__all__ = ["alone", "prepare"]

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from vac_lightning.checkpoints import ResumePoint, read_checkpoint
from vac_lightning.commands.app import UsageError
from vac_lightning.runs import Run, write_atomically

log = logging.getLogger(__name__)

_OF_AN_ATTEMPT = (
    "checkpoints",
    "heatmaps",
    "metrics.csv",
    "left_out.csv",
    "attention.json",
    "predictions.npz",
    "results.json",
)
"""What a run leaves, its results last: while they are there, another process of it takes it for finished."""


@contextmanager
def alone(run: Run) -> Iterator[None]:
    """Let one run at a time into a folder; one that was just stopped is waited for, as where a job is requeued.

    Raises:
        UsageError: another process trains there.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        logging.getLogger().setLevel(logging.WARNING)  # the first process says it all
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(run.alone(seconds=0))
        except BlockingIOError:
            log.info("another process trains in %s: waiting for it to end", run.path)
            try:
                stack.enter_context(run.alone(seconds=40))
            except BlockingIOError as error:
                raise UsageError(f"another process trains in {run.path}: wait for it, or say run_dir=PATH") from error
        yield


def prepare(run: Run, config: DictConfig, start: ResumePoint | None) -> None:
    """Make the run folder ready for a new start, or for going on from a checkpoint here or elsewhere."""
    if start is None:
        _clear(run)
    elif not start.belongs_to(run):
        copies = start.copies()
        _clear(run)
        for name, content in copies.items():
            write_atomically(run.path / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    elif run.finished:
        _clear(run, ("results.json", "predictions.npz"))
    for name in ("best.ckpt", "last.ckpt"):  # the next last.ckpt would make a damaged one the previous
        _set_damaged_aside(run.checkpoints / name)
    run.remove_unfinished_files()
    _write_hydra_folder(run, config)


def _set_damaged_aside(path: Path) -> None:
    try:
        read_checkpoint(path)
    except FileNotFoundError:
        return
    except ValueError as error:
        log.warning("%s", error)
        path.replace(path.with_suffix(".damaged"))


def _clear(run: Run, names: Sequence[str] = _OF_AN_ATTEMPT) -> None:
    """Put what an unfinished or overwritten run left into abandoned-<n>/, so that nothing computed is lost."""
    left = [path for name in names if (path := run.path / name).exists()]
    if left:
        number = 1 + len(list(run.path.glob("abandoned-*")))
        aside = run.path / f"abandoned-{number}"
        aside.mkdir()
        for path in left:
            path.rename(aside / (path.name if path.name != "results.json" else "results.abandoned.json"))
        log.info("an earlier attempt was moved to %s", aside)


def _write_hydra_folder(run: Run, config: DictConfig) -> None:
    """Hydra's own three files; not left to Hydra, which would write them before a finished run is recognised."""
    hydra = HydraConfig.get()
    texts = {
        "config.yaml": OmegaConf.to_yaml(config, resolve=True),
        "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": OmegaConf.to_container(hydra)})),
        "overrides.yaml": OmegaConf.to_yaml(hydra.overrides.task),
    }
    for name, text in texts.items():
        write_atomically(run.path / ".hydra" / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
