"""A callback that holds training up, so that something can happen to it meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import pytorch_lightning as pl

from vac_lightning.signals import stop_requests


class Gate(pl.Callback):
    """Before the second epoch, waits for a file, or to be asked to stop."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        while trainer.current_epoch == 1 and not self.file.exists() and stop_requests.asked is None:
            time.sleep(0.05)
