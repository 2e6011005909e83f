"""Samples of unlike lengths dealt to the ranks so that little is padded and nobody waits, and the answers
gathered again by sample.

The samples are sorted by length and taken in rounds of DP x micro-batch: in a round every rank has one
microbatch, all of the same shape, as wide as the round's longest sample. So every rank does the same work,
whatever the lengths, and the same samples are always dealt alike. Microbatches of a pass without gradients
and of a training step come from the same call: what is computed twice is computed on equal tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from runtime.batch import Batch, Sample, dealt

Numbers = np.ndarray


@dataclass(frozen=True)
class Deal:
    """This rank's microbatches; `lines[i][b]` is the sample in line b of microbatch i, if any."""

    microbatches: list[Batch]
    lines: list[list[Sample | None]]

    @property
    def samples(self) -> list[Sample]:
        """All of this rank's samples."""
        return [sample for lines in self.lines for sample in lines if sample is not None]


@dataclass(frozen=True)
class Table:
    """How the ranks sit: what a deal depends on besides the samples."""

    dp_rank: int = 0
    dp: int = 1
    micro_batch: int = 1
    multiple: int = 1  # a width is a multiple of it: 2 * CP * TP
    rounds_multiple: int = 1  # PP, under an interleaved schedule
    pad_id: int = 0


def deal(samples: Sequence[Sample], table: Table) -> Deal:
    """The share of one data-parallel rank. Every sample is in exactly one microbatch of one rank."""
    ordered = sorted(samples, key=lambda sample: (-sample.columns, sample.id))
    size = table.dp * table.micro_batch
    rounds = [ordered[start : start + size] for start in range(0, len(ordered), size)] or [[]]
    names = {name for sample in samples for name in sample.extra}
    microbatches: list[Batch] = []
    lines: list[list[Sample | None]] = []
    for number in range(-(-len(rounds) // table.rounds_multiple) * table.rounds_multiple):
        own = rounds[number] if number < len(rounds) else []
        # a round that only fills up is as wide as the last one
        width = max(
            own or rounds[-1] or [Sample(0, [0, 0], [0, 0])], key=lambda sample: sample.columns
        ).columns
        microbatches += _dealt(own, width, table)
        for name in names:  # a microbatch that only fills up has them too
            microbatches[-1].extra.setdefault(name, torch.zeros_like(microbatches[-1].mask_BT))
        first = table.dp_rank * table.micro_batch
        seats: list[Sample | None] = [*own, *[None] * (size - len(own))]
        lines.append(seats[first : first + table.micro_batch])
    return Deal(microbatches, lines)


def _dealt(own: Sequence[Sample], width: int, table: Table) -> list[Batch]:
    """One microbatch of this rank, `width` columns rounded up."""
    multiple = -(-max(width, 1) // table.multiple) * table.multiple
    bins = [[sample] for sample in own] or [[]]
    return dealt(bins, table.dp_rank, table.dp, table.micro_batch, multiple=multiple, pad_id=table.pad_id)


def by_sample(outputs: Sequence[Tensor], share: Deal) -> dict[int, Numbers]:
    """Each of this rank's samples' own columns [n - 1, ...] of the outputs [B, T, ...], by its id."""
    found: dict[int, Numbers] = {}
    for output, lines in zip(outputs, share.lines, strict=True):
        numbers = output.detach().float().cpu().numpy()
        for line, sample in enumerate(lines):
            if sample is not None:
                found[sample.id] = numbers[line, : sample.columns].copy()
    return found


def gathered(own: Mapping[int, Numbers], group: dist.ProcessGroup | None) -> dict[int, Numbers]:
    """Every rank's samples, on every rank of the data-parallel group, by id."""
    if group is None or group.size() == 1:
        return dict(own)
    parts: list[Mapping[int, Numbers] | None] = [None] * group.size()
    dist.all_gather_object(parts, own, group=group)
    together = {id: numbers for part in parts if part for id, numbers in part.items()}
    return {id: together[id] for id in sorted(together)}


def padded(rows: Sequence[Sequence[float] | Numbers], width: int | None = None) -> Tensor:
    """Rows of numbers as one tensor [N, width] in float64, 0 behind the end of each."""
    wide = width if width is not None else max((len(row) for row in rows), default=0)
    found = torch.zeros(len(rows), wide, dtype=torch.float64)
    for i, row in enumerate(rows):
        found[i, : len(row)] = torch.as_tensor(np.asarray(row, np.float64))
    return found
