"""Evaluation: `vac evaluate`'s path against a bare inference loop, and what test-time views cost and gain.

Path: Trainer.test on uint8 batches in memory, as `vac evaluate` calls it, with normalising and metrics, against
torchvision's network on finished float images in eval and inference_mode, of the same precision and layout, its logits
collected. Whole passes over the same batches, the Trainer's setting up included, alternate in one process; the ratio is
of the medians.

Cost: the answer of one batch without views, and with f, s and fs. Images a pass, by pixels: 1, 2, 1 + r and 2 + 2r,
where r is the share of pixels that the small size has, 0.73 of 192 and 224.

Gain: test mAP of one run on the embedded shapes without views, and with f, s and fs; the run is trained here in a
minute, short of what a full one gets, unless one is given.

    python benchmarks/evaluation.py [--batch 16] [--batches 4] [--rounds 4] [--precision fp32 bf16] [--run RUN]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
import torchvision
from hydra.core.global_hydra import GlobalHydra
from measuring import DEVICE, Result, interleaved, medians, report
from torch import Tensor
from torch.utils.data import DataLoader

from vac_lightning import cli, hardware
from vac_lightning.commands import app
from vac_lightning.data.base import Batch
from vac_lightning.metrics import evaluate
from vac_lightning.networks.backbones import torchvision_resnet
from vac_lightning.networks.cam import CAMNetwork
from vac_lightning.runs import Run
from vac_lightning.task import VACTask
from vac_lightning.transforms import random_flip
from vac_lightning.views import Views

LABELS = 14
SIZE, SMALL = 224, 192
WORDS = ("none", "f", "s", "fs")
LIGHTNING = {"fp32": "32-true", "bf16": "bf16-mixed"}


def batches(samples: int, number: int) -> list[Batch]:
    """As an evaluation loader hands them over: large images only."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for start in range(0, number * samples, samples):
        images = torch.randint(0, 256, (samples, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        targets = torch.randint(0, 2, (samples, LABELS), generator=generator, dtype=torch.int8)
        made.append(Batch(images, targets, torch.arange(start, start + samples)))
    return made


def task(word: str = "none") -> VACTask:
    """ResNet-50 that answers by the mean over the test views of a word."""
    weights = dict.fromkeys(("large", "small", "scale"), 1.0)
    views = {name: Views(name, SIZE, [SMALL], {"f": random_flip}, weights) for name in ("none", word)}
    network = CAMNetwork(torchvision_resnet("resnet50"), LABELS)
    names = [str(j) for j in range(LABELS)]
    test_views = None if word == "none" else views[word]
    return VACTask(network, views["none"], names, torch.full((LABELS,), 0.3), test_views=test_views).to(DEVICE).eval()


def tested(data: Sequence[Batch], precision: str) -> Callable[[], object]:
    """`vac evaluate`'s pass, but for its progress bar."""
    evaluated = task()
    trainer = pl.Trainer(
        accelerator=DEVICE.type,
        devices=1,
        precision=LIGHTNING[precision],  # type: ignore[arg-type]
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    loader = DataLoader(data, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
    return lambda: trainer.test(evaluated, dataloaders=loader, verbose=False)


def bare(data: Sequence[Batch], precision: str) -> Callable[[], Tensor]:
    network = torchvision.models.get_model("resnet50", weights=None, num_classes=LABELS)
    network = network.to(DEVICE, memory_format=torch.channels_last).eval()
    finished = [
        batch.images.float().sub(127.0).div(58.0).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[union-attr]
        for batch in data
    ]

    @torch.inference_mode()
    def run() -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = [network(images) for images in finished]
        return torch.cat(logits).float().cpu()

    return run


def answers(images: Tensor, precision: str, word: str) -> Callable[[], Tensor]:
    """The logits of one batch on the device, by the mean over test views."""
    answering = task(word)

    @torch.inference_mode()
    def run() -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bf16"):
            return answering(images, heatmaps=False).logits

    return run


def path_results(words: argparse.Namespace) -> list[Result]:
    data = batches(words.batch, words.batches)
    results = []
    for precision in words.precision:
        steps = {"ours": tested(data, precision), "bare": bare(data, precision)}
        seconds = medians(interleaved(steps, words.rounds))
        rate = {name: words.batch * words.batches / value for name, value in seconds.items()}
        what = f"evaluation, R50 at {SIZE}, batch {words.batch}, {precision}, against a bare inference loop"
        ratio = rate["ours"] / rate["bare"]
        results.append(Result(what, f"{rate['ours']:.2f} images/s", f"{rate['bare']:.2f} images/s", ratio, least=0.97))
    return results


def cost_results(words: argparse.Namespace) -> list[Result]:
    precision = words.precision[0]
    images = batches(words.batch, 1)[0].images.to(DEVICE)  # type: ignore[union-attr]
    steps = {word: answers(images, precision, word) for word in WORDS}
    seconds = medians(interleaved(steps, words.rounds))
    return [
        Result(
            f"test_views={word}, R50 at {SIZE} and {SMALL}, {precision}, time against none",
            f"{seconds[word]:.3f} s",
            f"{seconds['none']:.3f} s",
            seconds[word] / seconds["none"],
        )
        for word in WORDS[1:]
    ]


def gain_results(words: argparse.Namespace) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(words.run or f"{folder}/run")
        if words.run is None:
            vac("train", f"run_dir={run}", f"trainer.max_epochs={words.epochs}", *_TRAINING)
        value = {}
        which = Run(run).results()["row"] if words.run else f"Tiny+fs on shapes, {words.epochs} epochs"
        for word in WORDS:
            vac("evaluate", f"run={run}", f"test_views={word}", f"out={folder}/{word}")
            kept = Run(Path(folder, word)).predictions()
            value[word] = evaluate(kept["logits"], kept["targets"])["mAP"]
    return [
        Result(f"test_views={word}, {which}, test mAP against none", f"{value[word]:.2f}", f"{value['none']:.2f}", None)
        for word in WORDS[1:]
    ]


def vac(*arguments: str) -> None:
    """Run `vac ARGUMENTS...` in this process; what it prints is dropped unless it fails."""
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["vac", *arguments]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            code = cli.main()
    finally:
        sys.argv = before
    if code:
        sys.exit(f"{printed.getvalue()}\nvac {' '.join(arguments)}: exit code {code}")


_TRAINING = (
    *("data=shapes", "transform=fs", "lambda=0", "logger=csv", "attention=null", "callbacks.progress=null"),
    *("data.scenes={train: 800, val: 50, test: 500}", "trainer.enable_progress_bar=false"),
    "callbacks.heatmaps=null",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=4, help="of one pass")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--precision", choices=tuple(LIGHTNING), nargs="+", default=list(LIGHTNING))
    parser.add_argument("--epochs", type=int, default=4, help="of the run that is trained for the gain")
    parser.add_argument("--run", help="a run folder to take the gain from, instead of one trained here")
    parser.add_argument("--only", choices=("path", "cost", "gain"), help="one of the three questions")
    words = parser.parse_args()
    app.quieten()
    if DEVICE.type == "cpu":
        hardware.reuse_memory()  # for all, as vac evaluate has it
    warnings.filterwarnings("ignore", ".*no positive sample: labels")
    asked = {"path": path_results, "cost": cost_results, "gain": gain_results}
    report([result for name, answer in asked.items() if words.only in (None, name) for result in answer(words)])


if __name__ == "__main__":
    main()
