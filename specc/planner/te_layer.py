"""What one of Transformer Engine's layers keeps, tensor by tensor.

Sources: arXiv:2205.05198 (dense, MHA), Megatron-core's modules for grouped queries, gated products, experts
and latent attention. Published numbers test it; no hook can look into fused layers.
"""

from __future__ import annotations

from specc.plan import Layout
from specc.planner.kept import CUT, ROUTED, Kept
from specc.planner.shapes import GATED, LatentShape
from specc.planner.workload import Workload

NARROW_OPERANDS = {"fp8": 1.0, "mxfp8": 1 + 1 / 32, "nvfp4": 1 / 2 + 1 / 16}
"""Bytes of a product's operand with its scales: one byte of scale per 32 numbers, or per 16."""


def table(work: Workload, layout: Layout) -> list[Kept]:
    """The lines of one decoder layer.

    For a GPT with dropout and unfused attention they add up to sbh (10 + 24/t + 5as/ht) without and
    sbh (34/t + 5as/ht) with sequence parallelism (2205.05198).
    """
    return [*_norms(work), *_attention(work, layout), *_feed_forward(work, layout)]


def final_norm(work: Workload) -> list[Kept]:
    """The norm before the head: its input and its output."""
    return [Kept("the final norm", 2 * work.element_bytes * work.shape.hidden)]


def _operand(work: Workload) -> float:
    """Bytes of what a matrix product keeps of its input."""
    return NARROW_OPERANDS.get(work.precision, work.element_bytes)


def _norms(work: Workload) -> list[Kept]:
    """Inputs and outputs of both norms.

    A norm that is fused with the product behind it is not computed again by itself; those before experts
    and before latent attention are modules of their own, and one that is fused goes with its product.
    """
    shape, e, h = work.shape, work.element_bytes, work.shape.hidden
    before_attention = ("layernorm",) if isinstance(shape, LatentShape) else ()
    before_mlp = ("layernorm",) if shape.experts else ("mlp",)
    lines = [
        Kept("input of the norm before attention", e * h),
        Kept("its output", _operand(work) * h, modules=before_attention),
        Kept("input of the norm before the feed-forward", e * h),
        Kept("its output", _operand(work) * h, modules=before_mlp),
    ]
    return lines + ([Kept("masks of both dropouts", 2 * h)] if work.dropout else [])


def _attention(work: Workload, layout: Layout) -> list[Kept]:
    shape, e = work.shape, work.element_bytes
    d, a, g = shape.head_dim, shape.heads, max(shape.kv_groups, layout.tp)  # K and V are copied when t > g
    if isinstance(shape, LatentShape):
        lines = _latent(shape, e)
        output = a * shape.value_dim
    else:
        lines = [Kept("Q", e * a * d, CUT), Kept("K and V", 2 * e * g * d, CUT)]
        output = a * d
    lines.append(Kept("output of attention", e * output, CUT))
    if work.narrow:
        lines.append(Kept("the output once more, as the next product's operand", _operand(work) * a * d, CUT))
    if shape.qk_norm:
        lines.append(Kept("Q and K before their norms", e * (a + shape.kv_groups) * d, CUT))
    return [*lines, scores(work, layout)]


def _latent(shape: LatentShape, e: int) -> list[Kept]:
    """Latent attention: both latents before and after their norms, the keys' position; Q, K, V expanded."""
    ranks, keys = shape.query_rank + shape.kv_rank, shape.plain_dim + shape.rope_dim
    again = ("mla_up_proj",)
    return [
        Kept("both latents", e * ranks),
        Kept("both latents after their norms", e * ranks, modules=again),
        Kept("position of the keys", e * shape.rope_dim),
        Kept("Q and K", 2 * e * shape.heads * keys, CUT, again),
        Kept("V", e * shape.heads * shape.value_dim, CUT, again),
    ]


def scores(work: Workload, layout: Layout) -> Kept:
    """What attention keeps of its scores: flash their log-sum-exp, unfused attention all of them."""
    e, a = work.element_bytes, work.shape.heads
    if work.flash:
        return Kept("log-sum-exp of the scores", 4 * a, CUT, ("core_attn",))
    each = 2 * e + 1 if work.dropout else e
    return Kept("scores", each * a * work.seq_length / layout.cp, CUT, ("core_attn",))


def _feed_forward(work: Workload, layout: Layout) -> list[Kept]:
    shape = work.shape
    if not shape.experts:
        return _mlp(work, shape.ffn, 1, CUT, "mlp")
    k = shape.experts_per_token
    # what is sent and returned goes through without being kept: only the experts' own input is. Under expert
    # TP every rank of the group gathers the group's tokens, and has its share of the width
    each = layout.etp * _operand(work) * shape.hidden
    return [
        Kept("the router's logits and probabilities", 8 * shape.experts, modules=("moe",)),
        Kept("tokens permuted for the experts", k * each, ROUTED, ("moe",)),
        *_mlp(work, shape.expert_ffn, k, ROUTED, "moe", "moe_act"),
        *_mlp(work, shape.shared_expert_ffn, 1, CUT, "moe", "shared_experts", "shared_experts"),
    ]


def _mlp(
    work: Workload, width: int, times: int, region: str, part: str, activation: str = "", whole: str = ""
) -> list[Kept]:
    """The first product's output and the activation's."""
    if not width:
        return []
    gates = 2 if work.shape.activation in GATED else 1
    first = tuple(name for name in (part, whole) if name)
    second = tuple(dict.fromkeys(name for name in (part, activation, whole) if name))
    return [
        Kept("output of the first product", times * work.element_bytes * width * gates, region, first),
        Kept("output of the activation", times * _operand(work) * width, region, second),
    ]
