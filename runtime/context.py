"""Context parallelism: how a line is cut over the ranks that share it.

Causal attention costs more at the end of a line, so a line is cut into 2 * CP pieces and rank r holds
pieces r and 2 * CP - 1 - r: equal work, and what Transformer Engine's attention expects. (Our own
attention does not cut lines; the plan asks for CP together with Transformer Engine only.)
"""

from __future__ import annotations

import dataclasses

import torch
import torch.distributed as dist
from torch import Tensor

from runtime.batch import Batch


def part(batch: Batch, rank: int, cp: int) -> Batch:
    """The columns of one rank; the columns of the line must be a multiple of 2 * cp."""
    if cp == 1:
        return batch
    return dataclasses.replace(
        batch,
        tokens_BT=cut(batch.tokens_BT, rank, cp),
        labels_BT=cut(batch.labels_BT, rank, cp),
        mask_BT=cut(batch.mask_BT, rank, cp),
        positions_BT=cut(batch.positions_BT, rank, cp),
        extra={name: cut(numbers_BT, rank, cp) for name, numbers_BT in batch.extra.items()},
    )


def cut(line_BT: Tensor, rank: int, cp: int) -> Tensor:
    """Pieces `rank` and `2 * cp - 1 - rank` of dimension 1."""
    pieces = line_BT.chunk(2 * cp, dim=1)
    return torch.cat([pieces[rank], pieces[2 * cp - 1 - rank]], dim=1)


def join(parts: list[Tensor]) -> Tensor:
    """The whole line from the parts of all ranks: `cut` undone."""
    halves = [piece.chunk(2, dim=1) for piece in parts]
    return torch.cat([half[0] for half in halves] + [half[1] for half in reversed(halves)], dim=1)


def gathered(part_BT: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The whole line on every rank of the group."""
    parts = [torch.empty_like(part_BT) for _ in range(group.size())]
    dist.all_gather(parts, part_BT.contiguous(), group=group)
    return join(parts)
