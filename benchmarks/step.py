"""Our training step against a bare torchvision loop on the same images, precision and layout.

Ours: uint8 batch -> normalise -> the four views of ACfs -> two forward passes -> l_c + lambda * l_a -> backward -> SGD.
Bare: the finished views -> two forward passes -> cross-entropy -> backward -> SGD.

Steps alternate in one process; the ratio is of the medians. Peak memory is read in a process of its own for each.

    python benchmarks/step.py [--batch 16] [--repeats 7] [--backbone resnet50] [--labels 14]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
import torchvision

from vac_lightning.data.base import Batch
from vac_lightning.networks.backbones import torchvision_resnet
from vac_lightning.networks.cam import CAMNetwork
from vac_lightning.task import VACTask
from vac_lightning.transforms import random_flip
from vac_lightning.views import Views

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batch(size: int, labels: int) -> Batch:
    """Source images of both sizes, as the paper's data loading hands them over."""
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (size, 3, side, side), generator=generator, dtype=torch.uint8) for side in (224, 192)
    ]
    targets = torch.randint(0, 2, (size, labels), generator=generator, dtype=torch.int8)
    return Batch([x.to(DEVICE) for x in images], targets.to(DEVICE), torch.arange(size, device=DEVICE))


def ours(backbone: str, data: Batch, autocast: bool) -> Callable[[], None]:
    labels = data.targets.shape[1]
    views = Views("fs", 224, [192], {"f": random_flip}, {"large": 1.0, "small": 1.0, "scale": 1.0})
    network = CAMNetwork(torchvision_resnet(backbone), labels)
    ratio = torch.full((labels,), 0.3)
    task = VACTask(network, views, [str(j) for j in range(labels)], ratio).to(DEVICE).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    count = iter(range(10**9))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            loss = task.objective(data, task.plan(0, next(count)))["loss"]
        loss.backward()
        optimizer.step()

    return step


def bare(backbone: str, data: Batch, autocast: bool) -> Callable[[], None]:
    labels = data.targets.shape[1]
    network = torchvision.models.get_model(backbone, weights=None, num_classes=labels)
    network = network.to(DEVICE, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    images = [
        torch.cat([x, x.flip(-1)]).sub(127.0).div(58.0).to(memory_format=torch.channels_last)
        for x in (source.float() for source in data.images)
    ]
    targets = data.targets.float().repeat(4, 1)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            logits = torch.cat([network(x) for x in images])
        F.binary_cross_entropy_with_logits(logits.float(), targets).backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None]) -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(make: Callable[[], Callable[[], None]]) -> int:
    """Peak of device memory, or of the process where the device is the CPU, over three steps."""
    step = make()
    for _ in range(3):
        step()
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--precision", choices=("fp32", "bf16"), nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--peak", choices=("ours", "bare"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    data = batch(words.batch, words.labels)
    steps = {"ours": ours, "bare": bare}
    if words.peak:
        print(json.dumps(peak_bytes(partial(steps[words.peak], words.backbone, data, words.precision[0] == "bf16"))))
        return
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{words.backbone}, ACfs, batch {words.batch}: {4 * words.batch} images a step, channels_last")
    print(f"torch {torch.__version__}, {name}")
    options = [f"--batch={words.batch}", f"--labels={words.labels}", f"--backbone={words.backbone}"]
    for precision in words.precision:
        # Before this process grows: on Linux a new process's peak starts at its parent's.
        command = [sys.executable, __file__, *options, f"--precision={precision}"]
        peak = {key: json.loads(subprocess.check_output([*command, f"--peak={key}"])) for key in steps}
        mebibytes = {key: value / 2**20 for key, value in peak.items()}
        print(f"{precision}: peak MiB ours {mebibytes['ours']:.0f}, bare {mebibytes['bare']:.0f}, {_ratio(peak)}")
    for precision in words.precision:
        made = {key: make(words.backbone, data, precision == "bf16") for key, make in steps.items()}
        times: dict[str, list[float]] = {key: [] for key in made}
        for repeat in range(words.repeats + 1):
            # The first round warms up; the order turns so that neither always runs second.
            for key in sorted(made, reverse=bool(repeat % 2)):
                elapsed = seconds(made[key])
                if repeat:
                    times[key].append(elapsed)
        del made
        rate = {key: 4 * words.batch / statistics.median(values) for key, values in times.items()}
        print(f"{precision}: images/s ours {rate['ours']:.2f}, bare {rate['bare']:.2f}, {_ratio(rate)}")


def _ratio(values: Mapping[str, float]) -> str:
    return f"ratio {values['ours'] / values['bare']:.3f}"


if __name__ == "__main__":
    main()
