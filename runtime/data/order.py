"""Which samples a step sees: a function of the seed and the step alone, so resuming needs no state.

Samples form one endless stream, epoch after epoch, each in its own order; step s takes the samples
`s * global_batch` up to `(s + 1) * global_batch`. Nothing is dropped at an epoch's end.
"""

from __future__ import annotations

import numpy as np

from runtime.problem import Problem


class Order:
    """The stream's order over `count` samples; shuffled by (seed, epoch), or as they are."""

    def __init__(self, count: int, seed: int, shuffle: bool = True):
        self.count, self.seed, self.shuffle = count, seed, shuffle
        self._epoch, self._order = -1, np.arange(count)

    def indices(self, step: int, global_batch: int) -> list[int]:
        """The samples of a step (from 0)."""
        first = step * global_batch
        return [self._at(position) for position in range(first, first + global_batch)]

    def epoch(self, step: int, global_batch: int) -> float:
        """How often every sample was seen when `step` steps are done."""
        return step * global_batch / self.count

    def _at(self, position: int) -> int:
        epoch, index = divmod(position, self.count)
        return int(self._permutation(epoch)[index])

    def _permutation(self, epoch: int) -> np.ndarray:
        if self.shuffle and epoch != self._epoch:
            draw = np.random.Generator(np.random.Philox(key=[self.seed % 2**64, epoch]))
            self._epoch, self._order = epoch, draw.permutation(self.count)
        return self._order


def max_steps(train: dict, count: int, global_batch: int) -> int:
    """Steps of a run: `steps`, or what `epochs` gives; the smaller when both are said. R012 for neither."""
    steps, epochs = int(train.get("steps") or 0), float(train.get("epochs") or 0)
    of_epochs = max(int(count * epochs) // global_batch, 1) if epochs > 0 else 0
    said = [n for n in (steps, of_epochs) if n > 0]
    if not said:
        raise Problem("R012", "neither `steps` nor `epochs` is above 0; set train.steps or train.epochs")
    return min(said)
