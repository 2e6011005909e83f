"""Several data sets as one sequence of rows, and a part of it.

Without weights they follow one another, each once. With weights they alternate so that after any number of
rows each has had its share as nearly as can be; there are as many rows as in all of them, and one that runs
out begins again. The order is a function of the weights and lengths alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.data.rows import Rows, open_rows
from runtime.problem import Problem


class Blend:
    """Rows of several parts by index; `find(i)` says which part and which of its rows."""

    def __init__(
        self, parts: Sequence[Rows], weights: Sequence[float] = (), first: int = 0, count: int | None = None
    ):
        self.parts, self.first = parts, first
        total = sum(map(len, parts))
        self._count = total - first if count is None else count
        self._parts, self._inner = array("H"), array("q")
        for part, inner in order_of([len(part) for part in parts], weights):
            self._parts.append(part)
            self._inner.append(inner)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, inner = self.find(index)
        return self.parts[part][inner]

    def find(self, index: int) -> tuple[int, int]:
        """The part that a row is of, and its number there."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._parts[self.first + index], self._inner[self.first + index]

    def where(self, index: int) -> str:
        part, inner = self.find(index)
        return self.parts[part].where(inner)

    def fingerprint(self) -> str:
        own = f"{self.first} {self._count}"
        return " ".join([own, *(part.fingerprint() for part in self.parts)])


def order_of(lengths: Sequence[int], weights: Sequence[float] = ()) -> Iterator[tuple[int, int]]:
    """(part, row) of each row of a blend; the part that is furthest behind its share comes next, of equal
    ones the first.
    """
    if not weights:
        yield from ((part, inner) for part, length in enumerate(lengths) for inner in range(length))
        return
    shares = [weight / sum(weights) for weight in weights]
    taken = [0] * len(lengths)
    for position in range(sum(lengths)):
        behind = [share * (position + 1) - had for share, had in zip(shares, taken, strict=True)]
        part = max(range(len(lengths)), key=lambda i: (behind[i], -i))
        yield part, taken[part] % lengths[part]
        taken[part] += 1


def blended(
    parts: Sequence[Mapping[str, Any]], *, seed: int, cache: Path, size: int | None = None, index: int = 0
) -> Blend:
    """The rows of these sections of data; with `size`, those from index * size on, `size` of them or what is
    left. Problem R011 when there is none, R001 for weights without a meaning.
    """
    rows = [open_rows(part, seed=seed, cache=cache) for part in parts]
    weights = _weights(parts, rows)
    total = sum(map(len, rows))
    if not size:
        return Blend(rows, weights)
    first = size * index
    if first >= total:
        have = f"there are {total} rows, in {-(-total // size)} slices from 0 on"
        raise Problem("R011", f"slice {index} of {size} rows would begin at row {first}, but {have}")
    return Blend(rows, weights, first, min(size, total - first))


def _weights(parts: Sequence[Mapping[str, Any]], rows: Sequence[Rows]) -> list[float]:
    """The weights of the parts; none where none says one."""
    said: list[Any] = [part.get("weight") for part in parts]
    if all(weight is None for weight in said):
        return []
    for number, (weight, own) in enumerate(zip(said, rows, strict=True)):
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < float("inf"):
            wanted = "say a number above 0 for each data set, or for none"
            raise Problem("R001", f"weight {number + 1} of the blend is {weight}; {wanted}")
        if not len(own):
            raise Problem("R011", f"data set {number + 1} of the blend is empty, so it has no share to give")
    return [float(weight) for weight in said]
