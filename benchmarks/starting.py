"""How soon commands start: the time from asking for them to an answer, or to the first training step.

`vac --help`; `vac train --cfg job`, which composes a configuration and must not import torch; the first training step
of `vac train -m recipe=smoke seed=0,1` from the start of the process, W&B and all; and the first step of its second
job, from the end of its first. Each is a process of its own, with everything on disk already read once; the figure is
the median, its ratio that to the time promised.

    python benchmarks/starting.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from measuring import Result, medians, report

LIMITS = {"vac --help": 0.3, "vac train --cfg job": 1.5, "first step of a smoke run": 12.0, "next job of a sweep": 3.0}
"""Seconds."""

MOMENTS = "VAC_BENCH_MOMENTS"
"""The environment variable that names the file where a command's moments are noted."""

COMMAND = "import sys; from vac_lightning.cli import main; sys.exit(main())"
COMPOSING = "import sys; from vac_lightning.cli import main; sys.exit(main() or 9 * ('torch' in sys.modules))"
SWEEP = """
import sys
import vac_lightning.commands.train as command
from vac_lightning.cli import main

train = command.train

def timed(config):
    result = train(config)
    from starting import note
    note("end")
    return result

command.train = timed
sys.exit(main())
"""


class FirstStep(pl.Callback):
    """Notes when a run's first training step is over."""

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == 1:
            note("step")


def note(what: str) -> None:
    """Write down that something happened now."""
    with Path(os.environ[MOMENTS]).open("a") as file:
        file.write(f"{what} {time.time()}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in LIMITS}
    for number in range(words.repeats + 1):  # the first reads files that are on disk alone
        counted = [
            ("vac --help", answered(COMMAND, "--help")),
            ("vac train --cfg job", answered(COMPOSING, "train", "--cfg", "job")),
            *(zip(("first step of a smoke run", "next job of a sweep"), swept(), strict=True) if number else ()),
        ]
        for name, seconds in counted if number else ():
            times[name].append(seconds)
    report(
        Result(f"starting: {name}", f"{seconds:.2f} s", f"{LIMITS[name]:g} s promised", seconds / LIMITS[name], most=1)
        for name, seconds in medians(times).items()
    )


def answered(program: str, *words: str) -> float:
    """Seconds until a command has answered."""
    start = time.time()
    _run(program, *words)
    return time.time() - start


def swept() -> tuple[float, float]:
    """Seconds to the first step of a sweep's first job, and from that job's end to the first step of the next."""
    with tempfile.TemporaryDirectory() as folder:
        moments = Path(folder, "moments")
        added = "+callbacks.first={_target_: starting.FirstStep}"
        choices = ("recipe=smoke", "seed=0,1", f"runs_dir={folder}/runs", "trainer.enable_progress_bar=false")
        start = time.time()
        _run(SWEEP, "train", "-m", *choices, "callbacks.progress=null", added, moments=moments)
        noted = [line.split() for line in moments.read_text().splitlines()]
    assert [what for what, _ in noted] == ["step", "end", "step", "end"], noted
    first, end, second, _ = (float(moment) for _, moment in noted)
    return first - start, second - end


def _run(program: str, *words: str, moments: Path | None = None) -> None:
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.getenv("PYTHONPATH")]))
    environment = {**os.environ, "VAC_ALLOW": "starting", "PYTHONPATH": path, MOMENTS: str(moments)}
    done = subprocess.run([sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"vac {' '.join(words)}: exit code {done.returncode} (9: it imported torch)\n{done.stderr}")


if __name__ == "__main__":
    main()
