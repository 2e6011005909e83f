"""Who generates what: the replicas of a model that share a list of prompts.

As it trains, a model has a replica per data-parallel rank (context-parallel ranks are replicas too). Where
pipeline stages are folded each stage is a replica more: number = data rank + replicas x stage, as in
NeMo-Aligner. Tensor-parallel ranks of a replica do the same; the first of them talks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from runtime.parallel import Parallel

T = TypeVar("T")


@dataclass(frozen=True)
class Replicas:
    """This rank's place among them. `groups`: one rank of each replica, reached group after group."""

    groups: tuple[Any, ...]
    leads: bool  # whether this rank talks for its replica

    @property
    def size(self) -> int:
        found = 1
        for group in self.groups:
            found *= group.size()
        return found

    @property
    def number(self) -> int:
        found, each = 0, 1
        for group in self.groups:
            found, each = found + each * group.rank(), each * group.size()
        return found

    def gathered(self, own: list[T]) -> list[T]:
        """The lists of all replicas, in any order; collective."""
        for group in self.groups:
            if group.size() > 1:
                shares: list[Any] = [None] * group.size()
                dist.all_gather_object(shares, own, group=group)
                own = [one for share in shares for one in share]
        return own


def replicas_of(parallel: Parallel, folded: bool = False) -> Replicas:
    """As the model trains, or with its pipeline stages `folded`."""
    groups = parallel.groups
    if folded and parallel.layout.pp > 1:
        return Replicas((groups.dp_cp, groups.pp), parallel.tp_rank == 0)
    return Replicas((groups.dp_cp,), parallel.tp_rank == 0 and parallel.pp_rank == 0)
