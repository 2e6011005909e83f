"""Numbers that follow from a model's shape alone: parameters whole and per rank, FLOPs, KV cache.

Counting follows Megatron-core: column- and row-parallel weights are cut by TP, norms, routers and the
biases of row-parallel layers are whole on every TP rank, experts are cut by EP and ETP, and the
vocabulary is padded so that it divides by TP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from specc.plan import Layout, Shape

GATED = ("swiglu", "geglu")


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


def layer_parameters(shape: Shape) -> LayerParameters:
    """Parameters of one decoder layer."""
    h, d, heads, groups = shape.hidden, shape.head_dim, shape.heads, shape.kv_groups
    sharded = h * d * (heads + 2 * groups) + heads * d * h
    replicated = 2 * h * norm_width(shape)
    if shape.qkv_bias or shape.linear_bias:
        sharded += d * (heads + 2 * groups)
    if shape.qk_norm:
        replicated += 2 * d * norm_width(shape)
    if shape.linear_bias:
        replicated += h
    experts = 0
    gates = 3 if shape.activation in GATED else 2
    if shape.experts:
        replicated += shape.experts * h  # the router
        experts = shape.experts * gates * h * shape.expert_ffn
        sharded += gates * h * shape.shared_expert_ffn
    else:
        sharded += gates * h * shape.ffn
        if shape.linear_bias:
            sharded += (gates - 1) * shape.ffn
            replicated += h
    return LayerParameters(sharded, replicated, experts)


def head_parameters(shape: Shape, head: str, attributes: int = 1) -> int:
    """Parameters of the output layer beyond the embedding: 0 for a tied language head."""
    if head == "language":
        return 0 if shape.tied else shape.vocab * shape.hidden
    return shape.hidden * (attributes if head == "attributes" else 1)


def parameters(shape: Shape, head: str = "language") -> int:
    """All parameters, with the vocabulary as published (not padded)."""
    positions = shape.max_positions * shape.hidden if shape.position == "learned" else 0
    final_norm = shape.hidden * norm_width(shape)
    body = shape.layers * layer_parameters(shape).total
    return shape.vocab * shape.hidden + positions + body + final_norm + head_parameters(shape, head)


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
    return 2 * shape.layers * shape.kv_groups * shape.head_dim * element_bytes


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


def balanced(layers: int, chunks: int) -> tuple[int, ...]:
    """`layers` over `chunks` as evenly as they go.

    What is left over goes to the middle, latest first: the first chunk has the embedding and the most
    micro-batches in flight, the last one the logits. `balanced(126, 16)` gives the first and the last
    one layer less, as Llama 3.1 405B was trained.
    """
    base, extra = divmod(layers, chunks)
    counts = [base] * chunks
    order = [*range(chunks - 2, 0, -1), chunks - 1, 0] if chunks > 1 else [0]
    for chunk in order[:extra]:
        counts[chunk] += 1
    return tuple(counts)


def stage_parameters(shape: Shape, layout: Layout, stage: int, head: str = "language") -> StageParameters:
    """Parameters on one rank of `stage` (0-based)."""
    layer = layer_parameters(shape)
    per_layer = layer.sharded // layout.tp + layer.replicated
    experts = layer.experts // (layout.ep * layout.etp) if layer.experts else 0
    count = layers_of_stage(shape, layout, stage)
    first, last = stage == 0, stage == layout.pp - 1
    dense = count * per_layer
    table = padded_vocab(shape.vocab, layout.tp) // layout.tp * shape.hidden
    if first:
        dense += table + (shape.max_positions * shape.hidden if shape.position == "learned" else 0)
    if last:
        dense += shape.hidden * norm_width(shape)
        if head != "language":
            dense += head_parameters(shape, head)
        elif not shape.tied or layout.pp > 1:  # a tied model holds a copy on its last stage
            dense += table
    return StageParameters(dense, count * experts)
