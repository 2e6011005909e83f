"""Seconds of a rollout: a decoding step reads every weight and the cache once, so bandwidth decides."""

from __future__ import annotations

from specc.plan import Layout
from specc.planner.hardware import Gpu
from specc.planner.memory import Workload
from specc.planner.shapes import cache_cuts, forward_flops_per_token, kv_bytes_per_token, parameters

HBM_ACHIEVED = 0.8
PRODUCTS_ACHIEVED = 0.5
"""Shares on paper that decoding reaches: of the memory's bandwidth, of the peak of products."""

ALL_REDUCE = 12e-6
"""Seconds of summing a small message over the tensor-parallel ranks of a node; 8 to 15 us are seen."""

HOST = 1e-3
"""Seconds per token that the host takes for scheduling and sampling."""


def token_seconds(work: Workload, layout: Layout, rows: int, context: float, gpu: Gpu) -> float:
    """Seconds in which one replica adds one token to each of `rows` rows of `context` tokens."""
    shape, t = work.shape, layout.tp
    element = 1 if work.narrow else work.element_bytes
    cache = rows * context * kv_bytes_per_token(shape, work.element_bytes) / cache_cuts(shape, t)
    read = (element * parameters(shape, work.head) / t + cache) / (HBM_ACHIEVED * gpu.hbm_gb_per_s * 1e9)
    flops = rows * forward_flops_per_token(shape, work.seq_length) / t
    peak = gpu.peak_tflops(work.precision) * 1e12
    sums = 2 * shape.layers * ALL_REDUCE if t > 1 else 0.0
    return max(read, flops / (peak * PRODUCTS_ACHIEVED)) + sums + HOST


def rollout_seconds(work: Workload, layout: Layout, rows: int, gpu: Gpu) -> float:
    """Seconds until every row of the global batch is generated, `rows` at a time on each replica.

    Each row gets `seq_length` tokens, one after the other through all stages; the prompt is counted like
    the rest, since its length is not known here.
    """
    waves = -(-work.global_batch // (rows * layout.dp))
    return waves * work.seq_length * token_seconds(work, layout, rows, work.seq_length / 2, gpu)
