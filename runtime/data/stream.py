"""A training or validation set as the loop sees it: the bins of a step, or all bins once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.batch import Bin, Sample
from runtime.data.order import Order
from runtime.data.tokenised import Tokenised
from runtime.packing import packed_bins


class Stream:
    """Samples grouped into global batches of rows, packed or not; the same on every rank."""

    def __init__(
        self,
        samples: Tokenised,
        *,
        global_batch: int,
        seq_length: int,
        seed: int,
        shuffle: bool,
        packing: bool,
    ):
        self.samples, self.global_batch = samples, global_batch
        self.seq_length, self.packing = seq_length, packing
        self.rows = len(samples) // samples.group
        self.order = Order(self.rows, seed, shuffle)

    @property
    def lines(self) -> int:
        """Lines of a batch that a row takes: two texts that are compared lie in one line only when packed."""
        return 1 if self.packing else self.samples.group

    def bins(self, step: int) -> list[Bin]:
        """The bins of step `step` (from 0): `lines` for each of `global_batch` rows, fewer when packed."""
        return self._binned(self.order.indices(step, self.global_batch))

    def batches(self) -> Iterator[list[Bin]]:
        """Every row once, in the order of the file."""
        for first in range(0, self.rows, self.global_batch):
            yield self._binned(list(range(first, min(first + self.global_batch, self.rows))))

    def epoch(self, step: int) -> float:
        """Passes over the data when `step` steps are done."""
        return self.order.epoch(step, self.global_batch)

    def _binned(self, rows: list[int]) -> list[Bin]:
        group = self.samples.group
        found = [_Row([self.samples[row * group + i] for i in range(group)]) for row in rows]
        if self.packing:
            bins = packed_bins(found, self.seq_length * group)
            return [[sample for row in line for sample in row.samples] for line in bins]
        return [[sample] for row in found for sample in row.samples]


@dataclass(frozen=True)
class _Row:
    """The samples of a row, which are packed together or not at all."""

    samples: list[Sample]

    @property
    def columns(self) -> int:
        return sum(sample.columns for sample in self.samples)
