"""The distributed optimizer's state whole on every rank's host: what a save writes.

Megatron-core 0.16.1 gathers each buffer in one piece: 4 + 4/D bytes per parameter on a device that is full,
and 12 + 12/D more in the host than what comes out. Here the same tensors are gathered in small pieces, each
put where it belongs at once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor

KEYS = ("param", "exp_avg", "exp_avg_sq")

PIECE = 1 << 22
"""Elements that all ranks together gather at once: 16 MiB on the device."""


def whole_state(part: DistributedOptimizer, empty: bool) -> dict[Any, Any]:
    """What `get_parameter_state_dp_zero` gives on every rank; `empty` makes room only. Collective."""
    state: dict[Any, Any] = {"buckets_coalesced": True}
    for index, by_dtype in enumerate(part.gbuf_ranges):
        buffer = part.buffers[index]
        for dtype, buckets in by_dtype.items():
            count = buffer.numel_unpadded
            whole: dict[str, Any] = {key: torch.zeros(count, dtype=torch.float32) for key in KEYS}
            if not empty:
                _fill(whole, part, buffer, buckets)
            state[index] = {dtype: {**whole, "numel_unpadded": count}}
    return state


def _fill(whole: dict[str, Tensor], part: DistributedOptimizer, buffer: Any, buckets: Any) -> None:
    start = 0
    for bucket, ranges in zip(buffer.buckets, buckets, strict=True):
        size = part.data_parallel_group.size()
        own = torch.zeros(bucket.grad_data.numel() // size, dtype=torch.float32)
        for key in KEYS:
            for parameter, places in ranges["param_map"].items():
                place = places["gbuf_local"]
                tensors = part._get_main_param_and_optimizer_states(parameter)
                own[place.start : place.end].copy_(tensors[key].detach())
            _gather(own, whole[key][start : start + bucket.numel_unpadded], part.data_parallel_group)
        start += bucket.numel_unpadded


def _gather(own: Tensor, whole: Tensor, group: dist.ProcessGroup) -> None:
    """Every rank's `own` one after another into `whole`, whose end cuts off padding."""
    size, device = group.size(), torch.cuda.current_device()
    for first in range(0, len(own), max(1, PIECE // size)):
        piece = own[first : first + max(1, PIECE // size)].to(device)
        parts = [torch.empty_like(piece) for _ in range(size)]
        dist.all_gather(parts, piece, group=group)
        for rank, found in enumerate(parts):
            place = whole[rank * len(own) + first :][: len(piece)]
            place.copy_(found[: len(place)])
