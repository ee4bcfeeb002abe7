"""How soon an epoch starts, and what loading processes weigh, on as many people as WIDER Attribute has.

57,524 people with boxes in 13,789 photographs, which are few files under many names. Measured in a fresh process:
from asking for the first epoch's batches to having one (loading processes are started then); the same for a second
loader, whose processes come from the server that is running by then; and for the next epoch of the first loader.
Memory is what each process has for itself, and its share of what they have in common, after 100 batches.

    python benchmarks/loading.py [--workers 4]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

# Loading processes import this file again, as multiprocessing has it; what is heavy is imported in functions, as the
# vac command does.
if TYPE_CHECKING:
    from vac_lightning.data.reading import PhotoIndex

PEOPLE, PHOTOGRAPHS = 57_524, 13_789


def wider_sized(folder: Path) -> PhotoIndex:
    """An index of WIDER's size over a few photographs under many names."""
    import numpy as np
    from reading import generated

    from vac_lightning.data.reading import PhotoIndex

    few = [path for path, _ in generated(folder, 24)[::4]]
    names = [f"{number:05}.jpg" for number in range(PHOTOGRAPHS)]
    for number, name in enumerate(names):
        os.link(str(few[number % len(few)]), folder / name)
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, 300, (PEOPLE, 2)), rng.uniform(60, 270, (PEOPLE, 2))
    return PhotoIndex(folder, names, rng.integers(0, PHOTOGRAPHS, PEOPLE), np.hstack([corners, sides]))


def memory(pid: int) -> tuple[float, float]:
    """A process's own memory and its share of the common one, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
    return sizes["Private_Dirty:"], sizes["Pss:"]


def main() -> None:
    import numpy as np
    from measuring import Result, report
    from reading import BATCH, SIZES

    from vac_lightning.data.datamodule import DataModule
    from vac_lightning.data.reading import Photos

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=4)
    words = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more than there are cores
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = wider_sized(folder)
        targets = np.random.default_rng(0).integers(-1, 2, (PEOPLE, 14)).astype(np.int8)
        split = partial(Photos, index, targets, [f"label {j}" for j in range(14)], root=folder, reading="fast")
        data = DataModule(lambda role, sizes: split(sizes=sizes, role=role), SIZES, BATCH, num_workers=words.workers)
        data.setup("fit")
        data.limits["val"] = 200
        loaders = {"first": data.val_dataloader(), "second": data.train_dataloader()}
        results = []
        for which, loader in loaders.items():
            start = time.perf_counter()
            batches = iter(loader)
            next(batches)
            waited = f"{time.perf_counter() - start:.2f} s"
            results.append(Result(f"loading: wait for the first batch of the {which} loader", waited, "", None))
            for _ in zip(range(100), batches, strict=False):
                pass
            weights = [memory(child.pid) for child in multiprocessing.active_children() if child.pid]
            own, common = (max(column) for column in zip(*weights, strict=True))
            print(f"{len(weights)} processes, each at most {own:.0f} MiB of its own, {common:.0f} with its share")
            for _ in batches if which == "first" else ():
                pass
        start = time.perf_counter()
        next(iter(loaders["first"]))
        waited = f"{time.perf_counter() - start:.2f} s"
        report([*results, Result("loading: wait for the first batch of the next epoch", waited, "", None)])


if __name__ == "__main__":
    main()
