"""Generation on the weights that train: nothing to transfer, nothing to load, nothing to put to sleep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from runtime.engine import Engine
from runtime.engines import Completion, EngineFailed
from runtime.generate import generate
from runtime.hf import import_weights
from runtime.hf.imports import piece
from runtime.hf.table import Layout, head_outputs
from runtime.sampling import LOGPROBS, Sampling
from runtime.shards import shards
from runtime.stopping import Decode


class Megatron:
    """An engine of `runtime.engines` on this process's share of a model. Every method is a collective."""

    name = "megatron"
    logprobs_of = LOGPROBS

    def __init__(self, engine: Engine, decode: Decode | None = None, slots: int = 64) -> None:
        self.engine, self.decode, self.slots = engine, decode, slots
        self.version = 0
        self._aborted = False

    def start(self, folder: str, version: int = 0) -> None:
        import_weights(self.engine, self.engine.role, folder, self.engine.parallel)
        self.version = version

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, sequences: Sequence[int] | None = None
    ) -> list[Completion]:
        found = generate(self.engine, prompts, sampling, sequences, decode=self.decode, slots=self.slots)
        rows = zip(found.tokens, found.logprobs, found.finish, strict=True)
        return [Completion(*row, self.version) for row in rows]

    def update_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Without tensors the weights are those that train, and only their number changes."""
        given = dict(tensors)
        if given:
            self._take(given)
        self.version = version

    def load(self, folder: str, version: int) -> None:
        self.start(folder, version)

    def sleep(self) -> None:
        """The cache lives only while rows are generated."""

    def wake(self) -> None:
        """Nothing was put away."""

    def abort(self) -> None:
        """All ranks would have to stop at the same step, which a thread of one cannot arrange."""
        raise EngineFailed(
            "generation on the training weights is ended between steps: use `Generator.abort` on every rank"
        )

    def close(self) -> None:
        """The weights belong to the one who trains them."""

    def _take(self, given: Mapping[str, Tensor]) -> None:
        role = self.engine.role
        layout = Layout(role.model.shape, head_outputs(role.model))
        source: Any = _Given(given)
        if missing := sorted({name for name, _ in layout.tensors()} - set(given)):
            raise EngineFailed(f"an update of weights lacks {len(missing)} tensors, {missing[0]} the first")
        with torch.no_grad():
            for chunk in self.engine.chunks:
                for shard, parameter in shards(chunk):
                    parameter.copy_(piece(source, layout, shard, parameter.shape))
        self.engine.weights_changed()


class _Given:
    """Whole tensors by name, where imports read slices of files."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def rows(self, name: str, start: int, stop: int, columns: tuple[int, int] | None = None) -> Any:
        part = self.tensors[name][start:stop]
        return part if columns is None else part[:, columns[0] : columns[1]]
