"""Numbers that follow from a model's shape alone: parameters whole and per rank, FLOPs, KV cache.

Counting follows Megatron-core: column- and row-parallel weights are cut by TP, norms, routers and the
biases of row-parallel layers are whole on every TP rank, experts are cut by EP and ETP, and the
vocabulary is padded so that it divides by TP.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from specc.plan import Layout, Shape

GATED = ("swiglu", "geglu")


@dataclass(frozen=True)
class LatentShape(Shape):
    """A shape with latent attention (MLA), and perhaps dense layers before those with experts.

    Planned for, not run. `head_dim` is the mean width of a query-key and a value head, which is what the
    FLOPs of attention go by.
    """

    query_rank: int = 0  # 0: queries are projected straight from the hidden state
    kv_rank: int = 0
    plain_dim: int = 0  # of a query-key head, without position
    rope_dim: int = 0  # of a query-key head, with position; keys share it
    value_dim: int = 0
    dense_layers: int = 0  # the first ones, which have no experts
    mtp_layers: int = 0  # after the last one, in pre-training: they predict tokens further ahead


Asked = TypeVar("Asked", bound=Callable[..., object])

REMEMBERED = 512
"""Answers that `remembered` keeps at most."""


def remembered(function: Asked) -> Asked:
    """Ask once for each shape. A shape never changes, but cannot be hashed: it is told by its identity."""
    kept: dict[tuple[object, ...], tuple[Shape, object]] = {}

    @functools.wraps(function)
    def asked(shape: Shape, *more: object, **named: object) -> object:
        key = (id(shape), more, *named.items())
        found = kept.get(key)
        if found is None or found[0] is not shape:
            if len(kept) >= REMEMBERED:
                kept.clear()
            found = kept[key] = shape, function(shape, *more, **named)
        return found[1]

    return asked  # type: ignore[return-value]


def padded_vocab(vocab: int, tp: int) -> int:
    """Rows of the embedding table: a multiple of 128 and of TP, so the same for every TP that divides 128."""
    unit = math.lcm(128, tp)
    return -(-vocab // unit) * unit


def norm_width(shape: Shape) -> int:
    """Parameters per channel of one norm: a weight, and a bias when it is a LayerNorm."""
    return 2 if shape.norm.startswith("layernorm") else 1


@dataclass(frozen=True)
class LayerParameters:
    """One decoder layer, by how ranks share it: parameters of the whole layer, not of a rank."""

    sharded: int  # cut by TP
    replicated: int  # whole on every TP rank
    experts: int  # cut by EP and ETP

    @property
    def total(self) -> int:
        return self.sharded + self.replicated + self.experts


@remembered
def layer_parameters(shape: Shape, plain: bool = False) -> LayerParameters:
    """Parameters of one decoder layer; of a `plain` one, which has no experts though others have."""
    h = shape.hidden
    sharded, replicated = _attention_parameters(shape)
    replicated += 2 * h * norm_width(shape)
    experts = 0
    gates = 3 if shape.activation in GATED else 2
    if shape.experts and not plain:
        replicated += shape.experts * h  # the router
        experts = shape.experts * gates * h * shape.expert_ffn
        sharded += gates * h * shape.shared_expert_ffn
    else:
        sharded += gates * h * shape.ffn
        if shape.linear_bias:
            sharded += (gates - 1) * shape.ffn
            replicated += h
    return LayerParameters(sharded, replicated, experts)


def _attention_parameters(shape: Shape) -> tuple[int, int]:
    """Parameters of attention that TP cuts, and those that are whole on every rank."""
    h, d, heads, groups = shape.hidden, shape.head_dim, shape.heads, shape.kv_groups
    if isinstance(shape, LatentShape):
        keys = shape.plain_dim + shape.rope_dim
        queries = (shape.query_rank or h) * heads * keys
        up = queries + shape.kv_rank * heads * (shape.plain_dim + shape.value_dim)
        down = h * (shape.query_rank + shape.kv_rank + shape.rope_dim)
        return up + heads * shape.value_dim * h, down + shape.query_rank + shape.kv_rank
    sharded, replicated = h * d * (heads + 2 * groups) + heads * d * h, 0
    if shape.qkv_bias or shape.linear_bias:
        sharded += d * (heads + 2 * groups)
    if shape.qk_norm:
        replicated += 2 * d * norm_width(shape)
    if shape.linear_bias:
        replicated += h
    return sharded, replicated


def dense_layers(shape: Shape) -> int:
    """Layers, the first ones, that have no experts though others have."""
    return shape.dense_layers if isinstance(shape, LatentShape) and shape.experts else 0


def dense_form(shape: Shape) -> Shape:
    """The shape of the layers that have no experts."""
    return dataclasses.replace(shape, experts=0)


def head_parameters(shape: Shape, head: str, attributes: int = 1) -> int:
    """Parameters of the output layer beyond the embedding: 0 for a tied language head."""
    if head == "language":
        return 0 if shape.tied else shape.vocab * shape.hidden
    return shape.hidden * (attributes if head == "attributes" else 1)


def parameters(shape: Shape, head: str = "language") -> int:
    """All parameters, with the vocabulary as published (not padded)."""
    positions = shape.max_positions * shape.hidden if shape.position == "learned" else 0
    final_norm = shape.hidden * norm_width(shape)
    dense = dense_layers(shape)
    body = (shape.layers - dense) * layer_parameters(shape).total
    if dense:
        body += dense * layer_parameters(shape, plain=True).total
    return shape.vocab * shape.hidden + positions + body + final_norm + head_parameters(shape, head)


@remembered
def active_layer_parameters(shape: Shape) -> int:
    """Parameters of a layer that one token meets: with experts, the chosen ones and the router."""
    layer = layer_parameters(shape)
    chosen = layer.experts * shape.experts_per_token // shape.experts if shape.experts else 0
    return layer.sharded + layer.replicated + chosen


def training_flops_per_token(shape: Shape, seq_length: int) -> float:
    """FLOPs of forward and backward per token: 6 per parameter met, and causal attention over half of
    `seq_length` on average; no recomputation counted.
    """
    met = shape.layers * active_layer_parameters(shape) + shape.vocab * shape.hidden
    window = min(seq_length, shape.sliding_window) if shape.sliding_window else seq_length
    return 6.0 * met + 12.0 * shape.layers * shape.heads * shape.head_dim * window / 2


def forward_flops_per_token(shape: Shape, seq_length: int) -> float:
    """FLOPs of the forward pass per token: a third of training's."""
    return training_flops_per_token(shape, seq_length) / 3


def kv_bytes_per_token(shape: Shape, element_bytes: int = 2) -> int:
    """Bytes of keys and values that one token leaves in the cache, over all layers, at TP 1."""
    if isinstance(shape, LatentShape):  # the latent and the keys' position, once for all heads
        return shape.layers * (shape.kv_rank + shape.rope_dim) * element_bytes
    return 2 * shape.layers * shape.kv_groups * shape.head_dim * element_bytes


def cache_cuts(shape: Shape, tp: int) -> int:
    """Over how many tensor-parallel ranks the cache is cut: never a key-value group, nor a latent."""
    return 1 if isinstance(shape, LatentShape) else min(tp, shape.kv_groups)


# --- a rank's share --------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageParameters:
    """Parameters that one rank of a pipeline stage holds."""

    dense: int  # its optimizer state is shared by the data- and context-parallel group
    experts: int  # its optimizer state is shared by the ranks with the same experts


def layers_of_stage(shape: Shape, layout: Layout, stage: int) -> int:
    """Decoder layers of a pipeline stage, all its chunks together."""
    return sum(stage_layers(shape, layout)[stage :: layout.pp])


def stage_layers(shape: Shape, layout: Layout) -> tuple[int, ...]:
    """Layers of each chunk; as `Layout.stage_layers`, filled in when that is empty."""
    return layout.stage_layers or balanced(shape.layers, layout.pp * layout.vp)


@functools.cache
def balanced(layers: int, chunks: int, after: int = 0) -> tuple[int, ...]:
    """`layers` over `chunks` as evenly as they go.

    What is left over goes to the middle, latest first: the first chunk has the embedding and the most
    micro-batches in flight, the last one the logits. `balanced(126, 16)` gives the first and the last
    one layer less, as Llama 3.1 405B was trained. `after` layers follow the last one (multi-token
    prediction); where all slots divide, embedding, loss and those are slots like layers:
    `balanced(61, 16, 1)` gives the last chunk two, as DeepSeek-V3 is laid out.
    """
    slots = layers + 2 + after
    if after and chunks > 1 and slots % chunks == 0 and slots // chunks > after:
        each = slots // chunks
        return (each - 1, *[each] * (chunks - 2), each - 1 - after)
    base, extra = divmod(layers, chunks)
    counts = [base] * chunks
    order = [*range(chunks - 2, 0, -1), chunks - 1, 0] if chunks > 1 else [0]
    for chunk in order[:extra]:
        counts[chunk] += 1
    return tuple(counts)


def dense_by_chunk(shape: Shape, layout: Layout) -> tuple[int, ...]:
    """Of each chunk's layers, how many have no experts though others have: the first ones of the model."""
    return first_layers(dense_layers(shape), stage_layers(shape, layout))


@functools.lru_cache(maxsize=4096)
def first_layers(count: int, chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Of the layers of each chunk, how many are among the first `count` of all."""
    ends = itertools.accumulate(chunks)
    return tuple(max(0, min(count - end + layers, layers)) for layers, end in zip(chunks, ends, strict=True))


def stage_parameters(
    shape: Shape, layout: Layout, stage: int, head: str = "language", mtp: int = 0
) -> StageParameters:
    """Parameters on one rank of `stage` (0-based); `mtp` layers of multi-token prediction follow the last
    one, each with a projection of two hidden states and three norms, and one copy of the embedding for all.
    """
    layer = layer_parameters(shape)
    per_layer = layer.sharded // layout.tp + layer.replicated
    experts = layer.experts // (layout.ep * layout.etp) if layer.experts else 0
    count = layers_of_stage(shape, layout, stage)
    first, last = stage == 0, stage == layout.pp - 1
    dense = count * per_layer
    if dense_layers(shape) and (without := sum(dense_by_chunk(shape, layout)[stage :: layout.pp])):
        plain = layer_parameters(shape, plain=True)
        dense += without * (plain.sharded // layout.tp + plain.replicated - per_layer)
        count -= without
    table = padded_vocab(shape.vocab, layout.tp) // layout.tp * shape.hidden
    if first:
        dense += table + (shape.max_positions * shape.hidden if shape.position == "learned" else 0)
    if last:
        dense += shape.hidden * norm_width(shape)
        if head != "language":
            dense += head_parameters(shape, head)
        elif not shape.tied or layout.pp > 1:  # a tied model holds a copy on its last stage
            dense += table
        if mtp:
            joined = 2 * shape.hidden * shape.hidden // layout.tp + 3 * shape.hidden * norm_width(shape)
            dense += mtp * (per_layer + joined) + (table if layout.pp > 1 else 0)
            count += mtp
    return StageParameters(dense, count * experts)
