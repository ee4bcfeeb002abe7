"""Out of memory: what was asked for and not given, and which words would help."""

from __future__ import annotations

__all__ = ["explained", "message", "of_evaluation", "of_training", "refused"]

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import nn

from vac_lightning.commands.errors import RunError
from vac_lightning.networks.checkpointing import blocks


def refused(error: BaseException) -> str | None:
    """What memory was asked for and not given, where that is what an error tells of; otherwise None.

    That is torch.OutOfMemoryError, another error of CUDA's libraries or of the CPU's allocator that says so, or
    MemoryError, Python's, NumPy's and C++'s.
    """
    text = str(error)
    no_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    )
    if not no_memory and not (isinstance(error, RuntimeError) and any(words in text for words in _SAID_BY_LIBRARIES)):
        return None
    size = None
    if found := re.search(r"you tried to allocate (\d+) bytes", text):
        size = f"{int(found[1]) / 2**20:.0f} MiB"
    elif found := re.search(r"(?:Tried|Unable) to allocate ([\d.]+ \w+)", text):
        size = found[1]
    limit = re.search(r"total capacity of ([\d.]+ \w+)", text)
    asked = f"{size} more could not be had" if size else "no more could be had"
    return asked + (f" of the GPU's {limit[1]}" if limit else "")


def of_training(config: DictConfig, trainer: pl.Trainer, network: nn.Module) -> list[str]:
    """Three words, of those that are not on already, with which a run takes less memory; what helps most is first."""
    found = []
    smaller = _smaller_batch(config.batch_size, trainer.accumulate_grad_batches, trainer.world_size)
    if smaller is not None:
        batch_size, times = smaller
        found.append(f"batch_size={batch_size} trainer.accumulate_grad_batches={times} (as many samples a step)")
    if not config.activation_checkpointing and blocks(network):
        found.append("activation_checkpointing=true (the same numbers, and it goes on from its last checkpoint)")
    if str(trainer.precision).partition("-")[0] in ("32", "64"):
        found.append("trainer.precision=bf16-mixed")
    if (size := _smaller_size(config.image_size)) is not None:
        fits = "s" not in config.transform or all(small < size for small in config.small_sizes)
        small = "" if fits else f" 'small_sizes=[{_smaller_size(size) or size * 3 // 4}]'"
        found.append(f"image_size={size}{small}")
    return [*found, "a smaller backbone", "more memory"][:3]


def of_evaluation(batch_size: int, trainer: pl.Trainer) -> list[str]:
    """The words with which an evaluation takes less memory."""
    found = [f"batch_size={batch_size // 2} (the same metrics)"] if batch_size > 1 else []
    if trainer.strategy.root_device.type != "cpu":
        found.append("accelerator=cpu")
    return found or ["a machine with more memory"]


def message(error: BaseException, remedies: Callable[[], Sequence[str]]) -> str | None:
    """One line on an error of memory and what helps; None where it is another error."""
    if (what := refused(error)) is None:
        return None
    if "DataLoader worker" in str(error):
        return f"out of memory in a loading process: {what}; lower num_workers"
    return f"out of memory: {what}; what helps: {'; or '.join(remedies())}"


@contextmanager
def explained(remedies: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Turn an error of memory into a RunError.

    Raises:
        RunError: memory was asked for and not given.
    """
    try:
        yield
    except Exception as error:
        if (text := message(error, remedies)) is None:
            raise
        raise RunError(text) from error


_SAID_BY_LIBRARIES = (
    "can't allocate memory",  # torch's allocator on the CPU
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)


def _smaller_batch(batch_size: int, times: int, processes: int) -> tuple[int, int] | None:
    """The largest batch of at most half the size that divides among the processes and makes up the same step."""
    samples = batch_size * times
    for smaller in range(batch_size // 2, 0, -1):
        if smaller % processes == 0 and samples % smaller == 0:
            return smaller, samples // smaller
    return None


def _smaller_size(size: int) -> int | None:
    """At most six sevenths of a side, in whole cells of the usual output stride, 32."""
    return size * 6 // 7 // 32 * 32 or None
