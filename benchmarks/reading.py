"""Samples/s of one core: photographs read here against the steps of the authors' data set, in Pillow and torchvision.

Photographs are generated, as large as WIDER's (1024 pixels) and as heavy (about 115 kB), with four
people each whose boxes vary as bodies do; both read the same people in the same random order, in batches of 16 from a
DataLoader without further processes, for views of 224 and 192 pixels with the mirror.

The rival decodes the photograph for each person, crops, mirrors and resizes four times, and hands over four
normalised float tensors. Ours hands over two uint8 tensors, because mirroring and normalising are done on the device;
what that costs here on the CPU is measured too, as "with views".

All take turns within each round; a ratio is the median over the rounds of the two times in one round.

    python benchmarks/reading.py [--photos 240] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Result, interleaved, medians, report
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional

from vac_lightning.data.base import Batch
from vac_lightning.data.datamodule import DataModule
from vac_lightning.data.reading import Photo, Photos

SIZES = (224, 192)
BATCH = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photograph(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Coloured noise whose power falls with frequency as a photograph's does, uint8 (H, W, 3)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1 / max(width, height)

    def field(fall: float) -> np.ndarray:
        phases = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
        values = np.fft.irfft2(phases / frequency**fall, s=(height, width))
        return (values - values.mean()) / values.std()

    light, warm, cool = field(1.42), field(1.65), field(1.65)
    shades = np.stack([light + 0.4 * warm, light - 0.2 * warm - 0.15 * cool, light + 0.45 * cool], -1)
    return (50 * shades + 128).clip(0, 255).astype(np.uint8)


def generated(folder: Path, count: int) -> list[Photo]:
    """`count` photographs in a folder, and four people in each."""
    rng = np.random.default_rng(0)
    people = []
    for number in range(count):
        width, height = (1024, int(rng.integers(576, 769))) if rng.random() < 0.85 else (1024, 1365)
        path = folder / f"{number}.jpg"
        Image.fromarray(photograph(rng, width, height)).save(path, quality=75)
        for _ in range(4):
            h = int(height * rng.uniform(0.2, 0.9))
            w = min(int(h * rng.uniform(0.3, 0.6)), width - 1)
            people.append(Photo(path, (int(rng.integers(0, width - w)), int(rng.integers(0, height - h)), w, h)))
    return people


class Literal(Dataset[Any]):
    """The authors' steps, one after the other."""

    def __init__(self, people: list[Photo]) -> None:
        self.people = people

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        path, box = self.people[index]
        assert isinstance(path, Path) and box is not None
        x, y, w, h = box
        person = Image.open(path).convert("RGB").crop((x, y, x + w, y + h))
        mirrored = person.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        views = [image.resize((size, size)) for size in SIZES for image in (person, mirrored)]
        return [functional.normalize(functional.to_tensor(view), MEAN, STD) for view in views]


def ours(people: list[Photo], folder: Path, **options: Any) -> Iterable[Batch]:
    targets = np.zeros((len(people), 14), np.int8)
    labels = [f"label {j}" for j in range(14)]
    split = partial(Photos, people, targets, labels, root=folder, **options)
    return DataModule(lambda role, sizes: split(sizes=sizes, role=role), SIZES, BATCH).train_dataloader()


def with_views(batches: Iterable[Batch]) -> Iterable[list[torch.Tensor]]:
    """What the training step adds: mirror and normalise, in batch."""
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    for batch in batches:
        normal = [(images.float() - mean) / std for images in batch.images]
        yield [view for images in normal for view in (images, images.flip(-1))]


def read_all(make: Callable[[], Iterable[Any]]) -> None:
    for _ in make():
        pass


def difference(people: list[Photo], folder: Path) -> str:
    """How far `fast` is from `paper`, over all pixels at 224 of a sample of the people."""
    splits = [
        Photos(people, np.zeros((len(people), 1), np.int8), ["a"], SIZES[:1], folder, reading=reading)
        for reading in ("paper", "fast")
    ]
    gaps = []
    for index in range(0, len(people), max(1, len(people) // 100)):
        paper, fast = (split.images(index)[0].int() for split in splits)
        gaps.append((paper - fast).abs().flatten())
    gap = torch.cat(gaps).float()
    return f"mean {gap.mean():.2f}, 99th percentile {gap.kthvalue(int(0.99 * len(gap))).values:.0f} of 255 levels"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=7)
    words = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people = generated(folder, words.photos)
        size = sum(path.stat().st_size for path in folder.iterdir()) / words.photos
        print(f"{words.photos} photographs of {size / 1e3:.0f} kB on average, {len(people)} people")
        cached = ours(people, folder, cache=True, cache_dir=str(folder / "kept"))
        ways: dict[str, Callable[[], Iterable[Any]]] = {
            "literal": lambda: DataLoader(Literal(people), BATCH, shuffle=True),
            "paper": lambda: ours(people, folder),
            "fast": lambda: ours(people, folder, reading="fast"),
            "fast, with views": lambda: with_views(ours(people, folder, reading="fast")),
            "cached": lambda: cached,
            "cached, with views": lambda: with_views(cached),
        }
        taken = interleaved({way: partial(read_all, make) for way, make in ways.items()}, words.rounds)
        rates = {way: len(people) / median for way, median in medians(taken).items()}
        results = []
        for way, values in taken.items():
            ratios = sorted(rival / value for rival, value in zip(taken["literal"], values, strict=True))
            print(f"{way:<18} {rates[way]:8.0f} samples/s ({ratios[0]:.2f} to {ratios[-1]:.2f} x literal)")
            own, literal = (f"{rates[which]:.0f} samples/s" for which in (way, "literal"))
            if way != "literal":
                what = f"reading photographs, {way}, against the authors' steps"
                results.append(Result(what, own, literal, statistics.median(ratios)))
        print(f"fast differs from paper by {difference(people, folder)}")
        report(results)


if __name__ == "__main__":
    main()
