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
from torch.nn import Parameter

from runtime.engine import Engine
from runtime.offload import on_host


class Frozen:
    """The weights that `engine` holds when this is made, kept in the host's memory."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._kept = [on_host(tensor) for tensor in _tensors(engine)]

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
            theirs = on_host(here)
            here.copy_(kept)
            self._kept[i] = theirs


class Guest:
    """Weights of another head: `own` keeps its head on the device and borrows the place of all the rest.

    Its other parameters lie where those of `host` lie; the weights themselves wait on the host's side.
    """

    def __init__(self, host: Engine, own: Engine) -> None:
        self.own = own
        theirs = dict(_named(host))
        shared = [(theirs[name], mine) for name, mine in _named(own) if _fits(theirs.get(name), mine)]
        self._pairs = [(place, on_host(mine.data)) for place, mine in shared]
        for place, mine in shared:
            mine.data = place.data

    @contextmanager
    def in_place(self) -> Iterator[Engine]:
        """Inside, its own engine answers; the one whose place it has must not be asked there."""
        self._trade()
        try:
            yield self.own
        finally:
            self._trade()

    @torch.no_grad()
    def _trade(self) -> None:
        for i, (place, kept) in enumerate(self._pairs):
            theirs = on_host(place.data)
            place.data.copy_(kept)
            self._pairs[i] = (place, theirs)


def _named(engine: Engine) -> Iterator[tuple[str, Parameter]]:
    for v, chunk in enumerate(engine.chunks):
        yield from ((f"{v}.{name}", parameter) for name, parameter in chunk.named_parameters())


def _fits(place: Parameter | None, mine: Parameter) -> bool:
    return place is not None and (place.shape, place.dtype) == (mine.shape, mine.dtype)


def _tensors(engine: Engine) -> Iterator[Tensor]:
    """All that makes the model's output: parameters and buffers, in one order."""
    for chunk in engine.chunks:
        yield from (parameter.data for parameter in chunk.parameters())
        yield from chunk.buffers()
