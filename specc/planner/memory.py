"""Bytes per GPU of one role under one layout, and how likely it runs out.

The peak of a rank is
    weights + gradients + optimizer + activations in flight + logits + buffers     inside the allocator
    + imbalance of experts                                                         for the unlucky rank
    + CUDA context and communicators                                               outside of it
and the worst pipeline stage counts. A role that generates holds weights, the cache of keys and values, and
one layer's activations. Sources: Megatron-core's own arithmetic and those named in `activations`; the
constants named below say where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass

from specc.plan import Layout, Memory
from specc.planner.activations import (
    NOTHING,
    ChunkBytes,
    chunk_bytes,
    expert_imbalance,
    head_bytes,
    hidden_bytes,
    in_flight,
    input_bytes,
    layer_activations,
    logit_bytes,
    ring_bytes,
    tokens_per_rank,
)
from specc.planner.hardware import Gpu
from specc.planner.shapes import (
    GATED,
    StageParameters,
    cache_cuts,
    kv_bytes_per_token,
    padded_vocab,
    stage_layers,
    stage_parameters,
)
from specc.planner.workload import Workload

__all__ = ["Workload", "in_flight", "layer_activations", "logit_bytes"]

GIB = 1 << 30

WORKSPACE = 0.11e9
"""cuBLAS and attention workspaces, bytes; fitted on H100 runs of Megatron-LM (0.07e9 on A100)."""

CONTEXT = 0.8e9
"""CUDA context and the libraries' modules, bytes; 0.5 to 0.9 GiB are seen."""

COMMUNICATORS, COMMUNICATOR, COMMUNICATORS_MOST = 1.2e9, 0.35e9, 5.2e9
"""NCCL buffers, bytes: at the first communicator, for each further group, and at most."""

SURE, LOST = 0.86, 0.97
"""Shares of the device between which a run goes from safe to lost, with expandable segments: above
the allocated bytes lies fragmentation of 3 to 14 %."""


def shard_group(layout: Layout) -> int:
    """Ranks that share the optimizer state of dense parameters."""
    return layout.dp * layout.cp


def expert_shard_group(layout: Layout) -> int:
    """Ranks that share the optimizer state of the same experts."""
    return max(1, layout.tp * layout.cp * layout.dp // (layout.ep * layout.etp))


def model_state(work: Workload, layout: Layout, held: StageParameters) -> tuple[float, float, float]:
    """Bytes of weights, gradients and optimizer state for the parameters that a rank holds.

    Adam in bf16: 2 weights, 4 (or 2) gradients, 12 for the fp32 master and two moments, the last
    divided over the shard group under the distributed optimizer. In fp32 the weights are their own
    master: 4, 4 and 8. fp16 gradients have an fp32 copy beside the master: 2, 2 and 16. fp8 keeps each
    weight and its transpose, which together are as large as the bf16 weight. Offloading takes the two
    moments off the GPU (8), not the master.
    """
    count = held.dense + held.experts
    weights = float(work.element_bytes * count)
    if work.generates and work.narrow:
        weights /= 2
    if not work.trains:
        return weights, 0.0, 0.0
    gradients = (4 if work.precision == "fp32" else work.gradient_bytes) * count
    per_parameter = optimizer_bytes(work)
    if not work.distributed_optimizer:
        return weights, float(gradients), float(per_parameter * count)
    shared = held.dense / shard_group(layout) + held.experts / expert_shard_group(layout)
    return weights, float(gradients), per_parameter * shared


def optimizer_bytes(work: Workload) -> int:
    """Bytes of Adam's state per parameter on the GPU, before it is shared."""
    copies = {"fp32": 0, "fp16": 8 if work.gradient_bytes == 2 else 4}.get(work.precision, 4)
    return copies + (0 if work.offload == "optimizer" else 8)


def cache_bytes(work: Workload, layout: Layout, micro_batch: int, layers: int) -> float:
    """Bytes of keys and values that a stage of so many layers caches for `micro_batch` whole rows.

    A group that no rank has to itself is copied: more TP than groups saves nothing.
    """
    per_token = kv_bytes_per_token(work.shape, work.element_bytes) / work.shape.layers * layers
    return per_token * tokens_per_rank(work, layout, micro_batch) / cache_cuts(work.shape, layout.tp)


# --- the peak --------------------------------------------------------------------------------------


def outside_bytes(layout: Layout) -> float:
    """Bytes that the framework's allocator does not see: the CUDA context and NCCL's buffers."""
    groups = (layout.tp > 1) + 2 * (layout.pp > 1) + (layout.dp > 1) + 2 * (layout.cp > 1) + (layout.ep > 1)
    if not groups:
        return CONTEXT
    return CONTEXT + min(COMMUNICATORS + COMMUNICATOR * groups, COMMUNICATORS_MOST)


def oom_probability(total_gib: float, capacity_gib: float) -> float:
    """How likely a peak of `total_gib` runs out: 0 up to SURE of the device, 1 from LOST on."""
    if capacity_gib <= 0:  # a CPU: not judged
        return 0.0
    share = total_gib / capacity_gib
    return round(min(1.0, max(0.0, (share - SURE) / (LOST - SURE))), 3)


@dataclass(frozen=True)
class Peak:
    """Bytes at the worst rank, by part."""

    parts: tuple[tuple[str, float], ...]
    stage: int

    @property
    def total(self) -> float:
        return sum(value for _, value in self.parts)

    @property
    def allocated(self) -> float:
        """What the framework's own peak counter shows where experts are evenly loaded."""
        return sum(value for name, value in self.parts if name not in ("outside", "imbalance"))


@dataclass(frozen=True)
class _Flow:
    """Bytes of one micro-batch on its way through any stage; the same for all of them."""

    kept: ChunkBytes  # until its backward pass, by the layers of a chunk
    unlucky: float  # per layer, of experts that get more than their share
    live: float  # of the one layer that is computed again, or forward only
    hidden: float  # between two layers
    inputs: float  # of the embedding on the first stage, until its backward pass
    head: float  # on the last stage, beside its logits
    logits: float  # on the last stage
    gradient: float  # of one weight, before it is added to the sum


def _flow(work: Workload, layout: Layout, micro_batch: int, recompute: str) -> _Flow:
    kept = chunk_bytes(work, layout, micro_batch, recompute) if work.trains else NOTHING
    whole = layer_activations(work, layout, micro_batch)
    again = whole - kept.plain if recompute == "selective" and work.trains else 0.0
    return _Flow(
        kept=kept,
        unlucky=expert_imbalance(work, layout, micro_batch, recompute) if work.trains else 0.0,
        live=(whole if recompute == "full" or not work.trains else again)
        + ring_bytes(work, layout, micro_batch),
        hidden=hidden_bytes(work, layout, micro_batch),
        inputs=input_bytes(work, layout, micro_batch) if work.trains else 0.0,
        head=head_bytes(work, layout, micro_batch),
        logits=logit_bytes(work, layout, micro_batch),
        gradient=_weight_gradient(work, layout),
    )


def _weight_gradient(work: Workload, layout: Layout) -> float:
    """Bytes of the largest weight gradient, which our layers make before it is added to the sum; Megatron's
    fused products add it at once.
    """
    if not work.trains or work.framework != "runtime":
        return 0.0
    shape, t = work.shape, layout.tp
    gates = 2 if shape.activation in GATED else 1
    width = max(
        gates * (shape.ffn if not shape.experts else shape.shared_expert_ffn), shape.heads * shape.head_dim
    )
    table = padded_vocab(shape.vocab, t) if work.head == "language" else 0
    return work.element_bytes * shape.hidden * max(width, table) / t


def stage_peak(
    work: Workload, layout: Layout, micro_batch: int, recompute: str, stage: int, cuda: bool = True
) -> Peak:
    """The bytes that a rank of one pipeline stage holds at its worst moment."""
    return _stage_peak(work, layout, micro_batch, _flow(work, layout, micro_batch, recompute), stage, cuda)


def _stage_peak(
    work: Workload, layout: Layout, micro_batch: int, flow: _Flow, stage: int, cuda: bool
) -> Peak:
    layers = sum(stage_layers(work.shape, layout)[stage :: layout.pp])
    micro_batches = max(1, work.global_batch // (micro_batch * layout.dp))
    weights, gradients, optimizer = model_state(
        work, layout, stage_parameters(work.shape, layout, stage, work.head)
    )
    chunks = in_flight(layout, stage, micro_batches)
    held = chunks * layers / layout.vp
    first, last = stage == 0, stage == layout.pp - 1
    kept = flow.kept.held(layers / layout.vp, chunks, layout.vp)
    kept += chunks * flow.inputs / layout.vp if first else 0.0
    parts = [
        ("weights", weights),
        ("gradients", gradients),
        ("optimizer", optimizer),
        ("activations", kept + flow.live),
        ("logits", flow.logits + flow.head if last else 0.0),
        (
            "buffers",
            (WORKSPACE if cuda else 0.0) + flow.gradient + (2 * flow.hidden if layout.pp > 1 else 0.0),
        ),
        ("outside", outside_bytes(layout) if cuda else 0.0),
    ]
    if work.shape.experts:
        parts.append(("imbalance", flow.unlucky * held))
    if work.generates:
        parts.append(("cache", cache_bytes(work, layout, micro_batch, layers)))
    return Peak(tuple(parts), stage)


def peak(work: Workload, layout: Layout, micro_batch: int, recompute: str, cuda: bool = True) -> Peak:
    """The worst stage's bytes; of equal stages the first one is named."""
    flow = _flow(work, layout, micro_batch, recompute)
    stages = _stages_that_may_be_worst(work, layout)
    return max((_stage_peak(work, layout, micro_batch, flow, s, cuda) for s in stages), key=lambda p: p.total)


def _stages_that_may_be_worst(work: Workload, layout: Layout) -> list[int]:
    """All but inner stages with no more layers than the one before, which has more in flight."""
    chunks, pp = stage_layers(work.shape, layout), layout.pp
    layers = [sum(chunks[stage::pp]) for stage in range(pp)]
    return [s for s in range(pp) if s in (0, 1, pp - 1) or layers[s] > layers[s - 1]]


def role_memory(work: Workload, layout: Layout, micro_batch: int, recompute: str, gpu: Gpu) -> Memory:
    """The predicted peak as the plan states it, GiB rounded to 0.001."""
    cuda = gpu.name != "cpu"
    worst = peak(work, layout, micro_batch, recompute, cuda)
    total = worst.total / GIB
    return Memory(
        total_gib=round(total, 3),
        capacity_gib=gpu.usable_gib,
        oom_probability=oom_probability(total, gpu.usable_gib),
        parts={name: round(value / GIB, 3) for name, value in worst.parts},
        worst_rank=worst.stage * layout.tp * layout.cp * layout.dp,
    )
