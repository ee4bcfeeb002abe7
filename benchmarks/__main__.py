"""Every benchmark, one after the other, each in a process of its own; their figures become one table.

    python benchmarks                   # all; the table is kept in benchmarks/results/<device>.md
    python benchmarks step evaluation   # some; the table is only printed, unless --out says where to keep it

One that fails is listed, the others go on, and the exit code is 1; a limit that is not met is told in the table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from measuring import DEVICE, Result

from vac_lightning.runs import versions

HERE = Path(__file__).parent
MINUTES = 15


class Script(NamedTuple):
    """How a benchmark is run among all: its words, and on how many threads where that is a part of the question."""

    words: tuple[str, ...] = ()
    threads: int | None = None


SCRIPTS: Mapping[str, Script] = {
    "step": Script(),
    "epoch": Script(),
    "defaults": Script(("--rounds=2",)),
    "memory": Script(),
    "starting": Script(("--repeats=2",)),
    "evaluation": Script(("--epochs=2",)),
    "growth": Script(("--rounds=2", f"--draw={HERE / 'results' / 'growth.png'}")),
    # Smaller than their defaults, which are for a run by name:
    "doctor": Script(("--images=1000", "--distinct=50")),
    "metrics": Script(("--samples=10000", "--repeats=3"), threads=1),
    "exactness": Script(("--repeats=3",), threads=1),
    "reading": Script(("--photos=40", "--rounds=2"), threads=1),
    "loading": Script(threads=1),
    "indexing": Script(("--images=20000", "--annotations=145000", "--repeats=1"), threads=1),
}


class Outcome(NamedTuple):
    """What a benchmark came to."""

    name: str
    code: int
    seconds: float
    results: tuple[Result, ...]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCRIPTS)}; all by default")
    parser.add_argument("--out", type=Path, help="where to keep the table")
    words = parser.parse_args()
    if unknown := set(words.names) - set(SCRIPTS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    out = words.out or (None if words.names else HERE / "results" / f"{slug(machine())}.md")
    outcomes: list[Outcome] = []
    try:
        for name in words.names or SCRIPTS:
            outcomes.append(run(name, SCRIPTS[name]))
    finally:  # what was measured before somebody lost patience is kept
        text = page(outcomes, len(outcomes) == len(SCRIPTS))
        print(f"\n{text}")
        if out is not None and outcomes:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text, encoding="utf-8")
            print(f"kept in {out}")
    return int(any(outcome.code for outcome in outcomes))


def run(name: str, script: Script) -> Outcome:
    """Run one benchmark, with what it prints shown as it comes."""
    print(f"\n=== {' '.join(['benchmarks/' + name + '.py', *script.words])}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "results.jsonl")
        environment = {**os.environ, "VAC_BENCH_RESULTS": str(kept), "PYTHONUNBUFFERED": "1"}
        if script.threads is not None:
            environment["OMP_NUM_THREADS"] = str(script.threads)
        start = time.perf_counter()
        code = subprocess.run([sys.executable, str(HERE / f"{name}.py"), *script.words], env=environment).returncode
        seconds = time.perf_counter() - start
        lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    print(f"=== {name}: {seconds:.0f} s{f', failed with exit code {code}' if code else ''}", flush=True)
    return Outcome(name, code, seconds, tuple(Result(**json.loads(line)) for line in lines))


def page(outcomes: Sequence[Outcome], all_ran: bool) -> str:
    """The table in Markdown, below it what it was measured on."""
    total = sum(outcome.seconds for outcome in outcomes) / 60
    failed = [f"{outcome.name} (exit code {outcome.code})" for outcome in outcomes if outcome.code]
    results = [result for outcome in outcomes for result in outcome.results]
    promised = [result for result in results if result.met is not None]
    lines = [f"# {machine()}", "", *(_row(cells) for cells in _cells(results)), ""]
    lines += [f"- Limits: {sum(bool(result.met) for result in promised)} of {len(promised)} are met."]
    lines += [f"- Failed: {', '.join(failed)}."] if failed else []
    lines += [f"- {key}: {value}." for key, value in facts().items()]
    each = ", ".join(f"{outcome.name} {outcome.seconds:.0f} s" for outcome in outcomes)
    limit = f" of {MINUTES}" if all_ran else ""
    return "\n".join([*lines, f"- Time: {total:.1f}{limit} minutes: {each}.", ""])


def facts() -> dict[str, str]:
    """What figures depend on beside the code: machine, threads, versions, date."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    given = os.environ.get("OMP_NUM_THREADS", "not set")
    ones = ", ".join(name for name, script in SCRIPTS.items() if script.threads == 1)
    return {
        "Processor": f"{processor()}, {_cores()} cores, {memory:.0f} GiB of memory",
        "Device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "none but the processor",
        "Threads": f"{torch.get_num_threads()} (OMP_NUM_THREADS {given}); 1 in {ones}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "System": f"Python {platform.python_version()}, {platform.system()}",
        "Date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
    }


def machine() -> str:
    """The device's name: the GPU, or else the processor and how many cores of it."""
    return torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{processor()}, {_cores()} cores"


def processor() -> str:
    """The processor's name as the system has it."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text() if cpuinfo.is_file() else "", re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def slug(name: str) -> str:
    """A name as one of a file: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _cells(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    yield ("what", "ours", "rival", "ratio", "limit", "met")
    yield ("---", "---:", "---:", "---:", "---:", "---")
    for each in results:
        ratio = "" if each.ratio is None else f"{each.ratio:.3f}"
        yield (each.what, each.ours, each.rival, ratio, each.limit, {True: "yes", False: "**no**", None: ""}[each.met])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
