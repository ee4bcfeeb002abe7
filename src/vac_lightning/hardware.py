"""What this machine has, and what follows from it for words left at "auto"."""

from __future__ import annotations

__all__ = ["cpu_has_bf16", "device_type", "loading_processes", "precision", "processors", "reuse_memory"]

import ctypes
import os
import sys
from functools import cache
from pathlib import Path


def device_type(accelerator: str) -> str:
    """The device that Lightning takes for trainer.accelerator: "cuda", "mps" or "cpu"; another name as it is."""
    from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator

    if accelerator in ("auto", "gpu"):
        for name, kind in (("cuda", CUDAAccelerator), ("mps", MPSAccelerator)):
            if kind.is_available():
                return name
        return "cpu" if accelerator == "auto" else accelerator
    return accelerator


def precision(device: str) -> str:
    """trainer.precision for a device: "bf16-mixed" where it computes in bfloat16 itself, "32-true" elsewhere.

    A GPU is asked whether it has bfloat16 or only emulates it (from compute capability 8.0 on it has). Of a CPU its
    list of features is read. Half precision (fp16), which older GPUs have, is not chosen: its loss scaling skips steps.
    """
    if device == "cuda":
        import torch

        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if device == "cpu" and cpu_has_bf16() else "32-true"


@cache
def cpu_has_bf16(features: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions on bfloat16: AVX512_BF16 or AMX of x86, BF16 of ARM. Known on Linux alone."""
    try:
        text = features.read_text(encoding="utf-8")
    except OSError:
        return False
    words = {word for line in text.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    return not words.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


def loading_processes(device: str, processes: int) -> int:
    """num_workers for each of a run's training processes on this machine.

    Beside an accelerator, its share of the processors, at most 8. On a CPU 0: there every processor computes, and
    loading processes would take from it what they give.
    """
    return 0 if device == "cpu" else max(1, min(8, processors() // max(1, processes)))


def reuse_memory(on: bool = True) -> bool:
    """Let this process keep the memory that tensors on the CPU leave, for those of the next step; whether it can.

    The C library hands blocks of more than 32 MiB back to the system, which gives them out again page by page, each
    filled with zeros: a fifth to a third of a training step. With glibc alone, that is on Linux; off is its own way.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    blocks, kept = (0, 2**31 - 1) if on else (65536, 128 * 1024)
    return bool(mallopt(_M_MMAP_MAX, blocks) and mallopt(_M_TRIM_THRESHOLD, kept))


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
