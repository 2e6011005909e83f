"""Several samples in one line of a batch: first-fit decreasing over one global batch.

Packing is decided for a whole global batch before it is dealt to the ranks, so it changes neither
which rows a step sees nor its loss. Deterministic: equal lengths keep the order of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Wide(Protocol):
    """Whatever takes columns: a sample, or several that stay together."""

    @property
    def columns(self) -> int: ...


Item = TypeVar("Item", bound=Wide)


def packed_bins(samples: Sequence[Item], columns: int) -> list[list[Item]]:
    """Bins of at most `columns` columns; each sample in the first bin that has room.

    A sample longer than `columns` is a defect upstream: it gets a bin of its own.
    """
    longest_first = sorted(range(len(samples)), key=lambda i: (-samples[i].columns, i))
    rooms: _Rooms = _Rooms(len(samples), columns)
    bins: list[list[Item]] = []
    for i in longest_first:
        index = rooms.first_with(samples[i].columns)
        if index == len(bins):
            bins.append([])
        bins[index].append(samples[i])
        rooms.take(index, samples[i].columns)
    return bins


class _Rooms:
    """The room left in each of `count` bins; finds the first with enough in O(log count)."""

    def __init__(self, count: int, columns: int):
        self.size = 1
        while self.size < max(count, 1):
            self.size *= 2
        self.tree = [columns] * (2 * self.size)

    def first_with(self, wanted: int) -> int:
        wanted = min(wanted, self.tree[1])
        node = 1
        while node < self.size:
            node *= 2
            if self.tree[node] < wanted:
                node += 1
        return node - self.size

    def take(self, index: int, columns: int) -> None:
        node = index + self.size
        self.tree[node] -= columns
        while node > 1:
            node //= 2
            self.tree[node] = max(self.tree[2 * node], self.tree[2 * node + 1])
