"""Bytes of activations: what a layer keeps for its backward pass, how often, and the logits.

`te` is the table of Transformer Engine's fused layers; `local` that of Megatron's plain layers with our
attention, which keep a few more tensors. Sources: arXiv:2205.05198 (dense, MHA), arXiv:2104.04473
(interleaved schedule); gated products, grouped queries, experts, fp8 and context parallelism are counted
tensor by tensor from Megatron-core.
"""

from __future__ import annotations

from specc.plan import Layout
from specc.planner.shapes import GATED, LatentShape, padded_vocab
from specc.planner.workload import Workload

IMBALANCE = 1.1
"""Expert activations of the most loaded rank over the mean: 1.1 to 1.3 are seen in uneven loads."""


def tokens_per_rank(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Tokens of one micro-batch that a context-parallel rank has."""
    return work.seq_length * micro_batch / layout.cp


def layer_activations(work: Workload, layout: Layout, micro_batch: int, recompute: str = "none") -> float:
    """Bytes that one decoder layer keeps for the backward pass of one micro-batch, experts evenly loaded.

    Tensors are counted per token: in the residual region (divided by TP only under sequence
    parallelism) and in the TP region. For a GPT with dropout and unfused attention this is
    sbh (10 + 24/t + 5as/ht) without and sbh (34/t + 5as/ht) with sequence parallelism (2205.05198).
    """
    shape, e = work.shape, work.element_bytes
    h, t = shape.hidden, layout.tp
    residual = 1 / t if layout.sequence_parallel else 1.0
    tokens = tokens_per_rank(work, layout, micro_batch)
    if recompute == "full":
        return e * h * tokens * residual
    operand = 1 if work.precision == "fp8" else e  # what a matrix product keeps of its input
    outer = 2 * (e + operand) * h + (2 * h if work.dropout else 0)  # both norms' inputs and outputs, masks
    inner = _attention(work, layout, recompute)
    if isinstance(shape, LatentShape):  # both latents before and after their norms, and the keys' position
        outer += 2 * e * (shape.query_rank + shape.kv_rank) + e * shape.rope_dim
    if work.implementation == "local":
        outer += 2 * 4 * h  # the norms' reciprocal and fp32 copies
        inner += e * (shape.heads + shape.kv_groups) * shape.head_dim  # Q and K before rotation
    if shape.experts:
        outer += _experts(work, layout) + 8 * shape.experts  # the router's logits and probabilities
        inner += _mlp(work, shape.shared_expert_ffn)
    else:
        inner += _mlp(work, shape.ffn)
    return tokens * (outer * residual + inner / t)


def expert_imbalance(work: Workload, layout: Layout, micro_batch: int, recompute: str = "none") -> float:
    """Bytes per layer and micro-batch that the most loaded rank's experts keep above the mean."""
    if not work.shape.experts or recompute == "full":
        return 0.0
    residual = 1 / layout.tp if layout.sequence_parallel else 1.0
    tokens = tokens_per_rank(work, layout, micro_batch)
    return (IMBALANCE - 1) * tokens * residual * _experts(work, layout)


def _attention(work: Workload, layout: Layout, recompute: str) -> float:
    """Bytes per token of attention, to be divided by TP: Q, K, V, output, and what the scores keep."""
    shape, e = work.shape, work.element_bytes
    d, a, g = shape.head_dim, shape.heads, max(shape.kv_groups, layout.tp)  # K and V are copied when t > g
    kept = e * a * d + 2 * e * g * d + e * a * d
    if isinstance(shape, LatentShape):
        keys = shape.plain_dim + shape.rope_dim
        kept = e * a * (2 * keys + 2 * shape.value_dim)
    if work.precision == "fp8":
        kept += a * d  # the output once more, as the next product's operand
    if shape.qk_norm:
        kept += e * (a + shape.kv_groups) * d
    if work.flash:
        kept += 0 if recompute == "selective" else 4 * a  # log-sum-exp
    elif recompute != "selective":
        kept += (2 * e + 1 if work.dropout else e) * a * work.seq_length / layout.cp
    return kept


def _mlp(work: Workload, width: int) -> float:
    """Bytes per token: the first product's output and the activation's."""
    e = work.element_bytes
    gates = 2 if work.shape.activation in GATED else 1
    unfused = e * width if work.implementation == "local" and gates == 2 else 0
    return e * width * gates + (1 if work.precision == "fp8" else e) * width + unfused


def _experts(work: Workload, layout: Layout) -> float:
    """Bytes per token of the residual region: dispatch, expert products, combination.

    Under expert TP every rank of the group gathers the group's tokens, and has its share of the width.
    """
    shape, e = work.shape, work.element_bytes
    copies = (3 if layout.ep > 1 else 2) * layout.etp  # permuted in, expert out, and what was sent
    return shape.experts_per_token * (copies * e * shape.hidden + _mlp(work, shape.expert_ffn))


def in_flight(layout: Layout, stage: int, micro_batches: int) -> int:
    """Micro-batches (of one chunk each) whose activations a stage holds at its worst moment.

    1F1B: min(m, p - r). Interleaved: min(m v, 2 (p - r - 1) + (v - 1) p + 1) chunks (2104.04473).
    """
    p, v = layout.pp, layout.vp
    if v == 1:
        return min(micro_batches, p - stage)
    return min(micro_batches * v, 2 * (p - stage - 1) + (v - 1) * p + 1)


def logit_bytes(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Bytes of logits and loss on the last stage; nothing for a head that is not a language model's.

    Megatron's vocabulary-parallel cross entropy keeps the logits and an fp32 softmax, an actor's loss
    another fp32 copy for the entropy. Our log-probabilities go block by block and put the gradient in the
    logits' place. Generation makes the logits of the last position only, in fp32 for sampling.
    """
    if work.head != "language":
        return 0.0
    rows = micro_batch if work.generates else tokens_per_rank(work, layout, micro_batch)
    copies = 0 if work.framework == "runtime" and work.trains else 8 if work.phase == "actor" else 4
    return (work.element_bytes + copies) * rows * padded_vocab(work.shape.vocab, layout.tp) / layout.tp


def ring_bytes(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Bytes that ring attention over CP holds at once: two rounds of K and V with their gradients, and the
    output in fp32 with which the rounds are summed up.
    """
    if layout.cp == 1:
        return 0.0
    shape, t = work.shape, layout.tp
    keys = 2 * 2 * work.element_bytes * max(shape.kv_groups, t) * shape.head_dim / t
    sums = 4 * shape.heads * (shape.head_dim + 1) / t
    return tokens_per_rank(work, layout, micro_batch) * (keys + sums)
