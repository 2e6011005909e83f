"""A model without its pipeline stages, for as long as it generates: PP' = 1, DP' = DP x PP, TP as it was.

Each rank gets the parameters of the other stages that belong to its own tensor-parallel rank, so that a
whole model lies on every stage's GPUs; those of its own stage are not copied. Between rollouts only the
model's skeleton stays, without a byte of weights.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from runtime import model
from runtime.engine import Engine, EngineError
from runtime.parallel import Parallel
from runtime.shards import shards
from specc.plan import Layout, Role


@dataclass
class Whole:
    """What generation reads of an engine, of a model in one piece."""

    role: Role
    parallel: Parallel
    chunks: list[model.Model]

    @property
    def config(self) -> Any:
        return self.chunks[0].config


class Folding:
    """Of one engine whose model is cut into pipeline stages."""

    def __init__(self, engine: Engine) -> None:
        if engine.parallel.layout.cp > 1:
            raise EngineError("stages cannot be folded where rows are cut over CP; set cp to 1")
        self.engine = engine
        self._whole: Whole | None = None

    @contextmanager
    def whole(self) -> Iterator[Whole]:
        """The model as it is now, in one piece. Collective."""
        if self._whole is None:
            self._whole = skeleton(self.engine)
        targets = {shard.name: parameter for shard, parameter in shards(self._whole.chunks[0])}
        try:
            self._gather(targets)
            yield self._whole
        finally:
            for parameter in targets.values():
                parameter.data = parameter.data.new_empty(0)

    @torch.no_grad()
    def _gather(self, targets: dict[str, Any]) -> None:
        """Each parameter from the first stage that has it; a tied output layer is the embedding."""
        group = self.engine.parallel.groups.pp
        own = {s.name: p.data for chunk in self.engine.chunks for s, p in shards(chunk)}
        held: list[Any] = [None] * group.size()
        dist.all_gather_object(held, {name: tuple(p.shape) for name, p in own.items()}, group=group)
        for name, parameter in targets.items():
            stage = next(stage for stage, names in enumerate(held) if name in names)
            mine = own[name] if group.rank() == stage else parameter.data.new_empty(held[stage][name])
            dist.broadcast(mine, dist.get_global_rank(group, stage), group=group)
            parameter.data = mine


def skeleton(engine: Engine) -> Whole:
    """The engine's model in one piece, with parameters of no size."""
    parallel, layout = engine.parallel, folded(engine.role.layout)
    groups = copy.copy(parallel.groups)
    groups.pp = parallel.groups.cp  # a group of this rank alone, as CP is 1
    groups.embd = groups.pos_embd = groups.pp
    place = dataclasses.replace(parallel, layout=layout, pp_rank=0, groups=groups)
    role = dataclasses.replace(engine.role, layout=layout)
    chunks = model.build(role, place, drawn=False)
    for chunk in chunks:
        chunk.requires_grad_(False)
        for parameter in chunk.parameters():
            parameter.data = parameter.data.new_empty(0)
    return Whole(role, place, chunks)


def folded(layout: Layout) -> Layout:
    """The layout with its stages as replicas."""
    return dataclasses.replace(layout, pp=1, vp=1, dp=layout.dp * layout.pp, stage_layers=())
