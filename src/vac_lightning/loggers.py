"""Where a run is watched: Weights & Biases, online when it can be and offline when not, or TensorBoard."""

from __future__ import annotations

__all__ = ["MetricsFile", "tensorboard", "wandb"]

import csv
import io
import logging
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from vac_lightning.runs import write_atomically

log = logging.getLogger(__name__)


class MetricsFile(Logger):
    """metrics.csv, a row whenever something is logged, on the disk at once.

    Not Lightning's CSVLogger, which deletes the file of an earlier attempt, and rewrites it in place where a new
    name is logged: a run killed then would lose its history.

    Args:
        path: the file.
        keep: rows of an earlier attempt to keep; what it logged after them is logged again.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        super().__init__()
        self.path = path
        self._rows = _rows(path)[:keep] if keep else []
        self._names = sorted({name for row in self._rows for name in row})
        if len(self._rows) < keep:
            log.warning("%s holds %d of the %d rows logged before", path, len(self._rows), keep)
        self._start()

    @property
    def rows(self) -> int:
        """How many rows were logged so far."""
        return len(self._rows)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run folder holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {name: str(float(value)) for name, value in metrics.items() if name != "epoch"}
        row |= {name: str(int(metrics[name])) for name in ("epoch",) if name in metrics}
        row["step"] = str(len(self._rows) if step is None else step)
        self._rows.append(row)
        if set(row) <= set(self._names):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._names).writerow(row)
        else:
            self._names = sorted({*self._names, *row})
            self._rewrite()

    @rank_zero_only
    def _start(self) -> None:
        if self._rows:
            self._rewrite()
        else:
            self.path.unlink(missing_ok=True)

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._names)
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self.path, lambda file: file.write(text.getvalue().encode()))


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv without their empty cells."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if name and value} for row in csv.DictReader(file)]


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
