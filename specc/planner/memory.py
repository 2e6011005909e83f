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

import dataclasses
import functools
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
from specc.planner.feasibility import GIB, oom_probability, outside_bytes
from specc.planner.hardware import Gpu
from specc.planner.shapes import (
    GATED,
    StageParameters,
    cache_cuts,
    dense_form,
    dense_layers,
    first_layers,
    kv_bytes_per_token,
    padded_vocab,
    parameters,
    stage_layers,
    stage_parameters,
)
from specc.planner.workload import Workload

__all__ = [
    "GIB",
    "Workload",
    "in_flight",
    "layer_activations",
    "logit_bytes",
    "oom_probability",
    "outside_bytes",
]

WORKSPACE = 0.11e9
"""cuBLAS and attention workspaces, bytes; fitted on H100 runs of Megatron-LM (0.07e9 on A100)."""

EXPERTS_WORKSPACE = 0.3e9
"""What a rank with experts holds beyond that between two steps: workspaces of grouped products on several
streams, and dispatchers' buffers; 0.2 to 0.4e9 in Megatron-LM's single-node tests."""


def shard_group(layout: Layout) -> int:
    """Ranks that share the optimizer state of dense parameters."""
    return layout.dp * layout.cp


def expert_shard_group(layout: Layout) -> int:
    """Ranks that share the optimizer state of the same experts."""
    return max(1, layout.tp * layout.cp * layout.dp // (layout.ep * layout.etp))


def model_state(work: Workload, layout: Layout, held: StageParameters) -> tuple[float, float, float]:
    """Bytes of weights, gradients and optimizer state for the parameters that a rank holds.

    Adam in bf16: 2 weights, 4 (or 2) gradients, 12 for the fp32 master and two moments, the last
    divided over the shard group under the distributed optimizer; precision-aware Adam keeps moments of 2
    or 1 bytes, and of the master perhaps only what bf16 cuts off. In fp32 the weights are their own
    master: 4, 4 and 8. fp16 gradients have an fp32 copy beside the master: 2, 2 and 16. fp8 keeps each
    weight and its transpose, which together are as large as the bf16 weight, or one of them. Offloading
    takes the two moments off the GPU (8), not the master. Moments are made in the first step: until
    then a rank holds so much less, and a run that does not fit dies in its second one.
    """
    count = held.dense + held.experts
    weights = float(work.element_bytes * count)
    if work.narrow and (work.generates or work.narrow_weights):
        weights /= 2
    if not work.trains:
        return weights, 0.0, 0.0
    gradients = (4 if work.precision == "fp32" else work.gradient_bytes) * count
    per_parameter = optimizer_bytes(work)
    if not work.distributed_optimizer:
        return weights, float(gradients), float(per_parameter * count)
    copies = work.optimizer_instances
    shared = held.dense / max(1, shard_group(layout) // copies)
    shared += held.experts / max(1, expert_shard_group(layout) // copies)
    return weights, float(gradients), per_parameter * shared


def optimizer_bytes(work: Workload) -> float:
    """Bytes of Adam's state per parameter on the GPU, before it is shared."""
    kept = {"fp32": 0, "fp16": 8 if work.gradient_bytes == 2 else 4}.get(work.precision, work.master_bytes)
    return kept + work.moment_bytes * (1 - work.offload_fraction if work.offload == "optimizer" else 1)


def cache_bytes(work: Workload, layout: Layout, micro_batch: int, layers: int) -> float:
    """Bytes of keys and values that a stage of so many layers caches for `micro_batch` whole rows.

    A group that no rank has to itself is copied: more TP than groups saves nothing.
    """
    per_token = kv_bytes_per_token(work.shape, work.element_bytes) / work.shape.layers * layers
    return per_token * tokens_per_rank(work, layout, micro_batch) / cache_cuts(work.shape, layout.tp)


# --- the peak --------------------------------------------------------------------------------------


def workspace_bytes(work: Workload, cuda: bool = True) -> float:
    """Bytes that libraries hold inside the allocator."""
    if not cuda:
        return 0.0
    return WORKSPACE + (EXPERTS_WORKSPACE if work.shape.experts else 0.0)


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
    dense: ChunkBytes  # the same of layers without experts, where others have them
    unlucky: float  # per layer, of experts that get more than their share
    live: float  # of the one layer that is computed again, or forward only
    hidden: float  # between two layers
    inputs: float  # of the embedding on the first stage, until its backward pass
    head: float  # on the last stage, beside its logits
    logits: float  # on the last stage
    gradient: float  # of one weight, before it is added to the sum


class _Flows:
    """The flows of a workload, by what of a layout and its micro-batch they depend on: a search asks for the
    same ones again and again, for work with no and with some layers recomputed in turn. A workload is no key
    itself, since shapes are not; so the last few are held by which object they are.
    """

    HELD = 256

    def __init__(self) -> None:
        self._found: dict[int, tuple[Workload, dict[tuple[float | str, ...], _Flow]]] = {}

    def of(self, work: Workload, layout: Layout, micro_batch: int, recompute: str) -> _Flow:
        held = self._found.get(id(work))
        if held is None or held[0] is not work:
            if len(self._found) >= self.HELD:
                self._found.clear()
            held = self._found[id(work)] = (work, {})
        cut = layout.tp, layout.cp, layout.etp, layout.sequence_parallel
        key = (*cut, micro_batch, recompute)
        found = held[1].get(key)
        if found is None:
            found = held[1][key] = _flow(work, layout, micro_batch, recompute)
        return found


_flows = _Flows()


def _flow(work: Workload, layout: Layout, micro_batch: int, recompute: str) -> _Flow:
    """What a micro-batch leaves behind; it depends on TP, CP, expert TP and sequence parallelism alone."""
    kept = chunk_bytes(work, layout, micro_batch, recompute) if work.trains else NOTHING
    whole = layer_activations(work, layout, micro_batch)
    again = whole - kept.plain if recompute == "selective" and work.trains else 0.0
    return _Flow(
        kept=kept,
        dense=_of_dense_layers(work, layout, micro_batch, recompute) or kept,
        unlucky=expert_imbalance(work, layout, micro_batch, recompute) if work.trains else 0.0,
        live=(whole if recompute == "full" or not work.trains else again)
        + ring_bytes(work, layout, micro_batch),
        hidden=hidden_bytes(work, layout, micro_batch),
        inputs=input_bytes(work, layout, micro_batch) if work.trains else 0.0,
        head=head_bytes(work, layout, micro_batch),
        logits=logit_bytes(work, layout, micro_batch),
        gradient=_weight_gradient(work, layout),
    )


def _of_dense_layers(work: Workload, layout: Layout, micro_batch: int, recompute: str) -> ChunkBytes | None:
    """What layers without experts keep; None where all layers are alike or nothing is trained."""
    if not dense_layers(work.shape) or not work.trains:
        return None
    plain = dataclasses.replace(work, shape=dense_form(work.shape))
    return chunk_bytes(plain, layout, micro_batch, recompute)


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
    return _stage_peak(
        work, layout, micro_batch, _flows.of(work, layout, micro_batch, recompute), stage, cuda
    )


def _stage_peak(
    work: Workload, layout: Layout, micro_batch: int, flow: _Flow, stage: int, cuda: bool
) -> Peak:
    shape, first, last = work.shape, stage == 0, stage == layout.pp - 1
    chunks = stage_layers(shape, layout)[stage :: layout.pp]
    micro_batches = max(1, work.global_batch // (micro_batch * layout.dp))
    mtp = work.mtp_layers if last and work.trains else 0
    held = stage_parameters(shape, layout, stage, work.head, mtp)
    weights, gradients, optimizer = model_state(work, layout, held)
    turns = in_flight(layout, stage, micro_batches)
    kept, routed = _held(work, layout, flow, stage, turns)
    live = flow.live if kept or not work.trains else 0.0  # a stage may have the embedding or the logits alone
    kept += turns * flow.inputs / layout.vp if first else 0.0
    if mtp:  # beside the layer itself its two inputs, their norms, and both joined
        kept += mtp * (flow.kept.held(1) + 6 * flow.hidden)
        routed += mtp
    workspace = workspace_bytes(work, cuda)
    parts = [
        ("weights", weights),
        ("gradients", gradients),
        ("optimizer", optimizer),
        ("activations", kept + live),
        ("logits", (1 + mtp) * (flow.logits + flow.head) if last else 0.0),
        ("buffers", workspace + flow.gradient + (2 * flow.hidden if layout.pp > 1 else 0.0)),
        ("outside", outside_bytes(layout) if cuda else 0.0),
    ]
    if shape.experts:
        parts.append(("imbalance", flow.unlucky * routed))
    if work.generates:
        parts.append(("cache", cache_bytes(work, layout, micro_batch, sum(chunks))))
    parts += beside(work, layout, held, weights)
    if work.memory_factor != 1.0:  # stated as a part of its own: nothing is hidden in the others
        inside = sum(value for name, value in parts if name not in ("outside", "imbalance"))
        parts.append(("calibration", (work.memory_factor - 1.0) * inside))
    return Peak(tuple(parts), stage)


def beside(
    work: Workload, layout: Layout, held: StageParameters, weights: float
) -> tuple[tuple[str, float], ...]:
    """What lies there whatever the role does: a resident reference, a second engine, other models."""
    found: list[tuple[str, float]] = []
    if work.reference == "resident":
        found.append(("reference", weights))
    if work.engine != "megatron" and work.engine_resident:
        found.append(("engine weights", engine_bytes(work, layout, held)))
    if work.beside:
        found.append(("other models", work.beside))
    return tuple(found)


def engine_bytes(work: Workload, layout: Layout, held: StageParameters) -> float:
    """Weights of a second engine: the whole model cut by TP alone, or what the stage trains, in 16 bits."""
    if not work.engine_resharded:
        return 2.0 * (held.dense + held.experts)
    return 2 * parameters(work.shape) / layout.tp


def _held(work: Workload, layout: Layout, flow: _Flow, stage: int, turns: int) -> tuple[float, float]:
    """Bytes that a stage's layers keep of `turns` micro-batches in flight, each in one chunk, and of how many
    layers with experts. Chunks that are alike are counted together.
    """
    chunks, dense = stage_layers(work.shape, layout), dense_layers(work.shape)
    kept = routed = 0.0
    for experts, plain, count, alike in _chunks_alike(chunks, dense, layout.pp, layout.vp, stage, turns):
        kept += flow.kept.held(experts, count, alike) if experts else 0.0
        kept += flow.dense.held(plain, count, alike) if plain else 0.0
        routed += count * experts
    return kept, routed


@functools.lru_cache(maxsize=8192)
def _chunks_alike(
    layers: tuple[int, ...], dense: int, pp: int, vp: int, stage: int, turns: int
) -> tuple[tuple[int, int, int, int], ...]:
    """Of a stage's chunks: layers with experts and (of the first `dense` of all) without, micro-batches of
    `turns` in flight, and how many chunks are like that.
    """
    without = first_layers(dense, layers)[stage::pp]
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for count, own, plain in zip(turns_of_chunks(pp, vp, turns), layers[stage::pp], without, strict=True):
        turned, alike = found.get((own - plain, plain), (0, 0))
        found[own - plain, plain] = turned + count, alike + 1
    return tuple((*kind, *times) for kind, times in found.items())


def turns_of_chunks(pp: int, vp: int, turns: int) -> tuple[int, ...]:
    """How many of a stage's micro-batches in flight are in each of its chunks: they come in rounds of pp
    through one chunk after the other, and then through the first one again.
    """
    rounds, rest = divmod(turns, pp * vp)
    return tuple(rounds * pp + min(pp, max(0, rest - chunk * pp)) for chunk in range(vp))


def peak(work: Workload, layout: Layout, micro_batch: int, recompute: str, cuda: bool = True) -> Peak:
    """The bytes of the worst stage in its worst phase; of equal stages the first one is named."""
    if not work.rolls_out:
        return step_peak(work, layout, micro_batch, recompute, cuda)
    from specc.planner import phases  # which counts on this module

    worst = phases.peak(phases.phases(work, layout, micro_batch, recompute, cuda))
    return Peak(worst.parts, worst.stage)


def step_peak(work: Workload, layout: Layout, micro_batch: int, recompute: str, cuda: bool = True) -> Peak:
    """The worst stage's bytes in a training step, or in the only phase of a role that is not trained."""
    flow = _flows.of(work, layout, micro_batch, recompute)
    stages = stages_that_may_be_worst(work, layout)
    return max((_stage_peak(work, layout, micro_batch, flow, s, cuda) for s in stages), key=lambda p: p.total)


def stages_that_may_be_worst(work: Workload, layout: Layout) -> tuple[int, ...]:
    """Pipeline stages among which is the fullest one in any phase."""
    layers = stage_layers(work.shape, layout)
    return _stages_that_may_be_worst(layers, dense_layers(work.shape), layout.pp)


@functools.lru_cache(maxsize=4096)
def _stages_that_may_be_worst(layers: tuple[int, ...], dense: int, pp: int) -> tuple[int, ...]:
    """All but inner stages of no larger chunks than the stage before, which has more in flight."""
    if min(layers) == max(layers) and not dense:
        return (0, pp - 1) if pp > 1 else (0,)
    without = first_layers(dense, layers)

    def smaller(stage: int) -> bool:
        if without[stage::pp] != without[stage - 1 :: pp]:
            return False
        return all(
            own <= other for own, other in zip(layers[stage::pp], layers[stage - 1 :: pp], strict=True)
        )

    return tuple(s for s in range(pp) if s in (0, 1, pp - 1) or not smaller(s))


def role_memory(work: Workload, layout: Layout, micro_batch: int, recompute: str, gpu: Gpu) -> Memory:
    """The predicted peak as the plan states it, and those of all phases, GiB rounded to 0.001."""
    from specc.planner import phases

    cuda = gpu.name != "cpu"
    worst = peak(work, layout, micro_batch, recompute, cuda)
    total = worst.total / GIB
    every = phases.phases(work, layout, micro_batch, recompute, cuda, gpu)
    return Memory(
        total_gib=round(total, 3),
        capacity_gib=gpu.usable_gib,
        oom_probability=oom_probability(total, gpu.usable_gib),
        parts={name: round(value / GIB, 3) for name, value in worst.parts},
        worst_rank=worst.stage * layout.tp * layout.cp * layout.dp,
        phases={phase.name: round(phase.gib, 3) for phase in every},
        unverified=tuple(phase.name for phase in every if not phase.verified),
    )
