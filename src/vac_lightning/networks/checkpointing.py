"""Activation checkpointing: what a block of layers keeps for its backward pass is computed again there, not stored.

Chen, Xu, Zhang and Guestrin, Training Deep Nets with Sublinear Memory Cost, 2016.
"""

from __future__ import annotations

__all__ = ["blocks", "checkpoint_blocks"]

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import is_grad_enabled, nn
from torch.compiler import is_compiling
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(backbone: nn.Module) -> None:
    """Let every block of a backbone compute its activations again in the backward pass, when it is trained.

    Results stay the same, where kernels repeat themselves to the last bit: the same dropout is drawn again, and running
    statistics are not updated again. Names of parameters and keys of the state dict stay too.

    Raises:
        ValueError: no block is found.
    """
    found = blocks(backbone)
    if not found:
        raise ValueError(
            f"activation_checkpointing=true: {type(backbone).__name__} has no blocks (modules of several layers that"
            " stand in an nn.Sequential or nn.ModuleList): set activation_checkpointing=false"
        )
    for block in found:
        # An attribute of the instance, not a wrapper, which would rename parameters; a partial follows a deep copy.
        block.forward = partial(_recomputed, block)


def blocks(backbone: nn.Module) -> list[nn.Module]:
    """The modules with children of their own that stand in a row of modules, but for such as hold rows of blocks.

    Of a ResNet the residual blocks, of a transformer its blocks, of ConvNeXt those of all stages.
    """
    found = []
    for child in backbone.children():
        if isinstance(backbone, _ROWS) and _is_composed(child) and not any(map(_is_row_of_blocks, child.children())):
            found.append(child)
        else:
            found += blocks(child)
    return found


_ROWS = (nn.Sequential, nn.ModuleList)


def _is_composed(module: nn.Module) -> bool:
    return not isinstance(module, _ROWS) and any(True for _ in module.children())


def _is_row_of_blocks(module: nn.Module) -> bool:
    children = list(module.children())
    return isinstance(module, _ROWS) and bool(children) and all(map(_is_composed, children))


def _recomputed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """A block's forward pass, with the class's own `forward`."""
    forward = partial(type(block).forward, block)
    if not (block.training and is_grad_enabled()):
        return forward(*args, **kwargs)
    if is_compiling():  # the compiler takes no contexts, and needs none: an update of a buffer it does once
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=partial(_contexts, block), **kwargs)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What the first and the second forward pass run in."""
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """While a block is computed again, let its layers update copies of their running statistics.

    Not none at all: what the two passes keep for the backward pass must match, and these are among it.
    """
    layers = [layer for layer in block.modules() if layer.training and getattr(layer, "track_running_stats", False)]
    buffers = [dict(layer._buffers) for layer in layers]
    for layer in layers:
        layer._buffers.update({name: None if x is None else x.clone() for name, x in layer._buffers.items()})
    try:
        yield
    finally:
        for layer, own in zip(layers, buffers, strict=True):
            layer._buffers.update(own)
