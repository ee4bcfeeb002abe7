"""Words left at "auto": what this machine has decides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator

from vac_lightning import hardware


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 vaes\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd i8mm bf16 bti\n", True),
        ("model name\t: bf16 avx512_bf16\nflags\t\t: fpu avx2 avx512f\n", False),
        ("flags\t\t: fpu avx512_bf16x\n", False),
    ],
)
def test_the_features_of_a_cpu_say_whether_it_has_bfloat16(tmp_path: Path, text: str, found: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert hardware.cpu_has_bf16(tmp_path / "cpuinfo") is found


def test_a_cpu_that_does_not_tell_computes_in_single_precision(tmp_path: Path) -> None:
    assert hardware.cpu_has_bf16(tmp_path / "missing") is False


@pytest.mark.parametrize("has", [True, False])
def test_precision_is_what_the_device_computes_in(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(1) or has)
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: has)
    expected = "bf16-mixed" if has else "32-true"
    assert hardware.precision("cuda") == hardware.precision("cpu") == expected
    assert hardware.precision("mps") == "32-true"
    assert asked == [1]


@pytest.mark.parametrize(
    ("accelerator", "available", "device"),
    [
        ("auto", (True, True), "cuda"),
        ("auto", (False, True), "mps"),
        ("auto", (False, False), "cpu"),
        ("gpu", (True, False), "cuda"),
        ("cpu", (True, True), "cpu"),
    ],
)
def test_the_device_is_the_one_that_lightning_takes(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, available: tuple[bool, bool], device: str
) -> None:
    for kind, there in zip((CUDAAccelerator, MPSAccelerator), available, strict=True):
        monkeypatch.setattr(kind, "is_available", staticmethod(lambda there=there: there))
    assert hardware.device_type(accelerator) == device


@pytest.mark.parametrize(
    ("device", "processors", "processes", "workers"),
    [("cpu", 64, 1, 0), ("cuda", 4, 1, 4), ("cuda", 64, 1, 8), ("cuda", 16, 4, 4), ("cuda", 2, 8, 1)],
)
def test_loading_processes_share_the_processors(
    monkeypatch: pytest.MonkeyPatch, device: str, processors: int, processes: int, workers: int
) -> None:
    monkeypatch.setattr(hardware, "processors", lambda: processors)
    assert hardware.loading_processes(device, processes) == workers


FAULTS = """
import resource, sys, torch
from vac_lightning.hardware import reuse_memory
if not reuse_memory(sys.argv[1] == "on"):
    sys.exit("not glibc")
for _ in range(40):  # the first ones each find a place that is a few bytes short
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 1024, 1024)  # 64 MiB
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc, on Linux")
def test_reused_memory_is_not_handed_out_again_page_by_page() -> None:
    """MiB that the system gave the process for a tensor of 64 MiB, when many others of its size were gone."""
    given = {}
    for word in ("on", "off"):
        done = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True)
        if done.stderr.strip() == "not glibc":
            pytest.skip("another C library than glibc")
        given[word] = float(done.stdout)
    assert given["on"] < 8
    assert given["off"] > 50
