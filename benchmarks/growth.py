"""How a training step's time and memory grow with labels, image size and views, against a straight line.

The step is the task's: normalise, views, forward, both losses, backward, optimiser; an r18, batches of 4, 224 pixels,
14 labels and 2 views, of which one is varied at a time. Views are the symmetries of the square, of which the first 1,
2, 4 or 8 are taken, each compared with the first. Seconds are medians of interleaved rounds; memory is the peak of a
process of its own, what it imports included.

The rival is the straight line through all points but the last (least squares), its value at the last: a ratio of 1 is
linear growth, more is worse. Time and memory are drawn with that line where --draw says, which make bench has as
benchmarks/results/growth.png.

    python benchmarks/growth.py [--rounds 3] [--precision fp32] [--draw benchmarks/results/growth.png]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measuring import DEVICE, Result, interleaved, medians, report
from training import batch, composed, task

from vac_lightning.transforms import Compose, Flip, Rotate, Transform
from vac_lightning.views import Pair, Slot, ViewPlan

MOST = 1.2


class Point(NamedTuple):
    """What a step is made of."""

    labels: int = 14
    side: int = 224
    views: int = 2
    batch: int = 4
    autocast: bool = False


class Panel(NamedTuple):
    """One of the three quantities: its values, where they stand on the line, and whether the line is promised."""

    name: str
    values: Sequence[int]
    x: Callable[[int], float]
    point: Callable[[int], Point]
    promised: bool


def panels(size: int, autocast: bool) -> tuple[Panel, ...]:
    """What is varied. Of labels the first points differ too little for a promise on the last."""
    plain = Point(batch=size, autocast=autocast)
    return (
        Panel("labels", (14, 80, 1000, 3000, 10000), float, lambda n: plain._replace(labels=n), False),
        Panel("image side", (128, 224, 320, 448), lambda n: float(n * n), lambda n: plain._replace(side=n), True),
        Panel("views", (1, 2, 4, 8), float, lambda n: plain._replace(views=n), True),
    )


def step(point: Point) -> Callable[[], None]:
    """A training step."""
    config = composed("backbone=r18", "backbone.weights=null", "data=wider")
    module = task(config, point.labels).to(DEVICE).train()
    optimizer = module.make_optimizer(module.network.parameters())
    data, plan = batch(point.batch, [point.side], point.labels), views(point.side, point.views)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=point.autocast):
            loss = module.objective(data, plan)["loss"]
        loss.backward()
        optimizer.step()

    return run


def views(side: int, count: int) -> ViewPlan:
    """The first so many symmetries of the square, each but the identity paired with it."""
    turns: list[tuple[Transform, ...]] = [(), (Rotate(180.0),), (Rotate(90.0),), (Rotate(270.0),)]
    symmetries = [Compose((*mirror, *turn)) for turn in turns for mirror in ((), (Flip(),))][:count]
    pairs = [
        Pair(f"{number}", Slot(side, 0, 1), Slot(side, number, number + 1), symmetry)
        for number, symmetry in enumerate(symmetries)
        if number
    ]
    return ViewPlan({side: tuple(symmetries)}, tuple(pairs))


def peak(point: Point) -> int:
    """Peak memory in bytes of this process, or of the GPU, after two steps."""
    run = step(point)
    for _ in range(2):
        run()
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--draw", type=Path, help="PNG to write")
    words = parser.parse_args()
    every = panels(words.batch, words.precision == "bf16")
    points = sorted({panel.point(value) for panel in every for value in panel.values})
    # Each process comes from a server that has imported everything and computed nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training"])
    with context.Pool(1, maxtasksperchild=1) as pool:
        peaks = dict(zip(points, pool.map(peak, points, chunksize=1), strict=True))
    steps = {str(number): step(point) for number, point in enumerate(points)}
    found = medians(interleaved(steps, words.rounds))
    seconds = {point: found[str(number)] for number, point in enumerate(points)}
    for panel in every:
        report(compared(panel, seconds, peaks, words.precision))
    if words.draw:
        draw(words.draw, every, seconds, peaks, f"r18, batch {words.batch}, {words.precision}")


def compared(
    panel: Panel, seconds: Mapping[Point, float], peaks: Mapping[Point, int], precision: str
) -> Iterator[Result]:
    """The last point against the line through the others, and against the first point."""
    most = MOST if panel.promised else None
    figures = (
        ("step", seconds, lambda y: f"{1e3 * y:.0f} ms"),
        ("peak memory", peaks, lambda y: f"{y / 2**20:.0f} MiB"),
    )
    for name, values, text in figures:
        y = [values[panel.point(value)] for value in panel.values]
        told = ", ".join(f"{value}: {text(each)}" for value, each in zip(panel.values, y, strict=True))
        print(f"{panel.name}, {name}: {told}")
        linear = line(panel, y)(panel.x(panel.values[-1]))
        what = f"growth, {name}, r18 {precision}, {panel.name} {panel.values[-1]:,}"
        yield Result(f"{what}, against a straight line", text(y[-1]), text(linear), y[-1] / linear, most=most)
        yield Result(f"{what}, against {panel.name} {panel.values[0]:,}", text(y[-1]), text(y[0]), y[-1] / y[0])


def line(panel: Panel, y: Sequence[float]) -> Callable[[float], float]:
    """The straight line through all points but the last."""
    x = [panel.x(value) for value in panel.values[:-1]]
    slope, level = np.polyfit(x, y[:-1], 1)
    return lambda at: float(slope * at + level)


def draw(
    path: Path, every: Sequence[Panel], seconds: Mapping[Point, float], peaks: Mapping[Point, int], title: str
) -> None:
    """Three panels: time on the left axis, memory on the right, the lines through all points but the last dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    figure.suptitle(f"one training step: {title}", fontsize=10)
    for axis, panel in zip(figure.subplots(1, 3), every, strict=True):
        x = np.array([panel.x(value) for value in panel.values])
        fine = np.geomspace(x[0], x[-1], 100)
        right = axis.twinx()
        for side, values, unit, colour in ((axis, seconds, 1e3, "tab:blue"), (right, peaks, 1 / 2**20, "tab:orange")):
            y = [unit * values[panel.point(value)] for value in panel.values]
            side.plot(x, y, "o-", color=colour)
            side.plot(fine, [line(panel, y)(at) for at in fine], "--", color=colour, linewidth=1)
            side.set_ylim(0, 1.15 * max(y))
            side.tick_params(axis="y", colors=colour, labelsize=8)
        axis.set_ylabel("ms a step", color="tab:blue", fontsize=8)
        right.set_ylabel("peak memory, MiB", color="tab:orange", fontsize=8)
        if panel.name == "labels":
            axis.set_xscale("log")
        axis.set_xticks(x, [f"{value:,}" for value in panel.values], fontsize=8)
        axis.set_xlabel({"image side": "image side in pixels (axis: pixels)"}.get(panel.name, panel.name), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"drawn in {path}")


if __name__ == "__main__":
    main()
