"""What benchmarks measure with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from measuring import Result, interleaved, medians, peak_bytes, report


def test_steps_take_turns_and_the_order_turns() -> None:
    ran: list[str] = []
    steps = {name: lambda name=name: ran.append(name) for name in "abc"}
    times = interleaved(steps, rounds=2, warmup=1)
    assert "".join(ran) == "abcbcacab"
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_medians_are_not_moved_by_one_slow_round() -> None:
    assert medians({"a": [1.0, 100.0, 2.0]}) == {"a": 2.0}


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="resident memory of other systems is counted otherwise"
)
def test_the_peak_is_that_of_the_process_alone() -> None:
    """Neither less than what it holds at once, nor what this larger process holds."""
    ours = bytearray(400 << 20)
    ours[::4096] = b"x" * len(ours[::4096])
    small, large = (peak_bytes(["-c", f"b'x' * ({size} << 20)"]) for size in (1, 200))
    assert small < 100 << 20
    assert 195 << 20 < large - small < 215 << 20


def test_a_process_that_fails_has_no_peak(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        peak_bytes(["-c", "raise SystemExit(3)"])


@pytest.mark.parametrize(
    ("ratio", "least", "most", "met"),
    [(0.97, 0.97, None, True), (0.96, 0.97, None, False), (1.06, None, 1.05, False), (1.0, 0.9, 1.1, True)],
)
def test_a_limit_is_met_or_not(ratio: float, least: float | None, most: float | None, met: bool) -> None:
    assert Result("step", "1 s", "1 s", ratio, least, most).met is met


def test_what_is_only_stated_has_no_limit_to_meet() -> None:
    assert Result("step", "1 s", "1 s", 0.1).met is None
    assert Result("step", "1 s", "", None, least=1.0).met is None


def test_results_are_told_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VAC_BENCH_RESULTS", str(tmp_path / "results.jsonl"))
    told = [Result("step", "1 s", "2 s", 0.5, least=0.9), Result("memory", "3 MiB", "", None)]
    for each in told:
        report([each])
    assert "NOT MET" in capsys.readouterr().out
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [Result(**json.loads(line)) for line in lines] == told
