"""Seconds of one decoder layer for one micro-batch on one rank, part by part.

In come the workload, the layout and the GPU; out comes a `LayerTime`. A rank with T tokens of the micro-batch
(its share of a row under CP) and TP of t takes, forward,

    products    2 T P / t FLOPs           P: parameters that a token meets, experts apart
    experts     2 T k P_e / t FLOPs       k of E experts per token; products of few rows are slower
    attention   4 T a d w / t FLOPs       a heads of d channels, over w earlier tokens on average
    memory      what norms, activations and casts read and write, operands and results of products, weights
    tp cp ep    what is sent, where computation does not hide it

and backward twice of it (attention 2.5 times: flash attention computes its scores once more; weights are read
once more and their gradients added to). FLOPs and bytes are not overlapped: kernels come one after the other.
Sources: arXiv:2205.05198 (TP with sequence parallelism), 2307.08691 (flash attention), 2310.01889 (ring),
Transformer Engine and Megatron-core (what is fused). `fitted` constants are those of tests/published/fit.py.
"""

from __future__ import annotations

from typing import NamedTuple

from specc.plan import Layout, Shape
from specc.planner.activations import mode, tokens_per_rank
from specc.planner.hardware import Gpu, fast_domain
from specc.planner.shapes import GATED, LatentShape, layer_parameters, padded_vocab
from specc.planner.workload import Workload

BACKWARD = 2.0
ATTENTION_BACKWARD = 2.5
"""Times the forward pass: of products, and of attention's FLOPs."""

MEMORY_ACHIEVED = 0.68
"""Share of the memory's bandwidth on paper that norms, activations and casts reach. Fitted."""

LINK_ACHIEVED = 0.8
"""Share of a link's bandwidth on paper that long messages reach: NCCL sums at 235 of 300 GB/s on A100."""

OPERANDS_EXPOSED = 0.46
"""Share of what products read and write that they do not hide behind their own FLOPs. Fitted."""

SLOW_HEADS = 64
"""Channels of a head at which its exponentials take as long as its products: efficiencies are those of heads
of 128 channels, and one of 64 is a quarter slower (flash attention's own tables)."""

RING_BYTES = 12
"""Bytes per channel of the output that each round of the ring reads and writes to sum it up in fp32."""

CP_EXPOSED = 0.3
"""Share of the ring's traffic that shows even where attention takes longer: its first round, and waits for
the slowest rank. A guess: published runs are met as well with 0.05 as with 1."""

HALF_ROWS = 510
"""Rows of one expert at which the grouped products reach half of their speed: small ones fill fewer of their
tiles, and every expert is permuted, cast and launched for. Fitted."""

GROUPED = 0.95
"""Efficiency of experts' grouped products, of many rows, over that of one large product. Fitted."""

LAUNCH = 60e-6
EXPERTS_LAUNCH = 1.3e-3
"""Seconds below which the forward pass of a layer, or of one with experts, does not go: its kernels are
launched one by one, and the numbers of tokens per expert go through the host. Fitted."""

LOSS_BYTES = 32
"""Bytes that the cross entropy moves per logit, forward and backward: fp32 copies, exponentials, gradient."""


class Speeds(NamedTuple):
    """What one GPU does per second, as it is reached in training."""

    products: float  # FLOPs of the layers' products, in the workload's precision
    wide: float  # FLOPs of products in 16 bits (or fp32): the logits
    attention: float
    memory: float  # bytes, as are the others
    link: float
    nic: float
    host: float


def speeds(gpu: Gpu, precision: str) -> Speeds:
    wide = "fp32" if precision == "fp32" else "bf16"
    return Speeds(
        gpu.peak_tflops(precision) * 1e12 * gpu.efficiency(precision),
        gpu.peak_tflops(wide) * 1e12 * gpu.efficiency(wide),
        gpu.peak_tflops(wide) * 1e12 * gpu.attention_efficiency,
        MEMORY_ACHIEVED * max(gpu.hbm_gb_per_s, 20) * 1e9,
        LINK_ACHIEVED * max(gpu.link_gb_per_s, 1) * 1e9,
        LINK_ACHIEVED * max(gpu.nic_gb_per_s, 1) * 1e9,
        max(gpu.host_gb_per_s, 1) * 1e9,
    )


class Forward(NamedTuple):
    """What one layer's forward pass asks of a rank: FLOPs and bytes."""

    products: float
    experts: float  # FLOPs, padded
    attention: float
    moved: float  # bytes of activations that norms, activations and casts read and write
    operands: float  # bytes of activations that products and attention do
    weights: float  # bytes of weights
    parameters: float  # on this rank
    tp: float  # bytes sent
    ring: float
    ep: float


class LayerTime(NamedTuple):
    """Seconds, forward and backward; `again` is the forward pass that recomputing the whole layer adds."""

    products: float
    experts: float
    attention: float
    memory: float
    tp: float
    cp: float
    ep: float
    recompute: float  # of the parts that selective recomputation names
    launch: float  # the rest of the time that the host takes to launch
    total: float  # of all above
    again: float


def forward(work: Workload, layout: Layout, micro_batch: int, plain: bool = False) -> Forward:
    """One layer (a `plain` one has no experts though others have), on one rank, forward."""
    shape, t = work.shape, layout.tp
    tokens = tokens_per_rank(work, layout, micro_batch)
    layer = layer_parameters(shape, plain)
    met, element = layer.sharded + layer.replicated, work.element_bytes
    k = shape.experts_per_token if layer.experts else 0
    heads, residual = shape.heads * shape.head_dim / t, 1 / t if layout.sequence_parallel else 1.0
    cut = layout.ep * layout.etp
    held = (layer.sharded / t + layer.replicated, layer.experts / cut)
    padded = 0.0
    if k:
        rows = tokens / t * k * cut / shape.experts  # of each of this rank's experts
        padded = 2 * tokens * layer.experts / shape.experts * k / t * (1 + HALF_ROWS / rows)
    groups = max(shape.kv_groups, t) / t * shape.head_dim
    if isinstance(shape, LatentShape):
        groups = heads
    keys = 2 * element * tokens * groups
    weight = 1 if work.narrow else element
    moved, operands = _activation_bytes(work, layout, k, residual)
    if layout.cp > 1:
        moved += layout.cp * RING_BYTES * heads
    return Forward(
        products=2 * tokens * met / t,
        experts=padded,
        attention=4 * tokens * heads * mean_window(shape, work.seq_length) * head_slowness(shape.head_dim),
        moved=tokens * moved,
        operands=tokens * operands,
        weights=weight * sum(held),
        parameters=sum(held),
        tp=2
        * (element + weight)
        * tokens
        * shape.hidden
        * (t - 1)
        / t,  # gathered as operands, summed in 16 bits
        ring=keys * (layout.cp - 1),
        ep=2 * element * tokens * residual * k * shape.hidden,
    )


def head_slowness(head_dim: int) -> float:
    """How much longer attention takes per FLOP than with heads of 128 channels."""
    return (1 + SLOW_HEADS / head_dim) / (1 + SLOW_HEADS / 128)


def mean_window(shape: Shape, seq_length: int) -> float:
    """Earlier tokens that a token looks at on average: half of the row, less with a window."""
    window = min(seq_length, shape.sliding_window or seq_length)
    return window * (1 - window / (2 * seq_length))


def _activation_bytes(work: Workload, layout: Layout, k: int, residual: float) -> tuple[float, float]:
    """Bytes that a token's activations move through memory in one layer, forward, on one rank: by norms,
    activations and casts, and by products and attention.

    Norms and residual sums read and write 10 h; rotation and the activation function read and write theirs;
    a narrow operand is read once more and written twice as bytes. Products read and write what goes in and
    comes out, of which h is whole on every TP rank. Sending k copies to experts and back moves 8 k h.
    """
    shape, t = work.shape, layout.tp
    h, e = shape.hidden, work.element_bytes
    heads, gates = shape.heads * shape.head_dim / t, 2 if shape.activation in GATED else 1
    groups = max(shape.kv_groups, t) / t * shape.head_dim
    ffn = (shape.shared_expert_ffn if k else shape.ffn) / t
    moved = 10 * h * residual + 2 * (heads + groups) + (gates + 1) * ffn
    operands = 2 * h + 3 * heads + 4 * groups + heads
    into = h + heads
    if ffn:
        operands += 2 * h + (gates + 1) * ffn
        into += h + ffn
    if k:
        routed = k * residual
        moved += routed * (8 * h + (gates + 1) * shape.expert_ffn)
        operands += routed * (2 * h + (gates + 1) * shape.expert_ffn)
        into += routed * (h + shape.expert_ffn)
    if work.narrow:
        moved += 2 * into
    return e * moved, e * operands


def layer_time(
    work: Workload, layout: Layout, micro_batch: int, recompute: str, gpu: Gpu, node: int, plain: bool = False
) -> LayerTime:
    """Seconds of one layer for one micro-batch."""
    at, once = speeds(gpu, work.precision), forward(work, layout, micro_batch, plain)
    domain = fast_domain(gpu, node)
    products, attention = once.products / at.products, once.attention / at.attention
    experts = once.experts / (at.products * GROUPED)
    memory = (once.moved + OPERANDS_EXPOSED * (once.operands + once.weights)) / at.memory
    shown = gpu.tp_exposed if work.framework == "megatron" else 1.0  # the runtime overlaps none of it
    tp = shown * once.tp / bandwidth(at, layout.tp, domain)
    ring = once.ring / bandwidth(at, layout.tp * layout.cp, domain)
    cp = max(CP_EXPOSED * ring, ring - attention)
    ep = exchange_seconds(once.ep, layout.ep * layout.etp, work.shape.experts_per_token, at, domain)
    floor = EXPERTS_LAUNCH if once.experts else LAUNCH
    computed = products + experts + attention + memory
    launch = max(0.0, floor - computed)
    again = computed + launch + tp + cp + ep
    if not work.trains:
        return LayerTime(products, experts, attention, memory, tp, cp, ep, 0.0, launch, again, 0.0)
    both = 1 + BACKWARD
    back = max(CP_EXPOSED * 2 * ring, 2 * ring - ATTENTION_BACKWARD * attention)
    gradients = gradient_traffic(work) * once.parameters
    operands = both * once.operands + 2 * once.weights + gradients
    found = (
        both * products,
        both * experts,
        (1 + ATTENTION_BACKWARD) * attention,
        (both * once.moved + OPERANDS_EXPOSED * operands) / at.memory,
        2 * tp,
        cp + back,
        2 * ep,
        _selected(work, layout, micro_batch, once, at, ep) if recompute == "selective" else 0.0,
        max(0.0, both * (floor - computed)),
    )
    return LayerTime(*found, sum(found), again)


def gradient_traffic(work: Workload) -> float:
    """Bytes per parameter that adding to its gradient reads and writes; where the product does not add to it
    itself (the runtime's), its result is written and read besides.
    """
    added = 2 * (4 if work.precision == "fp32" else work.gradient_bytes)
    return added + (2 * work.element_bytes if work.framework == "runtime" else 0)


def bandwidth(at: Speeds, span: int, domain: int) -> float:
    """Bytes per second that a GPU sends to its neighbours in a group over `span` GPUs."""
    return at.link if span <= domain else at.nic


def exchange_seconds(sent: float, span: int, copies: int, at: Speeds, domain: int) -> float:
    """Seconds of an exchange among `span` GPUs of `sent` bytes, each token in so many copies.

    What goes to other domains (nodes) goes there once per domain, and on over the fast link: of n domains the
    copies reach n (1 - (1 - 1/n)^copies), their own among them.
    """
    if span <= 1 or not copies:
        return 0.0
    near = sent * (span - 1) / span / at.link
    if span <= domain:
        return near
    domains = span / domain
    reached = domains * (1 - (1 - 1 / domains) ** copies)
    return near + sent / copies * reached * (domains - 1) / domains / at.nic


def _selected(
    work: Workload, layout: Layout, micro_batch: int, once: Forward, at: Speeds, ep: float
) -> float:
    """Seconds of computing again the parts of a layer that selective recomputation names."""
    shape, t = work.shape, layout.tp
    drops = mode(work, "selective").drops
    tokens, element = tokens_per_rank(work, layout, micro_batch), work.element_bytes
    routed = tokens * (1 / t if layout.sequence_parallel else 1.0) * shape.experts_per_token
    gates, plain = 2 if shape.activation in GATED else 1, not once.experts
    seconds = 0.0
    if drops("core_attn"):
        seconds += once.attention / at.attention
    if drops("layernorm"):
        seconds += 4 * element * tokens * shape.hidden / t / at.memory
    if drops("mla_up_proj") and isinstance(shape, LatentShape):
        seconds += 2 * tokens * _up_projections(shape) / t / at.products
    if drops("mlp") and plain:
        seconds += 2 * tokens * (gates + 1) * shape.hidden * shape.ffn / t / at.products
    if once.experts and drops("moe"):
        seconds += (
            once.experts / (at.products * GROUPED) + ep + element * routed * 10 * shape.hidden / at.memory
        )
    elif once.experts and drops("moe_act"):
        seconds += element * routed * (gates + 1) * shape.expert_ffn / at.memory
    if once.experts and (drops("moe") or drops("shared_experts")):
        seconds += 2 * tokens * (gates + 1) * shape.hidden * shape.shared_expert_ffn / t / at.products
    return seconds


def _up_projections(shape: LatentShape) -> int:
    """Parameters that expand the latents to queries, keys and values."""
    queries = shape.query_rank * shape.heads * (shape.plain_dim + shape.rope_dim)
    return queries + shape.kv_rank * shape.heads * (shape.plain_dim + shape.value_dim)


def head_time(work: Workload, layout: Layout, micro_batch: int, gpu: Gpu) -> float:
    """Seconds of the logits and their loss for one micro-batch, in 16 bits whatever the layers' precision;
    nothing for a head of one or few numbers.
    """
    if work.head != "language":
        return 0.0
    at, shape = speeds(gpu, work.precision), work.shape
    logits = tokens_per_rank(work, layout, micro_batch) * padded_vocab(shape.vocab, layout.tp) / layout.tp
    turns = 1 + BACKWARD if work.trains else 1.0
    moved = LOSS_BYTES if work.trains else LOSS_BYTES / 2
    return turns * 2 * logits * shape.hidden / at.wide + moved * logits / at.memory
