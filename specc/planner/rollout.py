"""Seconds of what reinforcement learning adds to training: rollouts, refitted weights, a swapped reference.

A replica reads its prompts (prefill, bound by products) and then adds one token at a time to all its rows
(decoding, bound by what must be read: every weight once and the cache of keys and values)

    token = max(bytes / memory bandwidth, FLOPs / products) + sums over TP + sends over PP + host

Rows end at different lengths, so a batch waits for its longest: lengths follow a Weibull distribution cut off
at the longest allowed, of which only the mean (and how far rows spread) has to be known. The batch is static
(Megatron's engine: wave after wave, and rows that are done still cost) or continuous (TensorRT-LLM, vLLM: a
row that is done makes room for the next). A step waits for the slowest replica. Bytes are per GPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from specc.plan import Layout
from specc.planner.hardware import Gpu
from specc.planner.shapes import (
    cache_cuts,
    dense_layers,
    forward_flops_per_token,
    kv_bytes_per_token,
    layer_parameters,
    parameters,
)
from specc.planner.workload import Workload


@dataclass(frozen=True)
class Engine:
    """What generates, as its efficiency."""

    memory: float  # share of the bandwidth on paper that decoding reaches
    products: float  # share of the peak that reading prompts reaches
    layer: float  # seconds per layer and token that the host takes to launch it; 0 where graphs are captured
    host: float  # seconds per token of scheduling and sampling
    continuous: bool  # a row that is done makes room for the next
    shares_prompts: bool  # the samples of one prompt read it once


ENGINES = {
    "megatron": Engine(0.7, 0.5, 0.5e-3, 1e-3, continuous=False, shares_prompts=False),
    "trtllm": Engine(0.7, 0.55, 0.0, 11e-3, continuous=False, shares_prompts=False),
    "vllm": Engine(0.8, 0.55, 0.0, 2e-3, continuous=True, shares_prompts=True),
}
"""TensorRT-LLM's host time, SPREAD and `ppo.OVERHEAD` are fitted, together, on the four step times of PPO
with 70B that NeMo-Aligner publishes: 20 ms a token on 8 H100s, of which captured graphs alone would take 9.
Its 405B row was no part of it. Bandwidth and products are what is usual. Megatron launches each kernel from
Python, half a millisecond per layer (NeMo's own took more: without TensorRT-LLM its step was 6.96 times as
long). Batches are static in both there; vLLM's are continuous, and share the cache of a common prompt."""

ALL_REDUCE = 12e-6
"""Seconds of summing a small message over the tensor-parallel ranks of a node; 8 to 15 us are seen."""

HOP = 15e-6
"""Seconds of a small message to the next pipeline stage."""

SPREAD = 1.0
"""Standard deviation of response lengths over their mean, where it is not known: 1 is that of an exponential
distribution. Fitted, see ENGINES."""

LINK_ACHIEVED = 0.8
"""Of the bandwidth on paper, by messages of many megabytes."""

PARTS = 64
"""Steps of the sums over lengths."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of responses: their mean, the longest allowed, and standard deviation over mean."""

    mean: float
    most: float
    spread: float = SPREAD

    def longest(self, rows: int) -> float:
        """Expected longest of so many responses."""
        return _expected_longest(self, max(1, rows))

    def share_longer(self, tokens: float) -> float:
        """Share of responses with more tokens."""
        scale, power = _weibull(self)
        return 0.0 if tokens >= self.most else math.exp(-((tokens / scale) ** power))


@functools.lru_cache(maxsize=256)
def _weibull(lengths: Lengths) -> tuple[float, float]:
    """Scale and power: the mean of what is cut off at the longest is the mean that is asked for."""
    power = max(lengths.spread, 0.01) ** -1.086
    if lengths.mean >= lengths.most or lengths.spread <= 0:
        return math.inf, power  # every response is as long as allowed
    low, high = lengths.mean / math.gamma(1 + 1 / power), 1e6 * lengths.most
    for _ in range(60):
        scale = math.sqrt(low * high)
        mean = _mean_longest(scale, power, lengths.most, 1)
        low, high = (scale, high) if mean < lengths.mean else (low, scale)
    return math.sqrt(low * high), power


@functools.lru_cache(maxsize=1024)
def _expected_longest(lengths: Lengths, rows: int) -> float:
    if lengths.mean >= lengths.most:
        return lengths.most
    if lengths.spread <= 0:
        return lengths.mean
    scale, power = _weibull(lengths)
    return min(lengths.most, max(lengths.mean, _mean_longest(scale, power, lengths.most, rows)))


def _mean_longest(scale: float, power: float, most: float, rows: int) -> float:
    """The integral of 1 - F(x)^rows up to `most`, F(x) = 1 - exp(-(x / scale)^power)."""
    step = most / (4 * PARTS)
    total = 0.0
    for i in range(4 * PARTS):
        total += 1 - (-math.expm1(-(((i + 0.5) * step / scale) ** power))) ** rows
    return total * step


# --- one token ---------------------------------------------------------------------------------------


def token_seconds(
    work: Workload, layout: Layout, rows: int, context: float, gpu: Gpu, engine: str = ""
) -> float:
    """Seconds in which one replica adds one token to each of `rows` rows of `context` tokens."""
    shape, t = work.shape, layout.tp
    by = ENGINES[engine or work.engine]
    element = 1 if work.narrow else work.element_bytes
    cache = rows * context * kv_bytes_per_token(shape, work.element_bytes) / cache_cuts(shape, t)
    weights = element * read_parameters(work, layout, rows)
    read = (weights + cache) / (by.memory * gpu.hbm_gb_per_s * 1e9)
    flops = rows * forward_flops_per_token(shape, 2 * max(1, round(context))) / t
    products = flops / (gpu.peak_tflops(work.precision) * 1e12 * by.products)
    sums = 2 * shape.layers * ALL_REDUCE if t > 1 else 0.0
    exchanges = 2 * _expert_layers(work) * ALL_REDUCE if layout.ep > 1 else 0.0
    launches = shape.layers * by.layer
    return max(read, products) + sums + exchanges + (layout.pp - 1) * HOP + launches + by.host


def _expert_layers(work: Workload) -> int:
    return work.shape.layers - dense_layers(work.shape) if work.shape.experts else 0


def read_parameters(work: Workload, layout: Layout, rows: int) -> float:
    """Parameters that a replica's GPUs read one after the other for one token of each of `rows` rows.

    Of the experts those that some row goes to: E (1 - (1 - k/E)^rows) of E.
    """
    shape = work.shape
    everything = parameters(shape, work.head)
    if not shape.experts:
        return everything / layout.tp
    experts = _expert_layers(work) * layer_parameters(shape).experts
    cut = max(layout.tp, layout.ep * layout.etp)
    routed = rows * max(1.0, cut / layout.tp)  # rows of all replicas that share the experts
    touched = 1 - (1 - shape.experts_per_token / shape.experts) ** routed
    return (everything - experts) / layout.tp + experts * touched / cut


def prefill_seconds(
    work: Workload, layout: Layout, rows: int, tokens: float, gpu: Gpu, engine: str = ""
) -> float:
    """Seconds in which one replica reads `rows` prompts of `tokens` tokens each (their mean: what it takes
    grows little faster than they do).
    """
    by = ENGINES[engine or work.engine]
    if rows <= 0 or tokens <= 0:
        return 0.0
    flops = rows * tokens * forward_flops_per_token(work.shape, max(1, round(tokens))) / layout.tp
    products = flops / (gpu.peak_tflops(work.precision) * 1e12 * by.products)
    return max(products, token_seconds(work, layout, rows, 0, gpu, engine))


# --- rollouts ----------------------------------------------------------------------------------------


def resharded(layout: Layout) -> Layout:
    """How a second engine lies over the same GPUs: cut by TP alone, so with more replicas."""
    return Layout(tp=layout.tp, dp=layout.dp * layout.cp * layout.pp, ep=layout.ep, etp=layout.etp)


def rollout_seconds(
    work: Workload,
    layout: Layout,
    prompts: int,
    samples: int,
    prompt_tokens: float,
    response_tokens: Lengths,
    rows_at_once: int,
    gpu: Gpu,
    engine: str = "",
) -> float:
    """Seconds until `samples` responses to each of `prompts` prompts are there, shared by the replicas of
    `layout` (that of the engine: `resharded` where it is not the training's).
    """
    name = engine or work.engine
    by, replicas = ENGINES[name], max(1, layout.dp * layout.cp)
    rows = -(-prompts * samples // replicas)
    batch = max(1, min(rows_at_once, rows))
    read = -(-prompts // replicas) if by.shares_prompts else rows
    seconds = prefill_seconds(work, layout, read, prompt_tokens, gpu, name)

    def token(active: float, position: float) -> float:
        return token_seconds(work, layout, max(1, round(active)), prompt_tokens + position, gpu, name)

    everywhere = min(prompts * samples, batch * replicas)
    slowest = response_tokens.longest(everywhere)
    if not by.continuous:
        waves = -(-rows // batch)
        usual = response_tokens.longest(batch)
        seconds += (waves - 1) * usual * token(batch, usual / 2)
        return seconds + slowest * token(batch, slowest / 2)
    full = (rows - batch) / batch * response_tokens.mean * token(batch, response_tokens.mean / 2)
    return seconds + full + _drain(response_tokens, batch, slowest, token)


def _drain(lengths: Lengths, batch: int, slowest: float, token: Callable[[float, float], float]) -> float:
    """Seconds of the last rows of a continuous batch, of which fewer and fewer are left."""
    step, total = slowest / PARTS, 0.0
    for i in range(PARTS):
        position = (i + 0.5) * step
        total += step * token(batch * lengths.share_longer(position), position)
    return total


def generation_seconds(work: Workload, layout: Layout, rows: int, gpu: Gpu) -> float:
    """Seconds until every row of the global batch has its `seq_length` tokens, `rows` at a time on each
    replica: for a question that says neither prompts nor lengths, all are generated, and equally long.
    """
    lengths = Lengths(work.seq_length, work.seq_length)
    return rollout_seconds(work, layout, work.global_batch, 1, 0, lengths, rows, gpu)


# --- weights on the move -----------------------------------------------------------------------------


def refit_seconds(work: Workload, layout: Layout, gpu: Gpu, node: int = 0, engine: str = "") -> float:
    """Seconds until the engine has the weights that were just trained; 0 for Megatron's, which uses them as
    they lie, unless it `folds` the stages of a pipeline.

    A second engine is cut by TP alone: of its share 2N/t each GPU has what its own stage holds, and gets the
    rest from the other stages, over NVLink where they are within it, else over its NIC; then all is written
    once into the engine's memory.
    """
    own = (engine or work.engine) == "megatron"
    if own and not work.folds:
        return 0.0
    share = (work.element_bytes if own else 2) * parameters(work.shape, work.head) / layout.tp
    moved = share * (layout.pp - 1) / layout.pp
    inside = layout.world_size <= _domain(gpu, node)
    bandwidth = LINK_ACHIEVED * (gpu.link_gb_per_s if inside else gpu.nic_gb_per_s) * 1e9
    if own:
        return moved / max(bandwidth, 1e9)
    return moved / max(bandwidth, 1e9) + 2 * share / (LINK_ACHIEVED * max(gpu.hbm_gb_per_s, 20) * 1e9)


def swap_seconds(work: Workload, layout: Layout, gpu: Gpu) -> float:
    """Seconds in which a rank's weights go to the host and others of the same shape take their place."""
    held = work.element_bytes * parameters(work.shape, work.head) / (layout.tp * layout.pp)
    return 2 * held / (max(gpu.host_gb_per_s, 1) * 1e9)


def offload_seconds(bytes_held: float, gpu: Gpu) -> float:
    """Seconds in which so many bytes of a rank go to the host, or come back."""
    return bytes_held / (max(gpu.host_gb_per_s, 1) * 1e9)


def _domain(gpu: Gpu, node: int) -> int:
    """GPUs that talk over the fast link."""
    return gpu.link_domain if gpu.link_domain > gpu.gpus_per_node else node or gpu.gpus_per_node
