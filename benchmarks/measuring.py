"""How benchmarks measure and tell: interleaved rounds, peak memory of a process of its own, figures and limits."""

from __future__ import annotations

__all__ = ["DEVICE", "Result", "interleaved", "medians", "peak_bytes", "report", "synchronise"]

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Result:
    """One figure beside its rival's.

    what: such as "step, R50 fs bf16, against a bare torchvision loop".
    ours, rival: figures with their units; an empty text where there is none.
    ratio: of the two, or None where the figure stands alone.
    least, most: the limit that is promised of the ratio, or None where it is only stated.
    """

    what: str
    ours: str
    rival: str
    ratio: float | None
    least: float | None = None
    most: float | None = None

    @property
    def limit(self) -> str:
        """Such as ">= 0.97"; empty where nothing is promised."""
        bounds = ((">=", self.least), ("<=", self.most))
        return ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)

    @property
    def met(self) -> bool | None:
        """Whether the ratio is within its limit; None where nothing is promised or there is no ratio."""
        if self.ratio is None or not self.limit:
            return None
        return (self.least is None or self.ratio >= self.least) and (self.most is None or self.ratio <= self.most)


def synchronise() -> None:
    """Wait for the device: what was asked of a GPU is not done when the call returns."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def interleaved(steps: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each step by name, one value a round.

    All take their turn in every round, and the order turns round by round, so that neither a machine that slows down
    nor running second is counted against one of them. The first `warmup` rounds are not counted.
    """
    names = list(steps)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warmup + rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            synchronise()
            start = time.perf_counter()
            steps[name]()
            synchronise()
            if number >= warmup:
                times[name].append(time.perf_counter() - start)
    return times


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(arguments: Sequence[str]) -> int:
    """Peak memory of `python ARGUMENTS...` as a process of its own, in bytes.

    On a CPU its resident memory, what it imports included. With a GPU the number that it prints last, which is to be
    torch.cuda.max_memory_allocated().

    Raises:
        subprocess.CalledProcessError: it ended with an exit code other than 0.
    """
    command = [sys.executable, *arguments]
    if DEVICE.type != "cuda":
        # On Linux a program's peak starts at that of the process which started it: a small one, not this.
        command = [sys.executable, "-S", "-c", _WATCH, *command]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(output.split()[-1])


def report(results: Iterable[Result]) -> None:
    """Print a table, and add each result as a line of JSON to the file $VAC_BENCH_RESULTS, where that is set."""
    results = list(results)
    rows = [("", "ours", "rival", "ratio", "limit", "")]
    words = {True: "met", False: "NOT MET", None: ""}
    for each in results:
        ratio = "" if each.ratio is None else f"{each.ratio:.3f}"
        rows.append((each.what, each.ours, each.rival, ratio, each.limit, words[each.met]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    if path := os.environ.get("VAC_BENCH_RESULTS"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(each)) + "\n" for each in results)


_WATCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.exit(code)
"""
