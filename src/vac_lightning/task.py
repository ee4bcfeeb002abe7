"""The training task: views -> network -> L = l_c + lambda * l_a -> metrics."""

from __future__ import annotations

__all__ = ["VACTask"]

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from vac_lightning.data.base import Batch
from vac_lightning.losses import weighted_bce
from vac_lightning.metrics import SUMMARY, MultilabelEvaluation
from vac_lightning.transforms import Scale
from vac_lightning.views import ViewPlan, Views

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class VACTask(pl.LightningModule):
    """Visual attention consistency on any network that gives logits and heatmaps.

    Every view's logits enter l_c, the mean over samples and views; l_a is the weighted sum over the pairs of views.
    With lambda_ = 0 the consistency terms are measured but take no part in the gradient: that is the
    augmentation-only row, bit for bit.

    Args:
        network: images -> Output(logits, heatmaps), with grid(size).
        views: the transform set.
        labels: the L label names.
        positive_ratio: p, (L,), for the classification loss.
        classification_loss: (logits, targets, positive_ratio) -> scalar, summed over labels.
        lambda_: weight of l_a.
        norm: "mse" as the authors' code, "l2" as the paper's formula.
        optimizer: parameters -> optimiser.
        scheduler: optimiser -> schedule, stepped every epoch; or, with interval "step", (optimiser,
            total_steps=...) -> schedule, stepped every step.
        scheduler_interval: "epoch" or "step".
        protocol: metric protocol, see metrics.evaluate.
        seed: of the transforms drawn; every process draws the same ones.
        channels_last: memory layout of network and images.
    """

    positive_ratio: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        views: Views,
        labels: Sequence[str],
        positive_ratio: Tensor,
        *,
        classification_loss: Callable[[Tensor, Tensor, Tensor], Tensor] = weighted_bce,
        lambda_: float = 1.0,
        norm: str = "mse",
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.AdamW,
        scheduler: Callable[..., Any] | None = None,
        scheduler_interval: str = "epoch",
        protocol: str = "vac",
        seed: int = 0,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= lambda_ < math.inf:
            raise ValueError(f"lambda={lambda_}: expected a finite number of at least 0")
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.layout)
        self.views = views
        self.labels = tuple(labels)
        self.classification_loss = classification_loss
        self.lambda_ = lambda_
        self.norm = norm
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.seed = seed
        self.val_evaluation = MultilabelEvaluation(protocol)
        self.test_evaluation = MultilabelEvaluation(protocol)
        self.register_buffer("positive_ratio", positive_ratio, persistent=False)
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self._grids: dict[int, tuple[int, int]] = {}

    def forward(self, images: Tensor) -> Any:
        """uint8 images (B, 3, H, W) of any size -> Output at the evaluation size."""
        return self.network(Scale(self.views.size).image(self.normalise(images)))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float by the mean and deviation of ImageNet; the 0 of transforms is the mean."""
        normal = (images.float() - self.mean) / self.std
        return normal.to(self.mean.dtype).contiguous(memory_format=self.layout)  # the network's, as trainer.precision

    def plan(self, epoch: int, batch: int) -> ViewPlan:
        """The views of one batch: a function of seed, epoch and batch number, so the same in every process."""
        seed = int(np.random.SeedSequence([self.seed, epoch, batch]).generate_state(1, np.uint64)[0] >> 1)
        return self.views.plan(torch.Generator().manual_seed(seed), self._grid)

    def objective(self, batch: Batch, plan: ViewPlan) -> dict[str, Tensor]:
        """The loss and its terms: "loss", "loss_c", "loss_a" and "loss_a/<pair>" (unweighted)."""
        sources = [batch.images] if isinstance(batch.images, Tensor) else batch.images
        outputs = {size: self.network(x) for size, x in plan.images([self.normalise(x) for x in sources]).items()}
        logits = torch.cat([output.logits for output in outputs.values()])
        targets = batch.targets.repeat(len(logits) // len(batch.targets), 1)
        loss_c = self.classification_loss(logits, targets, self.positive_ratio)
        with torch.set_grad_enabled(self.lambda_ > 0 and torch.is_grad_enabled()):
            terms = plan.consistency({size: output.heatmaps for size, output in outputs.items()}, self.norm)
            loss_a = sum((pair.weight * terms[pair.name] for pair in plan.pairs), loss_c.new_zeros(()))
        loss = loss_c + self.lambda_ * loss_a if self.lambda_ > 0 and plan.pairs else loss_c
        return {"loss": loss, "loss_c": loss_c, "loss_a": loss_a, **{f"loss_a/{name}": x for name, x in terms.items()}}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        plan = self.plan(self.current_epoch, batch_idx)
        terms = self.objective(batch, plan)
        samples = len(batch.targets)
        logged = {f"train/{name}": value.detach() for name, value in terms.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=samples, sync_dist=True)
        self.log("step/loss", logged["train/loss"], on_step=True, on_epoch=False, prog_bar=True)
        return {"loss": terms["loss"], "images": samples * sum(map(len, plan.groups.values()))}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_evaluation.update(batch.index, self._logits(batch), batch.targets)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.test_evaluation.update(batch.index, self._logits(batch), batch.targets)

    def on_validation_epoch_end(self) -> None:
        values = self.val_evaluation.compute()
        self.val_evaluation.reset()
        self.log_dict({f"val/{key}": values[key] for key in SUMMARY[1:]})
        self.log("val/mAP", values["mAP"], prog_bar=True)

    def on_test_epoch_end(self) -> None:
        values = self.test_evaluation.compute()
        self.log_dict({f"test/{key}": values[key] for key in SUMMARY})
        self.log_dict({f"test/AP/{label}": values[f"AP/{j}"] for j, label in enumerate(self.labels)})

    def on_test_epoch_start(self) -> None:
        self.test_evaluation.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["labels"] = list(self.labels)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.network.parameters())
        if self.make_scheduler is None:
            return optimizer
        by_step = self.scheduler_interval == "step"
        options = {"total_steps": int(self.trainer.estimated_stepping_batches)} if by_step else {}
        scheduler = self.make_scheduler(optimizer, **options)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": self.scheduler_interval},
        }

    def _logits(self, batch: Batch) -> Tensor:
        """Evaluation sees the large, untransformed image only."""
        largest = batch.images if isinstance(batch.images, Tensor) else batch.images[0]
        images = Scale(self.views.size).image(self.normalise(largest))
        return self.network(images, heatmaps=False).logits

    def _grid(self, size: int) -> tuple[int, int]:
        if size not in self._grids:
            self._grids[size] = self.network.grid(size)  # type: ignore[operator]
            if size % self._grids[size][0]:
                rank_zero_warn(
                    f"images of {size} pixels do not divide into the {self._grids[size][0]} cells of their heatmaps:"
                    " transforms are not exact there; choose image sizes that are multiples of the output stride"
                )
        return self._grids[size]
