"""Our training step against a bare torchvision loop on the same images, and against a literal port of the reference.

Ours is what a run does at every step, taken by the Trainer: a uint8 batch in memory -> normalise -> the views -> a
forward pass a size -> l_c + lambda * l_a -> backward -> optimiser -> throughput, status, metrics.csv (at every step,
where a run logs every twentieth). Its time is that from handing a batch to the Trainer to being asked for the next.

Bare is a loop of torchvision's network over finished views: a forward pass a size, binary cross-entropy, backward, SGD;
same precision, channels_last. Literal is the reference algorithm as described: four separate image tensors and passes
through the network, a loop over samples in the loss, heatmaps by a product of shape B x L x C x H x W summed over C,
nearest neighbours on the common grid of both sizes; fp32, contiguous.

All take turns in one process; ratios are of medians. Peak memory is that of a process of its own for ours and for
bare, both having imported the same. With a GPU bf16 alone is measured, without and with compile=true.

    python benchmarks/step.py [--backbones r50 r101] [--transforms f fs] [--precisions fp32 bf16] [--rounds N]
    python benchmarks/step.py --profile [--backbones r50] [--transforms fs]     # where the rest goes
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from measuring import DEVICE, Result, medians, peak_bytes, report
from omegaconf import DictConfig
from stopwatch import Stopwatch
from torch import Tensor
from training import Turns, batch, composed, fit, task

from vac_lightning import hardware
from vac_lightning.data.base import Batch
from vac_lightning.views import ViewPlan

NETWORKS = {"r18": "resnet18", "r50": "resnet50", "r101": "resnet101"}
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
SIDES = {"f": (224,), "fs": (224, 192)}
LABELS = 14
LEAST = 0.97 if DEVICE.type == "cpu" else 0.95


class Case(NamedTuple):
    """One line of the table."""

    backbone: str
    transform: str
    precision: str
    batch: int = 16
    compile: bool = False

    def __str__(self) -> str:
        return f"{self.backbone.upper()} {self.transform} {self.precision}{' compile' if self.compile else ''}"

    @property
    def images(self) -> int:
        """Of all views of a step."""
        return 2 * len(SIDES[self.transform]) * self.batch

    @property
    def data(self) -> Batch:
        return batch(self.batch, SIDES[self.transform], LABELS)


class Bare:
    """torchvision's network on finished views: forward, binary cross-entropy, backward, SGD."""

    def __init__(self, case: Case, data: Batch) -> None:
        self.autocast = case.precision == "bf16"
        network = torchvision.models.get_model(NETWORKS[case.backbone], weights=None, num_classes=LABELS)
        self.network = network.to(DEVICE, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        self.images = [x.to(memory_format=torch.channels_last) for x in _finished(data)]
        self.targets = data.targets.float().repeat(2 * len(self.images), 1)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.backward(self.loss(self.forward()))
        self.optimizer.step()

    def forward(self) -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.autocast):
            return torch.cat([self.network(x) for x in self.images])

    def loss(self, logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits.float(), self.targets)

    def backward(self, loss: Tensor) -> None:
        loss.backward()


class Literal:
    """The reference algorithm, step by step as its description has it."""

    def __init__(self, case: Case, data: Batch) -> None:
        network = torchvision.models.get_model(NETWORKS[case.backbone], weights=None, num_classes=LABELS)
        self.network = network.to(DEVICE).train()
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        # Image and mirror image at the large size, and again at the small one.
        self.images = [half.contiguous() for x in _finished(data) for half in x.chunk(2)]
        self.targets = data.targets.float()
        self.ratio = torch.full((LABELS,), 0.3, device=DEVICE)

    def __call__(self) -> None:
        loss = self.objective()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def objective(self) -> Tensor:
        outputs = [self.forward(x) for x in self.images]
        loss = self.classification(torch.cat([logits for logits, _ in outputs]), self.targets.repeat(4, 1))
        large, large_mirrored, small, small_mirrored = (heatmaps for _, heatmaps in outputs)
        loss = loss + F.mse_loss(self.mirrored(large), large_mirrored)
        loss = loss + F.mse_loss(self.mirrored(small), small_mirrored)
        common = 42  # the least common multiple of 7 and 6 cells
        each = [F.interpolate(torch.cat(x), size=common) for x in ((large, large_mirrored), (small, small_mirrored))]
        return loss + F.mse_loss(each[0], each[1])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, L) and heatmaps (B, L, h, w)."""
        net = self.network
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        features = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        weight = net.fc.weight.detach()
        heatmaps = (features[:, None] * weight[None, :, :, None, None]).sum(2)  # the product is (B, L, C, h, w)
        return net.fc(net.avgpool(features).flatten(1)), heatmaps

    def classification(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Weighted cross-entropy, one sample after the other."""
        total = logits.new_zeros(())
        for x, y in zip(logits, targets, strict=True):
            weight = torch.where(y == 1, torch.exp(1 - self.ratio), torch.exp(self.ratio))
            positive = x.clamp(max=0) - torch.log(1 + torch.exp(-x.abs()))  # log sigmoid
            total = total - (weight * (y * positive + (1 - y) * (positive - x))).sum()
        return total / len(logits)

    def mirrored(self, heatmaps: Tensor) -> Tensor:
        mirror = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], device=heatmaps.device).expand(len(heatmaps), 2, 3)
        grid = F.affine_grid(mirror, list(heatmaps.shape), align_corners=True)
        return F.grid_sample(heatmaps, grid, align_corners=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", choices=list(NETWORKS), default=["r50", "r101"])
    parser.add_argument("--transforms", nargs="+", choices=list(SIDES), default=["f", "fs"])
    precisions = list(PRECISIONS) if DEVICE.type == "cpu" else ["bf16"]
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=precisions)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2, help="at least")
    parser.add_argument("--seconds", type=float, default=25, help="of a case, where its rounds do not take longer")
    parser.add_argument(
        "--compile", nargs="+", choices=("off", "on"), default=["off", "on"][: 1 + (DEVICE.type != "cpu")]
    )
    parser.add_argument(
        "--memory", nargs="*", choices=list(NETWORKS), default=["r50"], help="of these backbones, with fs"
    )
    parser.add_argument("--memory-precisions", nargs="+", choices=list(PRECISIONS), default=["bf16"])
    parser.add_argument("--profile", action="store_true", help="where the time goes, instead")
    parser.add_argument("--peak", choices=("ours", "bare"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    hardware.reuse_memory()  # for all, as a run has it
    every = product(words.backbones, words.transforms, words.precisions, [words.batch], words.compile)
    cases = [Case(*each[:-1], compile=each[-1] == "on") for each in every]
    if words.peak:
        _run(cases[0], words.peak)
        print(torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else 0)
        return
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"batch {words.batch} at 224 pixels, with s at 192 too; torch {torch.__version__}, {name}", flush=True)
    if words.profile:
        for case in cases:
            profile(case, words.rounds, words.seconds)
        return
    for case in cases:
        if case.backbone in words.memory and case.precision in words.memory_precisions and case.transform == "fs":
            report([peak(case)])
        report(speed(case, words.rounds, words.seconds))


def speed(case: Case, rounds: int, seconds: float) -> Iterator[Result]:
    """Images/s of ours, of bare and, where the paper's own case is at hand, of literal."""
    data, config = case.data, _config(case)
    rivals: dict[str, Callable[[], object]] = {"a bare torchvision loop": Bare(case, data)}
    if (case.backbone, case.transform, case.precision, case.compile) == ("r50", "fs", "bf16", False):
        rivals["a literal port of the reference, fp32"] = Literal(case, data)
    on_cpu = DEVICE.type == "cpu"
    turns = Turns(data, rivals, rounds, seconds, warmup=1 if on_cpu else 5)
    fit(config, task(config, LABELS), turns)
    rates = {name: case.images / median for name, median in medians(turns.times).items()}
    for name in rivals:
        ratio, least = rates["ours"] / rates[name], LEAST if "bare" in name else 2.3 if on_cpu else None
        ours, rival = (f"{rates[which]:.2f} images/s" for which in ("ours", name))
        yield Result(f"step, {case}, against {name}", ours, rival, ratio, least=least)


def peak(case: Case) -> Result:
    """Peak memory of two steps of ours and of bare."""
    options = [
        f"--{word}={value}" for word, value in zip(("backbones", "transforms", "precisions"), case, strict=False)
    ]
    options += [f"--batch={case.batch}", f"--compile={'on' if case.compile else 'off'}"]
    bytes_ = {name: peak_bytes([str(Path(__file__)), *options, f"--peak={name}"]) for name in ("ours", "bare")}
    ours, bare = (f"{value / 2**20:.0f} MiB" for value in bytes_.values())
    what = f"peak memory, {case}, against a bare torchvision loop"
    return Result(what, ours, bare, bytes_["ours"] / bytes_["bare"], most=1.05)


def profile(case: Case, rounds: int, seconds: float) -> None:
    """Print where the time of our step and of bare's goes, in ms."""
    data, config = case.data, _config(case)
    ours, bare = task(config, LABELS), Bare(case, data)
    watches = {"ours": Stopwatch(), "bare": Stopwatch()}
    own: tuple[tuple[Any, str, str], ...] = (
        (ours, "normalise", "normalise, views"),
        (ours.network, "forward", "network, forward"),
        (ours, "classification_loss", "losses"),
        (ours, "backward", "backward"),
        (ours, "optimizer_step", "optimiser"),
        (ours, "optimizer_zero_grad", "optimiser"),
        (ours, "training_step", "seeds, plan, checks, sums"),
        (ViewPlan, "images", "normalise, views"),
        (ViewPlan, "consistency", "losses"),
    )
    of_bare: tuple[tuple[Any, str, str], ...] = (
        (bare, "forward", "network, forward"),
        (bare, "loss", "losses"),
        (bare, "backward", "backward"),
        (bare.optimizer, "step", "optimiser"),
        (bare.optimizer, "zero_grad", "optimiser"),
    )
    images, consistency = ViewPlan.images, ViewPlan.consistency
    for which, parts in (("ours", own), ("bare", of_bare)):
        for owner, name, part in parts:
            watches[which].watch(owner, name, part)

    def start_counting() -> None:
        for watch in watches.values():
            watch.seconds.clear()

    turns = Turns(data, {"bare": bare}, rounds, seconds, counting=start_counting)
    fit(config, ours, turns)
    ViewPlan.images, ViewPlan.consistency = images, consistency  # type: ignore[method-assign]
    rounds = len(turns.times["ours"])
    whole = {name: sum(values) / rounds for name, values in turns.times.items()}
    print(f"\n{case}: ms a step, and the difference as a share of bare's step; {rounds} rounds")
    print(f"{'':<26} {'ours':>9} {'bare':>9}")
    for part in [*watches["ours"].seconds, "Lightning, callbacks, log", "all"]:
        taken = {name: watch.seconds.get(part, 0.0) / rounds for name, watch in watches.items()}
        if part.startswith("Lightning"):
            taken = {name: whole[name] - sum(watch.seconds.values()) / rounds for name, watch in watches.items()}
        taken = whole if part == "all" else taken
        share = (taken["ours"] - taken["bare"]) / whole["bare"]
        print(f"{part:<26} {1e3 * taken['ours']:9.2f} {1e3 * taken['bare']:9.2f} {share:+8.1%}")


def _config(case: Case) -> DictConfig:
    words = [f"backbone={case.backbone}", "backbone.weights=null", f"transform={case.transform}", "data=wider"]
    words += [f"batch_size={case.batch}", f"trainer.precision={PRECISIONS[case.precision]}"]
    return composed(*words, *(["compile=true"] if case.compile else []))


def _finished(data: Batch) -> list[Tensor]:
    """Every size's images and their mirror images, normalised: (2 * B, 3, H, W)."""
    sources = [data.images] if isinstance(data.images, Tensor) else data.images
    return [torch.cat([x, x.flip(-1)]) for x in (source.float().sub(127.0).div(58.0) for source in sources)]


def _run(case: Case, which: str) -> None:
    data = case.data
    if which == "bare":
        step = Bare(case, data)
        for _ in range(2):
            step()
    else:
        config = _config(case)
        fit(config, task(config, LABELS), Turns(data, {}, rounds=2, warmup=0))


if __name__ == "__main__":
    main()
