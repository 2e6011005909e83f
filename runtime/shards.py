"""How one parameter of this rank lies in the whole parameter of the model.

Megatron cuts a parameter along one dimension over the tensor-parallel ranks (an expert's over the
expert-tensor ranks), deals layers to pipeline stages and experts to expert-parallel ranks. A `Shard`
says where a piece belongs: the name it has in the whole model, and how to cut it out of the whole
tensor or put the whole together again. The first layer of a gated MLP is two tensors, gate and up,
one above the other in every piece.

Initial weights, gathered gradients and the way to and from Hugging Face all go by this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_LAYER = re.compile(r"decoder\.layers\.(\d+)\.")
_EXPERT = re.compile(r"\.local_experts\.(\d+)\.")
_EMBEDDING, _OUTPUT = "embedding.word_embeddings.weight", "output_layer.weight"


@dataclass(frozen=True)
class Shard:
    """One rank's piece of a parameter."""

    name: str  # in the whole model: layers and experts counted over all ranks
    dim: int | None  # along which it is cut; None: every rank of the group has all of it
    rank: int  # which piece this is
    pieces: int  # of how many
    stacked: int = 1  # 2 for gate above up
    vocabulary: bool = False  # dimension 0 is the vocabulary with its padding

    def cut(self, whole: Tensor) -> Tensor:
        """This rank's piece of the whole tensor."""
        if self.dim is None:
            return whole
        parts = whole.chunk(self.stacked, dim=self.dim)
        return torch.cat([part.chunk(self.pieces, dim=self.dim)[self.rank] for part in parts], dim=self.dim)

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        """The whole tensor from the pieces of all ranks, in order of rank."""
        if self.dim is None:
            return pieces[0]
        split = [piece.chunk(self.stacked, dim=self.dim) for piece in pieces]
        return torch.cat([parts[i] for i in range(self.stacked) for parts in split], dim=self.dim)


def shards(chunk: Any) -> Iterator[tuple[Shard, Parameter]]:
    """Each parameter of a model chunk (a GPTModel) with its place in the whole model."""
    for name, parameter in chunk.named_parameters():
        yield _shard(chunk, name, parameter), parameter


def _shard(chunk: Any, name: str, parameter: Parameter) -> Shard:
    groups = chunk.pg_collection
    expert = _EXPERT.search(name)
    group = groups.expt_tp if expert else groups.tp
    whole_name = _whole_name(chunk, name)
    is_cut = getattr(parameter, "tensor_model_parallel", False) and group.size() > 1
    gated = chunk.config.gated_linear_unit and "linear_fc1.layer_norm" not in name and ".linear_fc1." in name
    return Shard(
        name=whole_name,
        dim=parameter.partition_dim if is_cut else None,  # type: ignore[attr-defined]
        rank=group.rank() if is_cut else 0,
        pieces=group.size() if is_cut else 1,
        stacked=2 if gated else 1,
        vocabulary=whole_name == _EMBEDDING or (whole_name == _OUTPUT and chunk.head == "language"),
    )


def _whole_name(chunk: Any, name: str) -> str:
    layer = _LAYER.search(name)
    if layer:
        number = chunk.decoder.layers[int(layer[1])].layer_number - 1
        name = _LAYER.sub(f"decoder.layers.{number}.", name)
    expert = _EXPERT.search(name)
    if expert:
        ep = chunk.pg_collection.ep
        local = (chunk.config.num_moe_experts or 0) // ep.size()
        name = _EXPERT.sub(f".local_experts.{ep.rank() * local + int(expert[1])}.", name)
    return name
