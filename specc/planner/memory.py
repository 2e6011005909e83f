"""Bytes per GPU of one role under one layout, and how likely it runs out.

The peak of a rank is
    weights + gradients + optimizer + activations in flight + logits + workspace   inside the allocator
    + CUDA context and communicators                                               outside of it
and the worst pipeline stage counts. Sources: Megatron-core's own arithmetic, arXiv:2205.05198
(activations), arXiv:2104.04473 (interleaved schedule); the constants named below say where they come
from. `te` is the table of Transformer Engine's fused layers, `local` that of our own layers, which
keep a few more tensors for the backward pass; the latter is a first estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

from specc.plan import Layout, Memory, Shape
from specc.planner.hardware import Gpu
from specc.planner.shapes import GATED, StageParameters, padded_vocab, stage_layers, stage_parameters

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

IMBALANCE = 1.2
"""Expert activations of the most loaded rank over the mean; 1.1 is seen in real runs."""


@dataclass(frozen=True)
class Workload:
    """What one role does, apart from where it is put."""

    shape: Shape
    seq_length: int
    global_batch: int
    trains: bool = True
    head: str = "language"  # language | scalar | attributes
    precision: str = "bf16"  # bf16 | fp32
    implementation: str = "te"  # te | local
    distributed_optimizer: bool = True
    gradient_bytes: int = 4  # main gradients are fp32; 2 when they are reduced in bf16
    dropout: bool = False
    flash: bool = True  # attention that keeps no seq x seq matrix
    packing: bool = False  # several rows share one of seq_length

    @property
    def element_bytes(self) -> int:
        return 4 if self.precision == "fp32" else 2


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
    master: 4, 4 and 8.
    """
    count = held.dense + held.experts
    weights = float(work.element_bytes * count)
    if not work.trains:
        return weights, 0.0, 0.0
    gradients = (4 if work.precision == "fp32" else work.gradient_bytes) * count
    per_parameter = 8 if work.precision == "fp32" else 12
    if not work.distributed_optimizer:
        return weights, float(gradients), float(per_parameter * count)
    shared = held.dense / shard_group(layout) + held.experts / expert_shard_group(layout)
    return weights, float(gradients), per_parameter * shared


# --- activations -----------------------------------------------------------------------------------


def layer_activations(work: Workload, layout: Layout, micro_batch: int, recompute: str = "none") -> float:
    """Bytes that one decoder layer keeps for the backward pass of one micro-batch.

    Tensors are counted per token: in the residual region (divided by TP only under sequence
    parallelism) and in the TP region. For a GPT with dropout and unfused attention this is
    sbh (10 + 24/t + 5as/ht) without and sbh (34/t + 5as/ht) with sequence parallelism (2205.05198).
    """
    shape, e = work.shape, work.element_bytes
    h, d, a, g, t = shape.hidden, shape.head_dim, shape.heads, shape.kv_groups, layout.tp
    tokens = work.seq_length * micro_batch / layout.cp
    residual = 1 / t if layout.sequence_parallel else 1.0
    if recompute == "full":
        return e * h * tokens * residual
    mask = h if work.dropout else 0
    outer = 4 * e * h + 2 * mask  # inputs and outputs of both norms, two dropout masks
    inner = e * a * d + 2 * e * max(g, t) * d + e * a * d  # Q, K and V (copied when t > g), attention out
    if shape.qk_norm:
        inner += e * (a + g) * d
    if work.flash:
        inner += 0 if recompute == "selective" else 4 * a  # log-sum-exp
    elif recompute != "selective":
        matrices = (2 * e + 1 if work.dropout else e) * a * work.seq_length
        inner += matrices / layout.cp
    if work.implementation == "local":
        outer += 2 * 4 * h  # the norms' reciprocal and fp32 copies
        inner += e * (a + g) * d  # Q and K before rotation
    if shape.experts:
        outer += _expert_activations(work, layout)
        inner += _mlp_activations(work, shape.shared_expert_ffn)
    else:
        inner += _mlp_activations(work, shape.ffn)
    return tokens * (outer * residual + inner / t)


def _mlp_activations(work: Workload, width: int) -> float:
    """Bytes per token: the first product's output and the activation's."""
    gates = 2 if work.shape.activation in GATED else 1
    unfused = work.element_bytes * width if work.implementation == "local" and gates == 2 else 0
    return work.element_bytes * width * (gates + 1) + unfused


def _expert_activations(work: Workload, layout: Layout) -> float:
    """Bytes per token of the residual region: dispatch, expert products, combination, router."""
    shape, e = work.shape, work.element_bytes
    copies = 3 if layout.ep > 1 else 2  # permuted in, expert out, and what was sent
    routed = copies * e * shape.hidden + _mlp_activations(work, shape.expert_ffn)
    return IMBALANCE * shape.experts_per_token * routed + 8 * shape.experts


def in_flight(layout: Layout, stage: int, micro_batches: int) -> int:
    """Micro-batches (of one chunk each) whose activations a stage holds at its worst moment.

    1F1B: min(m, p - r). Interleaved: min(m v, 2 (p - r - 1) + (v - 1) p + 1) chunks (2104.04473).
    """
    p, v = layout.pp, layout.vp
    if v == 1:
        return min(micro_batches, p - stage)
    return min(micro_batches * v, 2 * (p - stage - 1) + (v - 1) * p + 1)


def logit_bytes(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Bytes of logits and of the vocabulary-parallel cross entropy on the last stage: the logits and
    one fp32 copy of them; nothing for a head that is not a language model's.
    """
    if work.head != "language":
        return 0.0
    tokens = work.seq_length * micro_batch / layout.cp
    return (work.element_bytes + 4) * tokens * padded_vocab(work.shape.vocab, layout.tp) / layout.tp


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


@dataclass(frozen=True)
class _Flow:
    """Bytes of one micro-batch on its way through any stage; the same for all of them."""

    kept: float  # per layer, until its backward pass
    live: float  # of the one layer that is computed again, or forward only
    hidden: float  # between two layers
    logits: float  # on the last stage


def _flow(work: Workload, layout: Layout, micro_batch: int, recompute: str) -> _Flow:
    hidden = work.seq_length * micro_batch / layout.cp * work.shape.hidden * work.element_bytes
    return _Flow(
        kept=layer_activations(work, layout, micro_batch, recompute) if work.trains else 0.0,
        live=layer_activations(work, layout, micro_batch) if recompute == "full" or not work.trains else 0.0,
        hidden=hidden / layout.tp if layout.sequence_parallel else hidden,
        logits=logit_bytes(work, layout, micro_batch),
    )


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
    held = in_flight(layout, stage, micro_batches) * layers / layout.vp
    last = stage == layout.pp - 1
    parts = (
        ("weights", weights),
        ("gradients", gradients),
        ("optimizer", optimizer),
        ("activations", flow.kept * held + flow.live),
        ("logits", flow.logits + 2 * flow.hidden if last else 0.0),
        ("buffers", (WORKSPACE if cuda else 0.0) + (2 * flow.hidden if layout.pp > 1 else 0.0)),
        ("outside", outside_bytes(layout) if cuda else 0.0),
    )
    return Peak(parts, stage)


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
