"""What happens beside training: throughput, heatmap panels, and the arrays that reports are made from."""

from __future__ import annotations

__all__ = ["HeatmapPanels", "PredictionWriter", "StatusWriter", "Throughput"]

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from vac_lightning.data.base import Batch, Dataset, collate
from vac_lightning.report.figures import heatmap_panels, rgb
from vac_lightning.runs import Run, write_atomically
from vac_lightning.status import StatusFile
from vac_lightning.task import VACTask
from vac_lightning.transforms import Flip, Scale


class Throughput(pl.Callback):
    """Logs train/images_per_s: images of every view, of all processes, over an epoch's training time.

    Loading, steps, and saving between two steps count; validation, and what is drawn and saved around it, does not.

    rates: of the epochs so far. seconds: of training so far, with validation, over every attempt of a resumed run.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.seconds = 0.0
        self._epoch = {"images": 0, "seconds": 0.0}
        self._since = 0.0
        self._counted = 0.0

    def state_dict(self) -> dict[str, Any]:
        self._count()
        return {"rates": self.rates, "seconds": self.seconds, "epoch": dict(self._epoch)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rates, self.seconds, self._epoch = (state_dict[name] for name in ("rates", "seconds", "epoch"))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = self._counted = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch = {"images": 0, "seconds": 0.0}
        self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        self._epoch["images"] += outputs["images"]
        self._epoch["seconds"] += now - self._since
        self._since = now

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._epoch["seconds"]:
            self.rates.append(self._epoch["images"] / self._epoch["seconds"])
            pl_module.log("train/images_per_s", self.rates[-1], rank_zero_only=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._count()

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._counted
        self._counted = now


class StatusWriter(pl.Callback):
    """Keeps status.json of a run at what it is doing: after every epoch, and once a minute in between."""

    def __init__(self, file: StatusFile) -> None:
        self.file = file

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.file.beat()

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.file.beat()

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.file.beat()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metric = trainer.callback_metrics.get("val/mAP")
        self.file.end_epoch(trainer.current_epoch + 1, None if metric is None else float(metric))


class PredictionWriter(pl.Callback):
    """Writes predictions.npz after testing: index, logits and targets of the test split, in its order."""

    def __init__(self, run_dir: Path | str) -> None:
        self.run = Run(Path(run_dir))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, VACTask)
        with pl_module.test_evaluation.sync_context():
            index, logits, targets = pl_module.test_evaluation.predictions()
        if trainer.is_global_zero:
            self.run.write_predictions(index, logits, targets)


class HeatmapPanels(pl.Callback):
    """Shows whether attention follows the transform.

    Every few epochs, and after the last, a picture of the first pair of views, heatmaps/epoch=<n>.png, of the same
    validation samples each time: original, transformed, aligned and their difference. After testing
    heatmaps/test.npz, for figures in the manner of the paper's Figure 5: the heatmaps of a sample, of its mirror
    image and of its smaller copy.

    Samples are chosen by a fixed rule: for labels spaced evenly over the label set, the first sample that has it.

    Args:
        run_dir: the run folder.
        small_size: side of the smaller copy in pixels.
        every_n_epochs: how often; 0 for never.
        samples: how many samples.
    """

    def __init__(self, run_dir: Path | str, small_size: int, every_n_epochs: int = 5, samples: int = 4) -> None:
        self.run = Run(Path(run_dir))
        self.small_size = small_size
        self.every_n_epochs = every_n_epochs
        self.samples = samples

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Before validation ends, while a moving average of the weights is still in their place.
        last = trainer.current_epoch + 1 == trainer.max_epochs
        due = self.every_n_epochs and (last or trainer.current_epoch % self.every_n_epochs == 0)
        if not trainer.is_global_zero or trainer.sanity_checking or not due:
            return
        assert isinstance(pl_module, VACTask)
        batch, label = self._chosen(_split(trainer, "val"), pl_module.device)
        plan = pl_module.plan(epoch=0, batch=0)
        if not plan.pairs:
            return
        pair = plan.pairs[0]
        images = plan.images(pl_module.normalise(_largest(batch)))
        heatmaps = {size: pl_module.network(x).heatmaps.float() for size, x in images.items()}
        n, rows = len(label), torch.arange(len(label))
        a_moved, b = (maps[:n][rows, label].cpu().numpy() for maps in plan.aligned(pair, heatmaps))
        path = self.run.heatmaps / f"epoch={trainer.current_epoch:03d}.png"
        heatmap_panels(
            path,
            original=self._pixels(pl_module, images[pair.a.size][:n]),
            transformed=self._pixels(pl_module, images[pair.b.size][pair.b.start * n : (pair.b.start + 1) * n]),
            heatmaps=heatmaps[pair.a.size][:n][rows, label].cpu().numpy(),
            aligned=a_moved,
            of_transformed=b,
            labels=[pl_module.labels[j] for j in label],
            title=f"epoch {trainer.current_epoch}, pair {pair.name}",
        )
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                caption = [f"epoch {trainer.current_epoch}"]
                logger.log_image("val/heatmaps", [str(path)], step=trainer.global_step, caption=caption)

    @torch.no_grad()
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, VACTask)
        batch, label = self._chosen(_split(trainer, "test"), pl_module.device)
        source = Scale(pl_module.views.size).image(pl_module.normalise(_largest(batch)))
        views = {"original": source, "flipped": Flip().image(source), "scaled": Scale(self.small_size).image(source)}
        arrays = {"index": batch.index.cpu().numpy(), "label": label.numpy(), "names": np.array(pl_module.labels)}
        for name, images in views.items():
            output = pl_module.network(images)
            arrays[f"images_{name}"] = self._pixels(pl_module, images)
            arrays[f"heatmaps_{name}"] = output.heatmaps.float().cpu().numpy()
        write_atomically(self.run.heatmaps / "test.npz", lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]

    def _chosen(self, dataset: Dataset, device: torch.device) -> tuple[Batch, Tensor]:
        """The samples to show as a batch on the device, and the label (n,) to show of each."""
        present = np.flatnonzero((dataset.targets == 1).any(0))
        label = present[
            np.unique(np.linspace(0, len(present) - 1, min(self.samples, len(present))).round().astype(int))
        ]
        first = [int(np.argmax(dataset.targets[:, j] == 1)) for j in label]
        batch = collate([dataset[i] for i in first])
        images = _largest(batch).to(device)
        return Batch(images, batch.targets.to(device), batch.index), torch.from_numpy(label)

    @staticmethod
    def _pixels(task: VACTask, images: Tensor) -> np.ndarray:
        """Normalised images back as uint8 (n, H, W, 3), see `rgb`."""
        pixels = (images * task.std + task.mean).round().clamp(0, 255).to(torch.uint8)
        return rgb(pixels.permute(0, 2, 3, 1).cpu().numpy())


def _largest(batch: Batch) -> Tensor:
    return batch.images if isinstance(batch.images, Tensor) else batch.images[0]


def _split(trainer: pl.Trainer, role: str) -> Dataset:
    return trainer.datamodule.split(role)  # type: ignore[attr-defined]
