"""Adam's state in the host's memory while nothing is trained: moments, and the fp32 copies of bf16 weights.

Tensors keep their identity and change what they point at, so the optimizer finds them where it left them.
fp32 weights that are optimized as they are stay: the model itself reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

_COPIES = ("shard_fp32_from_float16_groups", "fp32_from_float16_groups")
"""Where Megatron's two optimizers keep fp32 copies of bf16 weights."""


class Offload:
    """The state of some of Megatron's optimizers, here or on the host."""

    def __init__(self, optimizers: Sequence[Any], device: torch.device) -> None:
        self._optimizers, self._device = optimizers, device
        self._away: list[Tensor] = []

    @property
    def bytes_away(self) -> int:
        """Bytes that wait on the host."""
        return sum(tensor.nbytes for tensor in self._away)

    def send(self) -> None:
        """Let the state wait on the host, unless it does."""
        if self._away:
            return
        self._away = [tensor for one in self._optimizers for tensor in state_of(one)]
        for tensor in self._away:
            tensor.data = on_host(tensor.data)

    def fetch(self) -> None:
        """Have it back, bit by bit, unless it is here."""
        for tensor in self._away:
            tensor.data = tensor.data.to(self._device, non_blocking=True)
        self._away = []


def state_of(optimizer: Any) -> Iterator[Tensor]:
    """What only the optimizer reads and is as large as weights are; each tensor once."""
    seen: set[int] = set()
    inner = getattr(optimizer, "optimizer", optimizer)
    moments = (tensor for state in inner.state.values() for tensor in state.values())
    groups = (group for name in _COPIES for group in getattr(optimizer, name, None) or [])
    copies = (tensor for group in groups for tensor in group)
    for tensor in (*moments, *copies):
        if isinstance(tensor, Tensor) and tensor.dim() and id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor


def on_host(tensor: Tensor) -> Tensor:
    """A copy in the host's memory, where the device can fetch it directly."""
    copy = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    return copy.copy_(tensor)
