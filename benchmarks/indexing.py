"""How long annotations of MS-COCO's size take to become an index, and how much memory: read first, and kept.

The file is made up, in a temporary folder: as many images, categories and annotations as instances_train2017.json, and
polygons of random coordinates that bring it to about its size, 448 MB. Each figure is of a process of its own: the
seconds of making the data set without what is imported, and the peak of the whole process's resident memory.

    python benchmarks/indexing.py [--images 118287] [--annotations 860001] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LIMITS = {"first": 20.0, "kept": 1.0}
"""Seconds."""
MEMORY = 2 * 2**30
"""Bytes."""
BUSY = 43
"""Numbers of an average polygon."""


def write(root: Path, images: int, annotations: int) -> Path:
    """A data set of one photograph and `images` names."""
    rng = np.random.default_rng(0)
    path = root / "annotations" / "instances_train2017.json"
    path.parent.mkdir()
    (root / "train2017").mkdir()
    (root / "train2017" / "000000000000.jpg").touch()
    with path.open("w") as file:
        file.write('{"info": {"description": "made up"}, "licenses": [], "images": [')
        file.writelines(_listed(_images(images)))
        file.write('], "annotations": [')
        file.writelines(_listed(_annotations(images, annotations, rng)))
        categories = [{"supercategory": "thing", "id": i + i // 8, "name": f"category {i}"} for i in range(80)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return path


def measured(root: Path, cache: Path) -> dict[str, float]:
    """Seconds and bytes of a process that makes the data set."""
    output = subprocess.run(
        [sys.executable, __file__, "--index", str(root), str(cache)], check=True, capture_output=True, text=True
    ).stdout
    return dict(json.loads(output.splitlines()[-1]))


def index(root: str, cache: str) -> None:
    from vac_lightning.data.coco import coco

    start = time.perf_counter()
    photos = coco("train", [288], root=root, splits={"train": "train2017"}, cache_dir=cache)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    positives = int(photos.targets.sum())
    print(json.dumps({"seconds": seconds, "bytes": peak, "images": len(photos), "positives": positives}))


def main() -> int:
    from measuring import Result, report  # not at the top: what it imports is not what indexing takes

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--annotations", type=int, default=860_001)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--index", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.index:
        index(*words.index)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        path = write(Path(folder), words.images, words.annotations)
        size = path.stat().st_size
        print(
            f"{path.name}: {words.images} images, {words.annotations} annotations, {size / 1e6:.0f} MB, made up in"
            f" {time.perf_counter() - start:.0f} s"
        )
        path.read_bytes()  # into the page cache
        runs: dict[str, list[dict[str, float]]] = {"first": [], "kept": []}
        for repeat in range(words.repeats):
            for name in runs:
                runs[name].append(measured(Path(folder), Path(folder) / f"kept-{repeat}"))
    told = []
    for name, results in runs.items():
        seconds, peak = (statistics.median(each[key] for each in results) for key in ("seconds", "bytes"))
        what = f"index of {words.annotations:,} annotations, {name}"
        figures = f"{peak / 2**30:.2f} GiB", f"{MEMORY / 2**30:g} GiB promised"
        limit = LIMITS[name]
        told.append(Result(f"{what}: time", f"{seconds:.2f} s", f"{limit:g} s promised", seconds / limit, most=1))
        told.append(Result(f"{what}: peak memory", *figures, peak / MEMORY, most=1))
    report(told)
    same = len({(each["images"], each["positives"]) for results in runs.values() for each in results}) == 1
    if not same:
        print("the kept index differs from the first")
    return 0 if same else 1


def _images(count: int) -> Iterator[str]:
    for i in range(count):
        name = f"{i:012d}.jpg"
        yield (
            f'{{"license": 3, "file_name": "{name}", "coco_url": "http://images.cocodataset.org/train2017/{name}", '
            f'"height": 360, "width": 640, "date_captured": "2013-11-14 11:18:45", '
            f'"flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg", "id": {i}}}'
        )


def _annotations(images: int, count: int, rng: np.random.Generator) -> Iterator[str]:
    owner, kind = rng.integers(0, images, count).tolist(), rng.integers(0, 80, count).tolist()
    length = (2 * np.maximum(3, rng.exponential(BUSY / 2, count).astype(np.int64))).tolist()
    pool = [f"{value:.2f}" for value in rng.uniform(0, 640, 1 << 16)]
    begin = rng.integers(0, len(pool) - 2 * max(length), count).tolist()
    for i in range(count):
        polygon = ", ".join(pool[begin[i] : begin[i] + length[i]])
        box = ", ".join(pool[begin[i] : begin[i] + 4])
        yield (
            f'{{"segmentation": [[{polygon}]], "area": 2765.1486500000005, "iscrowd": 0, "image_id": {owner[i]}, '
            f'"bbox": [{box}], "category_id": {kind[i] + kind[i] // 8}, "id": {900000 + i}}}'
        )


def _listed(records: Iterator[str]) -> Iterator[str]:
    yield next(records)
    for each in records:
        yield ", "
        yield each


if __name__ == "__main__":
    sys.exit(main())
