"""Seconds of one optimizer step of a training role: a first cost model.

    micro-batch  = layers of the fullest stage x (matrix products + attention + exposed TP and EP) + logits
    step         = micro-batch x (m + (p - 1) / v) + pipeline sends + exposed gradient reduction + optimizer
Efficiencies are the catalog's; rows are taken as full (`seq_length` tokens), so padded or short rows
run faster than stated. A CPU is not predicted: there a number of the same name only ranks layouts.
"""

from __future__ import annotations

import dataclasses

from specc.plan import Layout
from specc.planner.activations import tokens_per_rank
from specc.planner.hardware import Gpu
from specc.planner.memory import Workload, expert_shard_group, shard_group
from specc.planner.shapes import (
    active_layer_parameters,
    padded_vocab,
    stage_layers,
    stage_parameters,
    training_flops_per_token,
)

TP_EXPOSED = {"te": 0.5, "local": 1.0}
"""Share of tensor-parallel traffic that computation does not hide."""

DP_EXPOSED = 0.5
EP_EXPOSED = 0.6
LINK_ACHIEVED = 0.8  # of the bandwidth on paper
LAUNCH = 60e-6
"""Seconds below which one layer's forward pass does not go: launching its kernels."""

SMALL = 256
"""Tokens of a micro-batch at which matrix products reach half of their efficiency."""

CPU_FLOPS, CPU_CUT, CPU_TOKENS = 5e10, 0.1, 4096
"""What ranks layouts on a CPU and is never shown: FLOP/s of a process, the cost of each cut, and the
tokens of a micro-batch above which a larger one only takes memory."""


def step_seconds(
    work: Workload, layout: Layout, micro_batch: int, recompute: str, gpu: Gpu, node: int
) -> float:
    """Predicted seconds of one optimizer step; `node` is the number of GPUs per node."""
    shape, t = work.shape, layout.tp
    tokens = tokens_per_rank(work, layout, micro_batch)
    micro_batches = max(1, work.global_batch // (micro_batch * layout.dp))
    if gpu.name == "cpu":
        return _rank_on_cpu(work, layout, tokens, micro_batches, recompute)
    products_share, attention_share = gpu.efficiencies(work.precision)
    gemm = gpu.peak_tflops(work.precision) * 1e12 * products_share * tokens / (tokens + SMALL)
    attention = gpu.peak_tflops("fp32" if work.precision == "fp32" else "bf16") * 1e12 * attention_share

    window = min(work.seq_length, shape.sliding_window or work.seq_length)
    products = 2 * tokens * active_layer_parameters(shape) / gemm
    scores = 2 * tokens * shape.heads * shape.head_dim * window / attention
    forward = max((products + scores) / t, LAUNCH)
    passes = (4 if recompute == "full" else 3) if work.trains else 1
    link = _link(gpu, t)
    sends = 10 if work.trains else 4
    tp_bytes = sends * 2 * tokens * shape.hidden * (t - 1) / t
    per_layer = passes * forward + TP_EXPOSED[work.implementation] * tp_bytes / link
    per_layer += _experts(work, layout, tokens, gpu, node)

    logits = 0.0
    if work.head == "language":
        turns = 3 if work.trains else 1
        logits = turns * 2 * tokens * shape.hidden * padded_vocab(shape.vocab, t) / t / gemm
    chunks = stage_layers(shape, layout)
    stages = [sum(chunks[r :: layout.pp]) * per_layer for r in range(layout.pp)]
    stages[-1] += logits
    seconds = max(stages) * (micro_batches + (layout.pp - 1) / layout.vp)
    if layout.pp > 1:
        across = gpu.nic_gb_per_s if layout.tp * layout.cp * layout.dp >= node else gpu.link_gb_per_s
        sent = 2 * layout.vp * tokens * shape.hidden * work.element_bytes / t
        seconds += micro_batches * sent / (LINK_ACHIEVED * max(across, 1) * 1e9)
    return seconds + (_optimizer(work, layout, gpu, node) if work.trains else 0.0)


def forward_seconds(
    work: Workload, layout: Layout, micro_batch: int, rows: int, tokens: int, gpu: Gpu, node: int = 0
) -> float:
    """Predicted seconds of one forward pass over `rows` rows of `tokens` tokens: log-probabilities, values
    or scores, whichever head the work has. `node` is the GPU's usual one where it is not said.
    """
    dealt = max(1, -(-rows // (micro_batch * layout.dp))) * micro_batch * layout.dp
    passed = dataclasses.replace(work, trains=False, seq_length=tokens, texts=1, global_batch=dealt)
    return step_seconds(passed, layout, micro_batch, "none", gpu, node or gpu.gpus_per_node)


def _rank_on_cpu(work: Workload, layout: Layout, tokens: float, micro_batches: int, recompute: str) -> float:
    """A number that orders layouts on a CPU: whole copies of the model before parts of it."""
    flops = training_flops_per_token(work.shape, work.seq_length) * work.seq_length
    flops *= work.texts * work.global_batch
    cuts = layout.tp * layout.pp * layout.cp * layout.ep - 1
    again = 4 / 3 if recompute == "full" else 1.0
    seconds = flops / (CPU_FLOPS * layout.world_size) * (1 + CPU_CUT * cuts) * again
    return seconds + micro_batches * LAUNCH + 1e-6 * max(0.0, tokens - CPU_TOKENS)


def _link(gpu: Gpu, span: int) -> float:
    """Bytes per second between `span` neighbouring GPUs."""
    gb = gpu.link_gb_per_s if span <= gpu.link_domain else gpu.nic_gb_per_s
    return LINK_ACHIEVED * max(gb, 1) * 1e9


def _experts(work: Workload, layout: Layout, tokens: float, gpu: Gpu, node: int) -> float:
    """Seconds per layer that the exchange of tokens between experts adds."""
    if layout.ep == 1 or not work.shape.experts:
        return 0.0
    span = layout.ep * layout.etp
    inside = span <= max(node, gpu.link_domain)
    bandwidth = LINK_ACHIEVED * max(gpu.link_gb_per_s if inside else gpu.nic_gb_per_s, 1) * 1e9
    share = 1 / layout.tp if layout.sequence_parallel else 1
    sent = 4 * tokens * share * work.shape.experts_per_token * work.shape.hidden * work.element_bytes
    return EP_EXPOSED * sent * (layout.ep - 1) / layout.ep / bandwidth


def _optimizer(work: Workload, layout: Layout, gpu: Gpu, node: int) -> float:
    """Seconds of the gradient reduction that stays visible, and of Adam itself."""
    held = stage_parameters(work.shape, layout, 0, work.head)
    group, seconds = shard_group(layout), 0.0
    if group > 1:
        wide = layout.tp * group > node
        bandwidth = LINK_ACHIEVED * max(gpu.nic_gb_per_s if wide else gpu.link_gb_per_s, 1) * 1e9
        sent = (work.gradient_bytes + work.element_bytes) * (held.dense + held.experts) * (group - 1) / group
        seconds += DP_EXPOSED * sent / bandwidth
    share = held.dense / group + held.experts / expert_shard_group(layout)
    return seconds + 6 * 12 * share / (max(gpu.hbm_gb_per_s, 20) * 1e9)
