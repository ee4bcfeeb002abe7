"""The task: its objective written out in loops, lambda = 0 as plain augmentation, plans, passes and evaluation."""

import math
from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vac_lightning.data.base import Batch, Sample
from vac_lightning.data.datamodule import DataModule
from vac_lightning.metrics import evaluate
from vac_lightning.networks.backbones import Backbone, tiny
from vac_lightning.networks.cam import CAMNetwork
from vac_lightning.task import VACTask
from vac_lightning.transforms import Flip, Rotate, Translate, random_flip, random_quarter_turn, random_translate
from vac_lightning.views import Views

LABELS = ("a", "b", "c", "d")
RATIO = torch.tensor([0.1, 0.5, 0.25, 0.8])
WEIGHTS = {"large": 0.6, "small": 0.7, "scale": 0.8}
RANDOM = {"t": random_translate, "r": random_quarter_turn, "f": random_flip}
FIXED = {
    "t": lambda generator, grid: Translate(1 / grid[0], -2 / grid[1]),
    "r": lambda generator, grid: Rotate(90),
    "f": lambda generator, grid: Flip(),
}
LARGE, SMALL = 32, 24  # grids of 4 and 3 cells


class Noise:
    """A data set of noise at every size asked for."""

    labels = LABELS

    def __init__(self, role: str, sizes: Sequence[int], n: int = 10) -> None:
        rng = np.random.default_rng(len(role))
        self.images = [rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8) for size in sizes]
        self.targets = rng.integers(-1, 2, (n, len(LABELS))).astype(np.int8)
        self.targets[0] = 1

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        return Sample([torch.from_numpy(x[index]) for x in self.images], torch.from_numpy(self.targets[index]), index)

    def source(self, index: int) -> str:
        return str(index)


def vac_task(word: str, lambda_: float = 1.0, letters=RANDOM, **options) -> VACTask:
    torch.manual_seed(0)
    options = {"optimizer": partial(torch.optim.SGD, lr=0.01, momentum=0.9), **options}
    views = Views(word, LARGE, (SMALL,), letters, WEIGHTS)
    return VACTask(CAMNetwork(tiny(), len(LABELS)), views, LABELS, RATIO, lambda_=lambda_, **options)


def module(task: VACTask) -> DataModule:
    return DataModule(Noise, task.views.sizes, batch_size=4)


def a_batch(task: VACTask) -> Batch:
    return next(iter(module(task).train_dataloader()))


def trainer(**options) -> pl.Trainer:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    defaults = {"max_epochs": 2, "limit_val_batches": 0, "num_sanity_val_steps": 0, **dict.fromkeys(quiet, False)}
    return pl.Trainer(accelerator="cpu", devices=1, **(defaults | options))


def moved(x: np.ndarray, word: str, grid: int) -> np.ndarray:
    """The fixed transforms again, on (channels, side, side), without the code under test."""
    if word == "f":
        return x[..., ::-1]
    if word == "r":
        return np.rot90(x, axes=(1, 2))
    cell, y = x.shape[-1] // grid, np.zeros_like(x)
    y[:, cell:, : -2 * cell] = x[:, :-cell, 2 * cell :]
    return y


def answer(task: VACTask, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (L,) and heatmaps (L, h, w) of one image, from the features and the classifier's numbers."""
    with torch.no_grad():
        features = task.network.backbone(torch.tensor(image.copy())[None].float())[0].double().numpy()
        w, b = (x.double().numpy() for x in (task.network.classifier.weight, task.network.classifier.bias))
    heatmaps = np.stack([sum(w[j, k] * features[k] for k in range(len(features))) for j in range(len(b))])
    return np.array([heatmaps[j].mean() + b[j] for j in range(len(b))]), heatmaps


def literal_objective(task: VACTask, batch: Batch, word: str) -> dict[str, float]:
    """l_c over all views, the terms of l_a and their weighted sum, sample by sample and label by label."""
    move, sizes = word.replace("s", "").replace("none", ""), task.views.sizes
    sources = [batch.images] if isinstance(batch.images, Tensor) else batch.images
    n, loss_c, terms, cells = len(batch.targets), 0.0, {}, {}
    for i in range(n):
        shown: dict[int, list[np.ndarray]] = {}
        for size, source in zip(sizes, sources, strict=True):
            image = np.empty((3, size, size))
            for c, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
                image[c] = (source[i, c].numpy() / 255 - mean) / std
            views = [image, *([moved(image, move, size // 8)] if move else [])]
            shown[size] = []
            for view in views:
                logits, heatmaps = answer(task, view)
                shown[size].append(heatmaps)
                for j, x in enumerate(logits):
                    q, p = 1 / (1 + math.exp(-x)), float(RATIO[j])
                    loss = math.exp(1 - p) * math.log(q) if batch.targets[i, j] == 1 else math.exp(p) * math.log(1 - q)
                    loss_c -= loss / (n * len(views) * len(sizes))
        compared = []
        if move:
            for place, size in zip(("large", "small"), sizes, strict=False):
                before, after = shown[size]
                seen = moved(np.ones_like(before), move, size // 8) == 1
                name = f"{move}_{place}" if "s" in word else move
                compared.append((name, moved(before, move, size // 8), after, seen))
        if "s" in word:
            for a, b in zip(shown[LARGE], shown[SMALL], strict=True):
                if move != "t" or a is shown[LARGE][0]:
                    a, b = np.kron(a, np.ones((1, 3, 3))), np.kron(b, np.ones((1, 4, 4)))
                    compared.append(("s", a, b, np.ones_like(a, dtype=bool)))
        for name, a, b, seen in compared:
            terms[name] = terms.get(name, 0) + float(((a - b)[seen] ** 2).sum())
            cells[name] = cells.get(name, 0) + int(seen.sum())
    terms = {name: value / cells[name] for name, value in terms.items()}
    weight = {name: WEIGHTS["scale" if name == "s" else name.partition("_")[2]] for name in terms if len(terms) > 1}
    weight = weight or dict.fromkeys(terms, 1.0)
    loss_a = sum(weight[name] * value for name, value in terms.items())
    total = loss_c + task.lambda_ * loss_a
    return {"loss": total, "loss_c": loss_c, "loss_a": loss_a, **{f"loss_a/{name}": x for name, x in terms.items()}}


@pytest.mark.parametrize("word", ["none", "f", "t", "r", "s", "fs", "ts"])
@pytest.mark.parametrize("lambda_", [0.5, 0.0])
def test_the_objective_is_its_literal_transcription(word, lambda_):
    task = vac_task(word, lambda_, letters=FIXED).eval()
    batch = a_batch(task)
    with torch.no_grad():
        terms = task.objective(batch, task.plan(0, 0))
    expected = literal_objective(task, batch, word)
    assert terms.keys() == expected.keys()
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, rel=1e-5)


def plain_augmentation(task: VACTask, epochs: int) -> nn.Module:
    """Training by hand on every view's logits: no heatmaps, no consistency, no Lightning."""
    network = deepcopy(task.network).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    mean, std = (255 * torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    loader = module(task).train_dataloader()
    for epoch in range(epochs):
        loader.batch_sampler.sampler.set_epoch(epoch)
        for number, batch in enumerate(loader):
            sources = [batch.images] if isinstance(batch.images, Tensor) else batch.images
            logits = []
            for source, moves in zip(sources, task.plan(epoch, number).groups.values(), strict=True):
                x = ((source - mean) / std).contiguous(memory_format=torch.channels_last)
                x = torch.cat([move.image(x) for move in moves])
                logits.append(network.classifier(network.backbone(x).mean((-2, -1))))
            x = torch.cat(logits)
            y = (torch.cat([batch.targets] * (len(x) // len(batch.targets))) == 1).float()
            weight = torch.where(y == 1, torch.exp(1 - RATIO), torch.exp(RATIO))
            loss = F.binary_cross_entropy_with_logits(x, y, weight, reduction="sum") / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network


def differing(a: nn.Module, b: nn.Module) -> list[str]:
    other = b.state_dict()
    return [name for name, value in a.state_dict().items() if not torch.equal(value, other[name])]


@pytest.mark.parametrize("word", ["none", "f", "fs", "tr"])
def test_lambda_0_is_plain_augmentation_bit_for_bit(word):
    task = vac_task(word, lambda_=0.0)
    expected = plain_augmentation(task, epochs=2)
    untrained = deepcopy(task.network)
    trainer().fit(task, datamodule=module(task))
    assert differing(task.network, expected) == []
    assert differing(task.network, untrained)


def test_lambda_above_0_is_not():
    augmented, consistent = vac_task("f", lambda_=0.0), vac_task("f", lambda_=1.0)
    assert differing(augmented.network, consistent.network) == []
    for task in (augmented, consistent):
        trainer(max_epochs=1, limit_train_batches=1).fit(task, datamodule=module(task))
    changed = differing(augmented.network, consistent.network)
    assert any("backbone.layers.0" in name for name in changed)
    assert not any("classifier" in name for name in changed)  # the heatmaps' weights are detached


@pytest.mark.parametrize(
    ("word", "views"), [("none", {32: 1}), ("f", {32: 2}), ("s", {32: 1, 24: 1}), ("fs", {32: 2, 24: 2})]
)
def test_each_size_is_one_forward_pass(word, views):
    task = vac_task(word)
    batch, plan = a_batch(task), task.plan(0, 0)
    passes = []
    task.network.backbone.register_forward_pre_hook(lambda module, inputs: passes.append(tuple(inputs[0].shape)))
    task.objective(batch, plan)
    assert passes == [(4 * n, 3, size, size) for size, n in views.items()]


def test_a_plan_is_a_function_of_seed_epoch_and_batch():
    task = vac_task("tr")
    plans = {(epoch, batch): task.plan(epoch, batch) for epoch in range(4) for batch in range(4)}
    torch.manual_seed(7)
    same = vac_task("tr")
    assert all(same.plan(*key) == plan for key, plan in reversed(plans.items()))
    assert len({str(plan) for plan in plans.values()}) > 8
    other = vac_task("tr", seed=1)
    assert sum(other.plan(*key) != plan for key, plan in plans.items()) > 8


def test_evaluation_sees_the_large_untransformed_image_only():
    task = vac_task("fs")
    data = module(task)
    trainer().test(task, datamodule=data, verbose=False)
    tested = task.trainer.callback_metrics
    split = data.split("test")
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = (torch.from_numpy(split.images[0]) / 255 - mean) / std
    with torch.no_grad():
        expected = evaluate(task.network.eval()(images).logits, split.targets)
    names = {f"AP/{j}": f"AP/{label}" for j, label in enumerate(LABELS)}
    assert {key: float(value) for key, value in tested.items()} == pytest.approx(
        {f"test/{names.get(key, key)}": value for key, value in expected.items()}, rel=1e-5
    )


def test_of_two_sizes_the_large_one_is_evaluated():
    task = vac_task("fs").eval()
    batch = a_batch(task)
    with torch.no_grad():
        task.test_step(batch, 0)
        logits = task.network(task.normalise(batch.images[0])).logits
    index, evaluated, _ = task.test_evaluation.predictions()
    np.testing.assert_array_equal(index, batch.index.sort().values)
    np.testing.assert_allclose(evaluated, logits[batch.index.argsort()], rtol=1e-5)


@pytest.mark.parametrize("lambda_", [0.0, 1.0])
def test_consistency_is_measured_at_lambda_0_but_pushes_nothing(lambda_):
    task = vac_task("fs", lambda_)
    terms = task.objective(a_batch(task), task.plan(0, 0))
    assert terms["loss_a"] > 0
    assert terms["loss_a"].requires_grad is (lambda_ > 0)
    assert (terms["loss"] != terms["loss_c"]).item() is (lambda_ > 0)


def test_a_schedule_by_step_is_told_how_many():
    told = []

    def schedule(optimizer, total_steps):
        told.append(total_steps)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=total_steps)

    task = vac_task("none", scheduler=schedule, scheduler_interval="step")
    trainer().fit(task, datamodule=module(task))
    assert told == [6]
    assert task.lr_schedulers().last_epoch == 6


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions_train_alike(precision):
    losses = {}
    for name in ("32-true", precision):
        task = vac_task("trs")
        trainer(precision=name, max_epochs=1).fit(task, datamodule=module(task))
        losses[name] = float(task.trainer.callback_metrics["train/loss"])
    assert losses[precision] == pytest.approx(losses["32-true"], rel=0.03)


@pytest.mark.parametrize("lambda_", [-1.0, math.nan, math.inf])
def test_lambda_is_a_weight(lambda_):
    with pytest.raises(ValueError, match="lambda="):
        vac_task("f", lambda_)


class Recorded(VACTask):
    """Keeps the gradients that the optimiser is given."""

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        self.gradients.append([parameter.grad.clone() for parameter in self.network.parameters()])


def plainly_trained(samples: int, batch_size: int, batches: int, clip: float | None) -> Recorded:
    """An epoch in double precision, of a network without statistics over the batch."""
    torch.manual_seed(0)
    backbone = Backbone(nn.Sequential(nn.Conv2d(3, 8, 5, stride=8), nn.ReLU()), channels=8)
    network = CAMNetwork(backbone, len(LABELS))
    task = Recorded(
        network,
        Views("f", LARGE, (SMALL,), RANDOM, WEIGHTS),
        LABELS,
        RATIO,
        optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9),
    )
    task.gradients = []
    data = DataModule(partial(Noise, n=samples), task.views.sizes, batch_size=batch_size)
    options = {"accumulate_grad_batches": batches, "gradient_clip_val": clip, "precision": "64-true"}
    trainer(max_epochs=1, **options).fit(task, datamodule=data)
    return task


@pytest.mark.parametrize("samples", [24, 22, 20, 18])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_accumulated_batches_have_the_gradient_of_one_large_batch(samples, clip):
    """A full epoch, a short last batch, a last window of one full batch, and of one short batch."""
    whole, parts = plainly_trained(samples, 8, 1, clip), plainly_trained(samples, 4, 2, clip)
    assert len(whole.gradients) == len(parts.gradients) == 3
    for expected, found in zip(whole.gradients, parts.gradients, strict=True):
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-12)
    clipped = [float(torch.cat([x.flatten() for x in g]).norm()) for g in whole.gradients]
    assert all(norm <= 0.3 + 1e-6 for norm in clipped) == (clip is not None)


def viewing(word: str, backbone: nn.Module | None = None) -> VACTask:
    """An untrained task that answers by the mean over the test views of a word."""
    torch.manual_seed(0)
    views = None if word == "none" else Views(word, LARGE, (SMALL,), RANDOM, WEIGHTS)
    network = CAMNetwork(backbone or tiny(), len(LABELS))
    return VACTask(network, Views("none", LARGE, (), RANDOM, WEIGHTS), LABELS, RATIO, test_views=views).eval()


@torch.no_grad()
@pytest.mark.parametrize("word", ["f", "s", "fs"])
def test_answers_at_test_time_are_means_by_hand(word):
    task = viewing(word)
    images = torch.from_numpy(Noise("test", [LARGE]).images[0][:3])
    output = task(images)
    for i, image in enumerate(task.normalise(images)):
        logits, heatmaps = [], []
        for size in (LARGE, SMALL) if "s" in word else (LARGE,):
            shown = F.interpolate(image[None], size=(size, size), mode="bilinear", antialias=True)[0].numpy()
            for mirrored in (False, True) if "f" in word else (False,):
                x, m = answer(task, shown[..., ::-1] if mirrored else shown)
                logits.append(x)
                m = torch.from_numpy(m[..., ::-1].copy() if mirrored else m)[None]
                heatmaps.append(F.interpolate(m, size=(4, 4), mode="bilinear", align_corners=False)[0].numpy())
        np.testing.assert_allclose(output.logits[i], np.mean(logits, 0), atol=1e-5)
        np.testing.assert_allclose(output.heatmaps[i], np.mean(heatmaps, 0), atol=1e-5)


class Cells(nn.Module):
    """A backbone that turns and mirrors as its images do, built of cell means: equivariant by construction."""

    channels = 6

    def forward(self, images: Tensor) -> Tensor:
        cells = F.avg_pool2d(images, 8)
        return torch.cat([cells, cells.square()], 1)


@torch.no_grad()
@pytest.mark.parametrize("word", ["f", "r", "rf"])
def test_an_equivariant_network_answers_the_same_whatever_the_views(word):
    plain, viewed = (viewing(name, Cells()) for name in ("none", word))
    images = torch.from_numpy(Noise("test", [LARGE]).images[0])
    torch.testing.assert_close(viewed(images), plain(images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_of_shifted_views_the_cells_out_of_sight_are_left_out():
    plain, viewed = (viewing(name, Cells()) for name in ("none", "t"))
    images = torch.from_numpy(Noise("test", [LARGE]).images[0])
    torch.testing.assert_close(viewed(images).heatmaps, plain(images).heatmaps, rtol=1e-4, atol=1e-5)
    assert (viewed(images).logits - plain(images).logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("word", "views"),
    [("none", {32: 1}), ("f", {32: 2}), ("s", {32: 1, 24: 1}), ("fs", {32: 2, 24: 2}), ("t", {32: 5})],
)
def test_test_views_are_one_pass_a_size_without_heatmaps(word, views):
    task, passes = viewing(word), []
    task.network.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append((tuple(args[0].shape), kwargs)), with_kwargs=True
    )
    trainer().test(task, dataloaders=module(task).evaluation_loader("test"), verbose=False)
    shapes = [(n * number, 3, size, size) for n in (4, 4, 2) for size, number in views.items()]
    assert passes == [(shape, {"heatmaps": False}) for shape in shapes]
