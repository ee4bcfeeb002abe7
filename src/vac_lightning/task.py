"""The training task: views -> network -> L = l_c + lambda * l_a -> metrics."""

from __future__ import annotations

__all__ = ["NonFiniteError", "VACTask"]

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from vac_lightning.data.base import FILLER, Batch
from vac_lightning.evaluation import MultilabelEvaluation
from vac_lightning.losses import weighted_bce
from vac_lightning.metrics import SUMMARY
from vac_lightning.networks.cam import Output
from vac_lightning.transforms import Scale
from vac_lightning.views import ViewPlan, Views

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class NonFiniteError(ArithmeticError):
    """A loss or a weight that is not a finite number, found before it could do harm.

    index: the samples it came from, as positions in the training split; empty where it cannot be told.
    """

    def __init__(self, what: str, index: Sequence[int] = ()) -> None:
        super().__init__(what)
        self.index = tuple(index)


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
        seed: of the transforms drawn, the same in every process, and of what the network draws (dropout).
        channels_last: memory layout of network and images.
        channels: C, of the images.
        test_views: the transform set whose views are averaged wherever the task answers, see Views.test_plan; None for
            the untransformed image alone.
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
        channels: int = 3,
        test_views: Views | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= lambda_ < math.inf:
            raise ValueError(f"lambda={lambda_}: expected a finite number of at least 0")
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.layout)
        self.views = views
        self.labels = tuple(labels)
        self.channels = channels
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
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            of_channels = torch.tensor([values[c % 3] for c in range(channels)])
            self.register_buffer(name, 255 * of_channels.view(channels, 1, 1), persistent=False)
        self._grids: dict[int, tuple[int, int]] = {}
        self._sums: dict[str, float] = {}
        self._window = (0, 0)
        self._test_plan = None if test_views is None else test_views.test_plan(self._grid)

    def forward(self, images: Tensor, heatmaps: bool = True) -> Any:
        """uint8 images (B, C, H, W) of any size -> Output at the evaluation size, the mean over the test views.

        heatmaps: off, only logits are asked for.
        """
        normal = Scale(self.views.size).image(self.normalise(images))
        if self._test_plan is None:
            return self.network(normal, heatmaps=heatmaps)
        shown = {size: self.network(x, heatmaps=heatmaps) for size, x in self._test_plan.images(normal).items()}
        logits = self._test_plan.mean_logits({size: output.logits for size, output in shown.items()})
        if not heatmaps:
            return Output(logits, None)
        return Output(logits, self._test_plan.mean_heatmaps({size: output.heatmaps for size, output in shown.items()}))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> float by the mean and deviation of ImageNet; the 0 of transforms is the mean.

        Of channels beside red, green and blue, channel c is taken as channel c mod 3 is.

        Raises:
            ValueError: images of another number of channels, which could otherwise broadcast.
        """
        if images.shape[1] != self.channels:
            raise ValueError(f"images of {images.shape[1]} channels: the network was made for {self.channels}")
        normal = (images.float() - self.mean) / self.std
        return normal.to(self.mean.dtype).contiguous(memory_format=self.layout)  # the network's, as trainer.precision

    def plan(self, epoch: int, batch: int) -> ViewPlan:
        """The views of one batch: a function of seed, epoch and batch number, so the same in every process."""
        generator = torch.Generator().manual_seed(_seed(self.seed, epoch, batch))
        return self.views.plan(generator, self._grid)

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
        """One step on this process's share of a batch.

        The loss is weighted by the share, so that the mean of the processes' gradients, which is what DDP takes, is
        the gradient of the mean over all samples of the batch. Logged are means over these too. Of accumulated batches
        it is the mean over the samples of all, see `on_before_optimizer_step`.

        Raises:
            NonFiniteError: in every process, where the loss of any is not finite.
        """
        torch.manual_seed(_seed(self.seed, self.current_epoch, batch_idx, 1 + self.global_rank))
        plan = self.plan(self.current_epoch, batch_idx)
        terms = self.objective(batch, plan)
        samples = int((batch.index != FILLER).sum())
        total, means = self._over_processes(samples, terms)
        if not all(map(math.isfinite, means.values())):
            raise self._diagnosed(batch, plan, terms, means)
        for name, value in {"samples": 1.0, **means}.items():
            self._sums[name] = self._sums.get(name, 0.0) + total * value
        self.log("step/loss", means["loss"], on_step=True, on_epoch=False, prog_bar=True)
        share = samples * self.trainer.world_size / total
        if self.trainer.accumulate_grad_batches > 1:
            share *= self._accumulated(batch_idx, total)
        loss = terms["loss"] if share == 1 else share * terms["loss"]
        return {"loss": loss, "images": total * sum(map(len, plan.groups.values()))}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Divide accumulated gradients by the samples that they are of, before they are clipped.

        Lightning divides by the number of batches to accumulate, however many and however full they were.
        """
        batches = self.trainer.accumulate_grad_batches
        first, total = self._window
        if batches > 1 and (factor := batches * first / total) != 1:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor)

    def on_train_epoch_end(self) -> None:
        samples = self._sums.pop("samples")
        self.log_dict({f"train/{name}": value / samples for name, value in self._sums.items()})
        self._sums = {}

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
        for name, value in self.network.named_parameters():  # the same in every process, so that all raise
            if not value.isfinite().all():
                raise NonFiniteError(f"step {self.global_step}: weights that are not finite in {name}")
        checkpoint["labels"] = list(self.labels)
        checkpoint["channels"] = self.channels
        checkpoint["sums"] = dict(self._sums)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._sums = dict(checkpoint["sums"])

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

    def _over_processes(self, samples: int, terms: Mapping[str, Tensor]) -> tuple[int, dict[str, float]]:
        """The number of samples of all processes, and the mean of every term over them."""
        values = torch.stack([value.detach().float() for value in terms.values()]).tolist()
        counted = [float(samples), *(samples * value if samples else 0.0 for value in values)]
        if self.trainer.world_size > 1:
            summed = torch.tensor(counted, dtype=torch.double, device=self.device)
            torch.distributed.all_reduce(summed)
            counted = summed.tolist()
        total, *values = counted
        return int(total), {name: value / total for name, value in zip(terms, values, strict=True)}

    def _accumulated(self, batch_idx: int, samples: int) -> float:
        """The weight of a batch of so many samples among those that are accumulated: that of the first is 1."""
        first, total = (samples, 0) if batch_idx % self.trainer.accumulate_grad_batches == 0 else self._window
        self._window = (first or samples, total + samples)
        return samples / self._window[0]

    def _diagnosed(
        self, batch: Batch, plan: ViewPlan, terms: Mapping[str, Tensor], means: Mapping[str, float]
    ) -> NonFiniteError:
        """Which term is not finite, and from which samples of any process."""
        bad = [f"{name} = {value}" for name, value in means.items() if not math.isfinite(value) and name != "loss"]
        own = self._culprits(batch, plan) if not all(value.isfinite() for value in terms.values()) else []
        if self.trainer.world_size > 1:
            shared: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(shared, own)
            own = [index for part in shared for index in part]
        place = f"epoch {self.current_epoch}, step {self.global_step}"
        weights = [name for name, value in self.network.named_parameters() if not value.isfinite().all()]
        cause = f"; weights are not finite already: {', '.join(weights[:3])}" if weights else ""
        return NonFiniteError(f"{place}: {', '.join(bad)} (lambda = {self.lambda_:g}){cause}", sorted(own))

    @torch.no_grad()
    def _culprits(self, batch: Batch, plan: ViewPlan) -> list[int]:
        """The samples of a batch, by index, whose own logits, heatmaps or loss are not finite."""
        sources = [batch.images] if isinstance(batch.images, Tensor) else batch.images
        outputs = [self.network(x) for x in plan.images([self.normalise(x) for x in sources]).values()]
        samples = len(batch.targets)
        found = torch.zeros(samples, dtype=torch.bool)
        for output in outputs:
            finite = output.heatmaps.isfinite().flatten(1).all(1).cpu()
            for row, logits in enumerate(output.logits):
                sample = row % samples
                loss = self.classification_loss(logits[None], batch.targets[sample][None], self.positive_ratio)
                found[sample] |= not (finite[row] and logits.isfinite().all() and loss.isfinite())
        return batch.index[found.to(batch.index.device)].tolist()

    def _logits(self, batch: Batch) -> Tensor:
        """Evaluation sees the large, untransformed image only, or test views made of it."""
        largest = batch.images if isinstance(batch.images, Tensor) else batch.images[0]
        return self(largest, heatmaps=False).logits

    def _grid(self, size: int) -> tuple[int, int]:
        if size not in self._grids:
            self._grids[size] = self.network.grid(size)  # type: ignore[operator]
            if size % self._grids[size][0]:
                rank_zero_warn(
                    f"images of {size} pixels do not divide into the {self._grids[size][0]} cells of their heatmaps:"
                    " transforms are not exact there; choose image sizes that are multiples of the output stride"
                )
        return self._grids[size]


def _seed(*numbers: int) -> int:
    """A seed that these numbers decide."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
