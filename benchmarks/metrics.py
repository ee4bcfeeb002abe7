"""One full evaluation against scikit-learn's average precision alone, on as many scores as MS-COCO's val2014 has.

Ours: mAP, mA, and precision, recall and F1 by label and pooled, of one protocol. scikit-learn: the AP of each label.

Both take turns in one process; the ratio is of the medians. Memory is the peak of what is allocated while it runs, as
tracemalloc counts it (NumPy's arrays included), plus the scores and targets themselves; in a process of its own each.

    python benchmarks/metrics.py [--samples 40504] [--labels 80] [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import sklearn
from measuring import Result, interleaved, medians, report
from sklearn.metrics import average_precision_score

from vac_lightning.metrics import PROTOCOLS, evaluate


def scores(samples: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 (N, L) and targets int8 (N, L), with as many positives as MS-COCO: 3.6 % of the pairs."""
    rng = np.random.default_rng(0)
    ratio = np.geomspace(0.003, 0.2, labels)
    targets = (rng.random((samples, labels)) < ratio * 0.036 / ratio.mean()).astype(np.int8)
    targets[0] = 1  # every label has a positive sample
    return (2 * targets + rng.standard_normal((samples, labels)) - 2).astype(np.float32), targets


def made(logits: np.ndarray, targets: np.ndarray) -> dict[str, Callable[[], object]]:
    ours: dict[str, Callable[[], object]] = {
        f"{protocol}{suffix}": partial(evaluate, logits, targets, protocol, top_k)
        for protocol in PROTOCOLS
        for suffix, top_k in (("", None), (" top-3", 3))
    }
    return {**ours, "scikit-learn": lambda: average_precision_score(targets, logits, average=None)}


def peak(run: Callable[[], object]) -> int:
    """Bytes allocated at the most, beyond what was there before."""
    run()  # what is imported and cached the first time is not the arrays'
    tracemalloc.start()
    run()
    return tracemalloc.get_traced_memory()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=40504)
    parser.add_argument("--labels", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    words = parser.parse_args()
    logits, targets = scores(words.samples, words.labels)
    runs = made(logits, targets)
    if words.peak:
        print(json.dumps(peak(runs[words.peak])))
        return
    arrays = logits.nbytes + targets.nbytes
    print(f"{words.samples} x {words.labels} scores, {arrays / 1e6:.1f} MB with their targets, {words.repeats} rounds")
    print(f"NumPy {np.__version__}, scikit-learn {sklearn.__version__}, ratios to scikit-learn's AP alone")
    times = medians(interleaved(runs, words.repeats))
    rival = times.pop("scikit-learn")
    options = [f"--samples={words.samples}", f"--labels={words.labels}"]
    results = []
    for name, seconds in times.items():
        extra = json.loads(subprocess.check_output([sys.executable, __file__, *options, f"--peak={name}"]))
        print(f"{name:<12} peak {(arrays + extra) / 1e6:6.1f} MB, {(arrays + extra) / arrays:.2f} x the arrays")
        what = f"evaluating {words.samples:,} x {words.labels} scores, {name}, time to scikit-learn's AP alone"
        results.append(Result(what, f"{1e3 * seconds:.1f} ms", f"{1e3 * rival:.1f} ms", seconds / rival))
    report(results)


if __name__ == "__main__":
    main()
