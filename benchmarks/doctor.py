"""`vac doctor` on a generated data set of WIDER Attribute's shape: 13,789 JPEGs of 1024 pixels, 57,524 boxes.

The command runs as a person runs it, in a process of its own, from its start to its end. Files are of --distinct
different pictures, each made a file of its own by a comment in it; they were just written, so they come from the page
cache where memory allows. With fewer --images the time is scaled by their number, start included, which overstates it.

    python benchmarks/doctor.py [--images 13789] [--distinct 300] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

IMAGES, PEOPLE, LABELS, LIMIT = 13789, 57524, 14, 180
SIZE = (683, 1024)


def picture(rng: np.random.Generator) -> bytes:
    """A JPEG of about 200 KB: noise of all scales, as photographs have it, the finer the fainter."""
    pixels = np.full((*SIZE, 3), 128, np.float32)
    for cells, strength in ((4, 50), (16, 30), (64, 18), (256, 12), (1024, 7)):
        coarse = rng.normal(0, strength, (max(2, cells * SIZE[0] // SIZE[1]), cells, 3)).astype(np.float32)
        pixels += cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(pixels.clip(0, 255).astype(np.uint8), quality=90, colorsubsampling="420")


def generate(root: Path, images: int, distinct: int) -> float:
    """Photographs and annotations below root; returns the mean size of a file in bytes."""
    rng = np.random.default_rng(0)
    pictures = [picture(rng) for _ in range(distinct)]
    people = np.diff(np.linspace(0, PEOPLE * images // IMAGES, images + 1).astype(int))
    records: dict[str, list[object]] = {"trainval": [], "test": []}
    ends = (5509 * images // IMAGES, 6871 * images // IMAGES)
    written = 0
    for number in range(images):
        part = "train" if number < ends[0] else "val" if number < ends[1] else "test"
        name = f"{part}/{number % 30}--Scene/{number}.jpg"
        path = root / "Image" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = pictures[number % distinct]
        comment = f"{number:08d}".encode()
        written += path.write_bytes(data[:2] + b"\xff\xfe\x00\x0a" + comment + data[2:])
        boxes = rng.integers((0, 0, 40, 80), (700, 400, 300, 280), (people[number], 4)).tolist()
        attributes = rng.choice([1, -1, 0], (people[number], LABELS), p=[0.2, 0.7, 0.1]).tolist()
        targets = [{"bbox": box, "attribute": values} for box, values in zip(boxes, attributes, strict=True)]
        key = "test" if part == "test" else "trainval"
        records[key].append({"file_name": name, "scene_id": number % 30, "targets": targets})
    (root / "Anno").mkdir()
    for key, content in records.items():
        names = {str(j): f"label{j}" for j in range(LABELS)}
        file = root / "Anno" / f"wider_attribute_{key}.json"
        file.write_text(json.dumps({"images": content, "attribute_id_map": names}))
    return written / images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--distinct", type=int, default=300)
    parser.add_argument("--folder", help="where to generate; 3 GB for all images, deleted afterwards")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        mean = generate(Path(folder), arguments.images, arguments.distinct)
        print(f"{arguments.images:,} JPEGs of {SIZE[1]} x {SIZE[0]}, {mean / 1000:.0f} KB each; {os.cpu_count()} cores")
        print(f"load before: {os.getloadavg()[0]:.1f}")
        program = "import sys; from vac_lightning.cli import main; sys.exit(main())"
        words = ["doctor", "data=wider", f"data.root={folder}", f"out={folder}/out"]
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    scaled = seconds * IMAGES / arguments.images
    print(f"exit code {done.returncode}; {done.stdout.splitlines()[-1]}")
    print(
        f"{seconds:.1f} s, of processors {used.ru_utime + used.ru_stime:.1f} s, {used.ru_maxrss / 1024:.0f} MiB at most"
    )
    from measuring import (  # only now: on Linux a process's peak starts at that of the one that started it
        Result,
        report,
    )

    what = f"vac doctor on {IMAGES:,} photographs{f', scaled from {arguments.images:,}' if scaled != seconds else ''}"
    report([Result(what, f"{scaled:.0f} s", f"{LIMIT} s promised", scaled / LIMIT, most=1)])


if __name__ == "__main__":
    main()
