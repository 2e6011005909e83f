"""A second set of weights for a model that is already there: a reference, or a reward model beside a critic.

The weights lie in the host's memory and trade places with those on the device while they are asked. The
model, its layout and its kernels are the same, so two equal sets of weights give equal numbers, bit by bit:
the KL to the reference is exactly 0 before the first update.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from runtime.engine import Engine


class Frozen:
    """The weights that `engine` holds when this is made, kept in the host's memory."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._kept = [_on_host(tensor) for tensor in _tensors(engine)]

    @contextmanager
    def in_place(self) -> Iterator[Engine]:
        """Inside, the engine answers with these weights; it must not be trained there."""
        self._trade()
        try:
            yield self.engine
        finally:
            self._trade()

    @torch.no_grad()
    def restore(self) -> None:
        """Make these the engine's own weights, for good."""
        for here, kept in zip(_tensors(self.engine), self._kept, strict=True):
            here.copy_(kept)
        self.engine.weights_changed()

    @torch.no_grad()
    def _trade(self) -> None:
        for i, (here, kept) in enumerate(zip(_tensors(self.engine), self._kept, strict=True)):
            theirs = _on_host(here)
            here.copy_(kept)
            self._kept[i] = theirs


def _tensors(engine: Engine) -> Iterator[Tensor]:
    """All that makes the model's output: parameters and buffers, in one order."""
    for chunk in engine.chunks:
        yield from (parameter.data for parameter in chunk.parameters())
        yield from chunk.buffers()


def _on_host(tensor: Tensor) -> Tensor:
    """A copy in the host's memory, where the device can fetch it directly."""
    copy = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    return copy.copy_(tensor)
