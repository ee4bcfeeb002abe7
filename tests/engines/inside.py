"""Callbacks that tests of sweeps put into their jobs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import cv2
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only

from vac_lightning.signals import stop_requests


class Gate(pl.Callback):
    """Before the second epoch, waits for a file, or to be asked to stop."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        while trainer.current_epoch == 1 and not self.file.exists() and stop_requests.asked is None:
            time.sleep(0.05)


class Threads(pl.Callback):
    """Notes how many threads a job's first process has, of each kind, in threads.json of its run folder."""

    def __init__(self, run_dir: str) -> None:
        self.file = Path(run_dir) / "threads.json"

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        threads = [torch.get_num_threads(), cv2.getNumThreads(), int(os.environ["OMP_NUM_THREADS"])]
        self.file.write_text(json.dumps(threads))
