"""What each default is worth: training as it is by itself, beside the same with one switch the other way.

Steps are those of r50 with f at 224 pixels, batch 16: objective, backward, optimiser, one network a variant. Optimisers
are measured alone, on the weights of r50. What reusing memory is worth is told by processes of their own that take
turns, as one that has kept memory once has it for good. Loading is epochs of r18 at 128 pixels on generated photographs
that are read at every epoch (reading=fast, no cache): with no loading process, which is the default on a CPU, and with
some.

--compile measures compile=true instead, whose first step can take minutes on a CPU: what a step gains, and its cost.

    python benchmarks/defaults.py [--rounds 3]
    python benchmarks/defaults.py --compile r18
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from measuring import DEVICE, Result, interleaved, medians, report
from omegaconf import DictConfig
from training import batch, composed, task

from vac_lightning import hardware
from vac_lightning.commands import assembly
from vac_lightning.commands.targets import instantiate
from vac_lightning.data.base import Batch
from vac_lightning.data.datamodule import DataModule
from vac_lightning.task import VACTask

WORDS = ("data=wider", "backbone.weights=null", "transform=f")
LABELS = 14
DEFAULT = hardware.precision(DEVICE.type)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", metavar="BACKBONE", help="measure compile=true alone, such as with r18")
    parser.add_argument("--reuse", choices=("true", "false"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.reuse:
        step = stepper(batch(16, (224,), LABELS))
        hardware.reuse_memory(words.reuse == "true")
        print(medians(interleaved({"step": step}, words.rounds))["step"])
        return
    if words.compile:
        report(compiled(words.compile, words.rounds))
        return
    if DEVICE.type == "cpu":
        report(reusing(words.rounds))
    report(steps(words.rounds))
    report(optimisers(10 * words.rounds))
    report(loading(words.rounds))


def steps(rounds: int) -> Iterator[Result]:
    """A step with the defaults, against each switch the other way."""
    data = batch(16, (224,), LABELS)
    other = {"channels_last=false": ("channels_last=false",)}
    if DEFAULT != "32-true":
        other["trainer.precision=32-true"] = ("trainer.precision=32-true",)
    variants = {"defaults": stepper(data), **{name: stepper(data, *words) for name, words in other.items()}}
    found = medians(interleaved(variants, rounds))
    for name in other:
        yield Result(f"default, step of r50 f ({DEFAULT}), against {name}", *_seconds(found, "defaults", name))


def reusing(rounds: int) -> Iterator[Result]:
    """A step in a process that keeps freed memory, against one that hands it back."""
    times: dict[str, list[float]] = {"true": [], "false": []}
    for turn in ("true", "false", "false", "true"):
        command = [sys.executable, __file__, f"--rounds={rounds}", f"--reuse={turn}"]
        times[turn].append(float(subprocess.check_output(command, text=True).split()[-1]))
    found = medians(times)
    yield Result(f"default, step of r50 f ({DEFAULT}), against reuse_memory=false", *_seconds(found, "true", "false"))


def optimisers(rounds: int) -> Iterator[Result]:
    """An optimiser's step on the weights of r50."""
    for name, recipe in (("sgd", "paper_wider"), ("adamw", "modern")):
        variants = {}
        for word, fused in (("fused", True), ("not fused", None)):
            config = composed(*WORDS, f"recipe={recipe}")
            weights = [torch.nn.Parameter(p.detach().clone().to(DEVICE)) for p in task(config, LABELS).parameters()]
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            variants[word] = instantiate(config.optimizer, "optimizer", fused=fused)(weights).step
        found = medians(interleaved(variants, rounds))
        yield Result(f"default, step of {name} alone, against optimizer.fused=false", *_seconds(found, *variants))


def loading(rounds: int) -> Iterator[Result]:
    """Epochs over photographs that are decoded each time."""
    from doctor import generate

    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), 60, distinct=30)
        words = ("data=wider_clean", f"data.root={folder}", "backbone=r18", "image_size=128", "small_sizes=[96]")
        config = composed(*WORDS, *words, "reading=fast")
        device = DEVICE.type
        variants: dict[str, Callable[[], object]] = {}
        default = assembly.datamodule(config, [128], device, 1).num_workers
        for workers in sorted({default, 0, 1, 2}):
            data = assembly.datamodule(
                composed(*WORDS, *words, "reading=fast", f"num_workers={workers}"), [128], device, 1
            )
            variants[f"num_workers={workers}"] = epoch(config, data)
        found = medians(interleaved(variants, rounds))
        own = f"num_workers={default}"
        for name in variants:
            if name != own:
                yield Result(f"default, epoch of photographs, {own}, against {name}", *_seconds(found, own, name))


def compiled(backbone: str, rounds: int) -> Iterator[Result]:
    """compile=true: a step once it is compiled, and how long its first took."""
    data = batch(16, (224,), LABELS)
    plain = stepper(data, f"backbone={backbone}")
    made = stepper(data, f"backbone={backbone}", "compile=true")
    start = time.perf_counter()
    made()
    first = time.perf_counter() - start
    found = medians(interleaved({"compile=true": made, "compile=false": plain}, rounds))
    yield Result(
        f"switch, step of {backbone} f ({DEFAULT}), compile=true, against compile=false", *_seconds(found, *found)
    )
    yield Result(f"switch, first step of {backbone} with compile=true", f"{first:.0f} s", "", None)


def stepper(data: Batch, *words: str) -> Callable[[], None]:
    """A training step of the defaults with these words."""
    config = composed(*WORDS, *words)
    made = task(config, LABELS).to(DEVICE).train()
    if config.compile:
        assembly.compile_backbone(made)
    return _step(config, made, data)


def epoch(config: DictConfig, data: DataModule) -> Callable[[], None]:
    """Steps over the training split, read anew each time."""
    made = assembly.task(config, data.labels, data.positive_ratio).to(DEVICE).train()
    loader = data.train_dataloader()

    def run() -> None:
        for read in loader:
            _step(config, made, read)()

    return run


def _step(config: DictConfig, made: VACTask, data: Batch) -> Callable[[], None]:
    optimizer = made.make_optimizer(made.network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=config.trainer.precision == "bf16-mixed"):
            loss = made.objective(data, made.plan(0, 0))["loss"]
        loss.backward()
        optimizer.step()

    return step


def _seconds(found: dict[str, float], ours: str, rival: str) -> tuple[str, str, float]:
    """Both times, and how many times faster ours is."""
    return f"{1e3 * found[ours]:.1f} ms", f"{1e3 * found[rival]:.1f} ms", found[rival] / found[ours]


if __name__ == "__main__":
    main()
