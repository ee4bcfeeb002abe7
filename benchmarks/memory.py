"""Peak memory a sample of our training step, samples a GiB, and what activation checkpointing saves and costs.

Every peak is that of a process of its own, over two steps (both losses and the optimiser's step included): resident
memory on a CPU, allocated device memory on a GPU. Two batches give a line: what a sample takes, and what is there
without any (on a CPU also the libraries). Activation checkpointing is measured against the same step without it, in
memory and, in interleaved rounds, in time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from measuring import DEVICE, Result, interleaved, medians, peak_bytes, report
from training import batch, composed, task

LABELS = 14
SIDES = {"f": (224,), "fs": (224, 192)}


class Case(NamedTuple):
    """A backbone, a transform and a precision."""

    backbone: str
    transform: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backbone.upper()} {self.transform} {self.precision}"


class Line(NamedTuple):
    """Peak memory as a function of the batch, in MiB."""

    constant: float
    sample: float

    def __str__(self) -> str:
        return f"{self.sample:.0f} MiB a sample + {self.constant:.0f} MiB, {1024 / self.sample:.1f} samples a GiB"


def step(case: Case, checkpointing: bool, samples: int) -> Callable[[], None]:
    """Our training step without the Trainer: views, both losses, backward, SGD."""
    words = ["data=wider", f"backbone={case.backbone}", "backbone.weights=null", f"transform={case.transform}"]
    network = task(composed(*words, f"activation_checkpointing={str(checkpointing).lower()}"), LABELS)
    network = network.to(DEVICE).train()
    optimizer = torch.optim.SGD(network.network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    data = batch(samples, SIDES[case.transform], LABELS)

    def run() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=case.precision == "bf16"):
            loss = network.objective(data, network.plan(0, 0))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def line(case: Case, checkpointing: bool, batches: tuple[int, int]) -> Line:
    """Through the peaks of two batches."""
    options = [*(f"--{name}s={value}" for name, value in case._asdict().items()), f"--checkpointing={checkpointing}"]
    script = str(Path(__file__))
    small, large = (peak_bytes([script, *options, f"--peak={samples}"]) / 2**20 for samples in batches)
    sample = (large - small) / (batches[1] - batches[0])
    return Line(small - batches[0] * sample, sample)


def memory(case: Case, batches: tuple[int, int]) -> Iterator[Result]:
    """With stored activations and with recomputed ones."""
    stored, computed = (line(case, checkpointing, batches) for checkpointing in (False, True))
    yield Result(f"memory, {case}", str(stored), "", None)
    what = f"memory a sample, {case}, activation checkpointing against stored activations"
    yield Result(what, str(computed), str(stored), computed.sample / stored.sample)


def cost(case: Case, samples: int, rounds: int) -> Result:
    """The time of a step with activation checkpointing, and without."""
    times = medians(interleaved({str(on): step(case, on, samples) for on in (True, False)}, rounds))
    figures = (f"{times[str(on)]:.3f} s" for on in (True, False))
    what = f"time of a step of {samples}, {case}, activation checkpointing against stored activations"
    return Result(what, *figures, times["True"] / times["False"])


def main() -> None:
    on_cpu = DEVICE.type == "cpu"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", choices=("r50", "r101"), default=["r50", "r101"])
    parser.add_argument("--transforms", nargs="+", choices=list(SIDES), default=["fs"] if on_cpu else list(SIDES))
    precisions = ("bf16", "fp32")
    parser.add_argument("--precisions", nargs="+", choices=precisions, default=precisions[: 1 if on_cpu else 2])
    parser.add_argument("--batches", nargs=2, type=int, default=(1, 3) if on_cpu else (16, 32))
    parser.add_argument("--rounds", type=int, default=2 if on_cpu else 10, help="of the cost in time")
    parser.add_argument("--checkpointing", choices=("True", "False"), help=argparse.SUPPRESS)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    cases = [Case(*each) for each in product(words.backbones, words.transforms, words.precisions)]
    if words.peak:
        run = step(cases[0], words.checkpointing == "True", words.peak)
        for _ in range(2):
            run()
        print(torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else 0)
        return
    name = "CPU" if on_cpu else torch.cuda.get_device_name()
    print(f"batches of {words.batches[0]} and {words.batches[1]} at 224 pixels, with s at 192 too; {name}", flush=True)
    for case in cases:
        report(memory(case, tuple(words.batches)))
    for case in cases[:1] if on_cpu else cases:
        report([cost(case, words.batches[1], words.rounds)])


if __name__ == "__main__":
    main()
