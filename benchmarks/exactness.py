"""What exactness costs: deterministic algorithms, the order of a step's randomness, checkpoints at any moment.

Each figure is the median of interleaved rounds in one process, against the same thing without.

    python benchmarks/exactness.py [--backbone resnet18] [--batch 16] [--size 112] [--repeats 9]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from measuring import DEVICE, Result, interleaved, medians, report

from vac_lightning.checkpoints import CheckpointFiles, read_checkpoint


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
    where = f"{words.backbone}, batch {words.batch} at {words.size} pixels"
    for what, way in pairs.items():
        report([compared(f"{what}, {where}", {"with": way, "without": step}, words.repeats, "a step without")])
    torch.use_deterministic_algorithms(False)
    state = {"state_dict": network.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder, "last.ckpt")
        files = CheckpointFiles()
        ways: dict[str, Callable[[], object]] = {
            "with": lambda: files.save_checkpoint(state, path),
            "without": lambda: torch.save(state, Path(folder, "bare.ckpt")),
        }
        written = compared("writing a checkpoint whole or not at all", ways, words.repeats, "torch.save")
        print(f"checkpoints of {path.stat().st_size / 2**20:.0f} MiB")
        ways = {"with": lambda: read_checkpoint(path), "without": lambda: torch.load(path)}
        report([written, compared("reading it with its checksums", ways, words.repeats, "torch.load")])


def compared(what: str, ways: Mapping[str, Callable[[], object]], repeats: int, rival: str) -> Result:
    """The time of the one way to that of the other."""
    found = medians(interleaved(ways, repeats))
    ours, bare = found["with"], found["without"]
    return Result(f"time of {what}, to {rival}", f"{1e3 * ours:.1f} ms", f"{1e3 * bare:.1f} ms", ours / bare)


if __name__ == "__main__":
    main()
