"""A training or validation set as the loop sees it: the bins of a step, or all bins once."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.batch import Bin
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
        self.order = Order(len(samples), seed, shuffle)

    def bins(self, step: int) -> list[Bin]:
        """The bins of step `step` (from 0): `global_batch` rows, fewer bins when packed."""
        return self._binned(self.order.indices(step, self.global_batch))

    def batches(self) -> Iterator[list[Bin]]:
        """Every sample once, in the order of the file."""
        for first in range(0, len(self.samples), self.global_batch):
            yield self._binned(list(range(first, min(first + self.global_batch, len(self.samples)))))

    def epoch(self, step: int) -> float:
        """Passes over the data when `step` steps are done."""
        return self.order.epoch(step, self.global_batch)

    def _binned(self, indices: list[int]) -> list[Bin]:
        samples = [self.samples[i] for i in indices]
        if self.packing:
            return list(packed_bins(samples, self.seq_length))
        return [[sample] for sample in samples]
