"""Where a run is watched: Weights & Biases, online when it can be and offline when not, or TensorBoard."""

from __future__ import annotations

__all__ = ["tensorboard", "wandb"]

import logging
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

log = logging.getLogger(__name__)


def wandb(
    save_dir: Path, name: str, group: str, hyperparameters: dict[str, Any], project: str, entity: str | None = None
) -> WandbLogger:
    """A W&B logger that never prompts and never stops a run.

    Online when logged in and the server answers; else offline under save_dir/wandb, to be sent later with
    `wandb sync`. WANDB_MODE, where set, decides. name = the row and seed, group = the sweep.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb as client

    mode = os.environ.get("WANDB_MODE") or _mode()
    options: dict[str, Any] = {
        "project": project,
        "entity": entity,
        "name": name,
        "group": group,
        "save_dir": save_dir,
        "config": hyperparameters,
        "settings": client.Settings(init_timeout=30),
    }
    logger = WandbLogger(mode=mode, offline=mode == "offline", **options)
    try:
        _start(logger)
    except Exception as error:  # W&B raises types of its own, by version; whatever fails there must not stop a run.
        log.warning("W&B could not be started (%s); this run is logged offline", error)
        client.teardown()
        logger = WandbLogger(mode="offline", offline=True, **options)
        _start(logger)
    if mode == "offline":
        log.info("W&B is offline; send this run later with: wandb sync %s", Path(save_dir) / "wandb" / "offline-run-*")
    return logger


def tensorboard(save_dir: Path, name: str, group: str, hyperparameters: dict[str, Any]) -> TensorBoardLogger:
    """A TensorBoard logger in save_dir/tensorboard. Needs the extra "tensorboard"."""
    try:
        return TensorBoardLogger(save_dir, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ValueError('logger=tensorboard: not installed; pip install "vac_lightning[tensorboard]"') from error


@rank_zero_only
def _start(logger: WandbLogger) -> None:
    logger.experiment  # noqa: B018  (the property starts the run)


def _mode() -> str:
    import wandb as client

    try:
        logged_in = client.login(prompt=False, verify=False)
    except Exception as error:
        log.warning("W&B credentials could not be read (%s)", error)
        return "offline"
    return "online" if logged_in and _reachable(client.setup().settings.base_url) else "offline"


def _reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether a server accepts connections; behind a proxy only W&B itself can tell, so yes."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")):
        return True
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)), seconds):
            return True
    except OSError:
        return False
