"""What exactness costs: deterministic algorithms, the order of a step's randomness, checkpoints at any moment.

Each figure is the median of interleaved rounds in one process, against the same thing without.

    python benchmarks/exactness.py [--backbone resnet18] [--batch 16] [--size 112] [--repeats 9]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision

from vac_lightning.checkpoints import CheckpointFiles, read_checkpoint

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def medians(ways: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Seconds of each way; the first round warms up, and the order turns so that neither always runs second."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name in sorted(ways, reverse=bool(repeat % 2)):
            _wait()
            start = time.perf_counter()
            ways[name]()
            _wait()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--repeats", type=int, default=9)
    words = parser.parse_args()
    network = torchvision.models.get_model(words.backbone, weights=None).to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    images = torch.randn(words.batch, 3, words.size, words.size, device=DEVICE)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.zeros(words.batch, 1000, device=DEVICE)

    def step(deterministic: bool = False, checked: bool = False) -> None:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        if checked:
            torch.manual_seed(1)
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(network(images), targets)
        if checked:
            assert torch.stack([loss.detach()] * 5).isfinite().all().item()
        loss.backward()
        optimizer.step()

    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{words.backbone}, batch {words.batch} at {words.size} pixels; torch {torch.__version__}, {name}")
    pairs = {
        "trainer.deterministic=true": lambda: step(deterministic=True),
        "seeding and checking every step": lambda: step(checked=True),
    }
    for what, way in pairs.items():
        found = medians({"with": way, "without": step}, words.repeats)
        print(f"{what}: {1e3 * found['with']:.1f} ms a step, ratio {found['with'] / found['without']:.3f}")
    torch.use_deterministic_algorithms(False)
    state = {"state_dict": network.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder, "last.ckpt")
        files = CheckpointFiles()
        ways = {
            "with": lambda: files.save_checkpoint(state, path),
            "without": lambda: torch.save(state, Path(folder, "bare.ckpt")),
        }
        found = medians(ways, words.repeats)
        mebibytes = path.stat().st_size / 2**20
        print(
            f"writing a checkpoint of {mebibytes:.0f} MiB whole or not at all: {1e3 * found['with']:.0f} ms,"
            f" ratio to torch.save {found['with'] / found['without']:.2f}"
        )
        found = medians({"with": lambda: read_checkpoint(path), "without": lambda: torch.load(path)}, words.repeats)
        print(
            f"reading it with its checksums: {1e3 * found['with']:.0f} ms,"
            f" ratio to torch.load {found['with'] / found['without']:.2f}"
        )


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
