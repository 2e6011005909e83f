"""Seconds of one optimizer step, or of one forward pass over a batch: a sum of parts with their formulas.

    stage   = its layers (`layer_time`), and the logits on the last one
    step    = slowest stage x m + (all stages - the slowest) / v       m micro-batches, v pieces a stage
              + sends between stages
              + reduction of gradients and gathering of weights, where the last backward and the first
                forward pass of a micro-batch do not hide them
              + optimizer, with its traffic to the host where it is offloaded

so with equal stages the pipeline waits (p - 1) / v micro-batches (2104.04473), and uneven ones go at the pace
of the slowest. Efficiencies are the catalog's. Rows are taken as full (`seq_length` tokens): padded or short
ones run faster than stated. A CPU is not predicted: there a number of the same name only ranks layouts.
`step_seconds` is asked thousands of times by the search, so what a micro-batch takes is kept and shared.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

from specc.plan import Layout
from specc.planner.activations import mode, tokens_per_rank
from specc.planner.hardware import Gpu, fast_domain
from specc.planner.layer_time import LayerTime, Speeds, bandwidth, head_time, layer_time, speeds
from specc.planner.memory import Workload, expert_shard_group, shard_group
from specc.planner.shapes import (
    balanced,
    dense_layers,
    first_layers,
    layer_parameters,
    padded_vocab,
    training_flops_per_token,
)

PP_EXPOSED = 0.4
"""Share of the sends between interleaved stages that shows; of plain 1F1B, and the runtime's, all. Fitted."""

BUCKET = 40e6
"""Parameters whose gradients are reduced together, and whose weights are gathered together, at least."""

HOST_ADAM = 25e9
"""Bytes per second and GPU that Adam on the host's processors moves."""

CPU_FLOPS, CPU_CUT, CPU_TOKENS = 5e10, 0.1, 4096
"""What ranks layouts on a CPU and is never shown: FLOP/s of a process, the cost of each cut, and the
tokens of a micro-batch above which a larger one only takes memory."""

CPU_LAUNCH = 60e-6


def step_seconds(
    work: Workload, layout: Layout, micro_batch: int, recompute: str, gpu: Gpu, node: int
) -> float:
    """Predicted seconds of one optimizer step; `node` is the number of GPUs per node."""
    if gpu.name == "cpu":
        return _rank_on_cpu(work, layout, micro_batch, recompute)
    if work.only_generates:
        from specc.planner.asking import step_of_generation  # which counts on this module

        return step_of_generation(work, layout, micro_batch, gpu)
    each = micro_batch_time(work, layout, micro_batch, recompute, gpu, node)
    domain = fast_domain(gpu, node)
    turns = max(1, work.global_batch // (micro_batch * layout.dp))
    slowest, everything = stage_times(layout, each)
    seconds = slowest * turns + (everything - slowest) / layout.vp
    if layout.pp > 1:
        seconds += turns * sends(work, layout, each, domain)
    if work.trains:
        end = update(work, layout, each, slowest, domain)
        seconds += end.reduce + end.gather + end.optimizer + end.host
        if work.passes:
            seconds += sum(asked_seconds(work, layout, micro_batch, gpu, node))
    return seconds


def asked_seconds(
    work: Workload, layout: Layout, micro_batch: int, gpu: Gpu, node: int
) -> tuple[float, float]:
    """Seconds of a step's passes without gradients, and of weights that trade places for them."""
    from specc.planner.rollout import swap_seconds  # which counts on this module

    once = step_seconds(_asked(work), layout, micro_batch, "none", gpu, node)
    swaps = 2 * swap_seconds(work, layout, gpu) if work.reference == "swap" else 0.0
    return work.passes * once, swaps


_asked_of: dict[int, tuple[Workload, Workload]] = {}


def _asked(work: Workload) -> Workload:
    """The work of one pass; the same object each time, by which what a micro-batch takes is remembered."""
    found = _asked_of.get(id(work))
    if found is None or found[0] is not work:
        if len(_asked_of) >= KEPT:
            _asked_of.clear()
        plain = dataclasses.replace(work, trains=False, passes=0, reference="none")
        found = _asked_of[id(work)] = work, plain
    return found[1]


def forward_seconds(
    work: Workload, layout: Layout, micro_batch: int, rows: int, tokens: int, gpu: Gpu, node: int = 0
) -> float:
    """Predicted seconds of one forward pass over `rows` rows of `tokens` tokens: log-probabilities, values
    or scores, whichever head the work has. `node` is the GPU's usual one where it is not said.
    """
    dealt = max(1, -(-rows // (micro_batch * layout.dp))) * micro_batch * layout.dp
    passed = dataclasses.replace(work, trains=False, seq_length=tokens, texts=1, global_batch=dealt)
    return step_seconds(passed, layout, micro_batch, "none", gpu, node or gpu.gpus_per_node)


# --- a micro-batch -----------------------------------------------------------------------------------


class MicroBatch(NamedTuple):
    """What every layer and the head take for one micro-batch, and what follows from the same few sizes."""

    layer: LayerTime
    plain: LayerTime | None  # of layers without experts, where others have them
    head: float
    at: Speeds
    tokens: float
    layers: int  # of the model
    dense: int  # the first ones, without experts
    mtp: int  # the last ones, which predict tokens further ahead
    again: int  # layers per chunk that are computed again as a whole; -1: all, 0: none
    parameters: tuple[
        float, float, float, float
    ]  # per rank: of a layer, its experts, a plain layer, the table
    alive: tuple[object, object]  # what is known by its identity stays alive as long


_kept: dict[tuple[object, ...], MicroBatch] = {}
_sorts: dict[int, tuple[Workload, int]] = {}
_sort_of: dict[tuple[object, ...], int] = {}
KEPT = 8192
"""Micro-batches, and workloads, that are remembered at most."""


def micro_batch_time(
    work: Workload, layout: Layout, micro_batch: int, recompute: str, gpu: Gpu, node: int
) -> MicroBatch:
    """The same for every number of stages, pieces and copies of the model, so it is asked for once."""
    key = (
        _sort(work), id(gpu), layout.tp, layout.cp, layout.ep, layout.etp, layout.sequence_parallel,
        micro_batch, recompute, node,
    )  # fmt: skip
    found = _kept.get(key)
    if found is None or found.alive[1] is not gpu:
        if len(_kept) >= KEPT:
            _kept.clear()
        found = _kept[key] = _micro_batch(work, layout, micro_batch, recompute, gpu, node)
    return found


def forget() -> None:
    """Ask anew for every micro-batch: a constant has changed."""
    _kept.clear()


def _sort(work: Workload) -> int:
    """The same number for workloads that differ in their global batch only: no micro-batch depends on it."""
    found = _sorts.get(id(work))
    if found is not None and found[0] is work:
        return found[1]
    if len(_sorts) >= KEPT:
        _sorts.clear()
        _sort_of.clear()
        _kept.clear()
    fields = work.__dict__ | {"shape": id(work.shape), "global_batch": 0}
    number = _sort_of.setdefault(tuple(fields.values()), len(_sort_of))
    _sorts[id(work)] = work, number  # which keeps its shape alive, and so the shape's identity its own
    return number


def _micro_batch(
    work: Workload, layout: Layout, micro_batch: int, recompute: str, gpu: Gpu, node: int
) -> MicroBatch:
    shape, dense, t = work.shape, dense_layers(work.shape), layout.tp
    sizes = (work, layout, micro_batch, recompute, gpu, node)
    again = 0
    if work.trains and recompute == "full":
        again = mode(work, recompute).layers or -1
    whole = layer_parameters(shape)
    plain = layer_parameters(shape, plain=True) if dense else whole
    return MicroBatch(
        layer=layer_time(*sizes),
        plain=layer_time(*sizes, plain=True) if dense else None,
        head=head_time(work, layout, micro_batch, gpu),
        at=speeds(gpu, work.precision),
        tokens=tokens_per_rank(work, layout, micro_batch),
        layers=shape.layers,
        dense=dense,
        mtp=work.mtp_layers if work.trains else 0,
        again=again,
        parameters=(
            whole.sharded / t + whole.replicated,
            whole.experts / (layout.ep * layout.etp),
            plain.sharded / t + plain.replicated,
            padded_vocab(shape.vocab, t) / t * shape.hidden,
        ),
        alive=(work, gpu),
    )


# --- stages ------------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """Layers of a pipeline stage by kind: with experts (or the only kind), and without though others have."""

    layers: int
    plain: int
    again: int  # of them, those that are computed again as a whole
    plain_again: int


@functools.lru_cache(maxsize=4096)
def stages_of(
    layers: int, dealt: tuple[int, ...], pp: int, vp: int, dense: int, again: int
) -> tuple[Stage, ...]:
    """Every stage, first to last."""
    chunks = dealt or balanced(layers, pp * vp)
    plain = first_layers(dense, chunks) if dense else (0,) * len(chunks)
    most = [count if again < 0 else min(again, count) for count in chunks]
    # the first layers of a chunk are computed again, and those without experts come first
    plain_again = [min(first, count) for first, count in zip(plain, most, strict=True)]
    found = []
    for r in range(pp):
        without, once_more = sum(plain[r::pp]), sum(plain_again[r::pp])
        found.append(Stage(sum(chunks[r::pp]) - without, without, sum(most[r::pp]) - once_more, once_more))
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _kinds(layers: int, dealt: tuple[int, ...], pp: int, vp: int, dense: int, again: int) -> tuple:
    """The different stages before the last one, the last one, and all together."""
    every = stages_of(layers, dealt, pp, vp, dense, again)
    before = tuple(dict.fromkeys(every[:-1]))
    return before, every[-1], Stage(*(sum(counts) for counts in zip(*every, strict=True)))


def stage_seconds(stage: Stage, each: MicroBatch) -> float:
    """Seconds of a stage's layers for one micro-batch."""
    layer, plain = each.layer, each.plain
    seconds = stage.layers * layer.total + stage.again * layer.again
    if plain is not None:
        seconds += stage.plain * plain.total + stage.plain_again * plain.again
    return seconds


def last_seconds(each: MicroBatch) -> float:
    """Seconds that the last stage takes beside its layers: the head, and multi-token prediction, each of
    whose layers has a projection of its own, which is small, and the head once more.
    """
    return each.head + each.mtp * (each.layer.total + each.head)


def stage_times(layout: Layout, each: MicroBatch) -> tuple[float, float]:
    """Seconds of the slowest stage, and of all together, for one micro-batch."""
    before, last, together = _kinds(
        each.layers, layout.stage_layers, layout.pp, layout.vp, each.dense, each.again
    )
    ending = last_seconds(each)
    slowest = stage_seconds(last, each) + ending
    for stage in before:
        slowest = max(slowest, stage_seconds(stage, each))
    return slowest, stage_seconds(together, each) + ending


def sends(work: Workload, layout: Layout, each: MicroBatch, domain: int) -> float:
    """Seconds per micro-batch of what a stage sends on, and back, and nothing hides."""
    return (
        sends_shown(work, layout)
        * sent_between_stages(work, layout, each)
        / between_stages(layout, each, domain)
    )


def sends_shown(work: Workload, layout: Layout) -> float:
    """The share of them that nothing hides."""
    return PP_EXPOSED if layout.vp > 1 and work.framework != "runtime" else 1.0


def sent_between_stages(work: Workload, layout: Layout, each: MicroBatch) -> float:
    """Bytes per micro-batch: a hidden state per piece, forward and, when it trains, backward."""
    ways = 2 if work.trains else 1
    return ways * layout.vp * each.tokens * work.shape.hidden * work.element_bytes / layout.tp


def between_stages(layout: Layout, each: MicroBatch, domain: int) -> float:
    return bandwidth(each.at, layout.tp * layout.cp * layout.dp * 2, domain)


# --- the end of a step -------------------------------------------------------------------------------


class Update(NamedTuple):
    """What comes once a step: seconds, and what they are made of."""

    reduce: float
    gather: float
    optimizer: float
    host: float
    reducing: float  # seconds of the whole reduction, hidden or not
    gathering: float
    hidden: tuple[float, float]  # seconds of computation that may hide them
    first: tuple[float, float]  # seconds of the first bucket, which nothing hides
    moved: float  # bytes of the optimizer
    offloaded: float  # bytes over the host's link
    on_host: float  # bytes that the host's processors move for Adam


def update(work: Workload, layout: Layout, each: MicroBatch, slowest: float, domain: int) -> Update:
    """Reduction, gathering and Adam on the stage with most layers, whose part of a table is counted."""
    _, last, _ = kinds = _kinds(
        each.layers, layout.stage_layers, layout.pp, layout.vp, each.dense, each.again
    )
    most = max((*kinds[0], last), key=lambda stage: stage.layers + stage.plain)
    layer, experts, plain, table = each.parameters
    dense, experts = most.layers * layer + most.plain * plain + table, most.layers * experts
    group, expert_group = shard_group(layout), expert_shard_group(layout)
    wide = _group_bandwidth(layout.tp, group, each.at, domain)
    narrow = _group_bandwidth(layout.ep * layout.etp, expert_group, each.at, domain)
    per_parameter = dense * (group - 1) / group / wide
    if experts:
        per_parameter += experts * (expert_group - 1) / expert_group / narrow
    element = 1 if work.narrow_weights else work.element_bytes
    grad = 4 if work.precision == "fp32" else work.gradient_bytes
    reducing, gathering = grad * per_parameter, element * per_parameter
    if not work.distributed_optimizer:
        reducing, gathering, group, expert_group = 2 * reducing, 0.0, 1, 1
    overlaps = work.framework != "runtime"
    hidden = (slowest * 2 / 3, slowest / 3) if overlaps else (0.0, 0.0)
    share = min(1.0, BUCKET / (dense + experts))
    first = (share * reducing, share * gathering)
    shared = dense / group + experts / expert_group
    moved = grad * (dense + experts) + (2 * grad + 2 * (work.master_bytes + work.moment_bytes) + 2) * shared
    away = shared * work.offload_fraction if work.offload == "optimizer" else 0.0
    offloaded, on_host = (grad + work.element_bytes) * away, 28 * away
    return Update(
        first[0] + max(0.0, reducing - first[0] - hidden[0]),
        first[1] + max(0.0, gathering - first[1] - hidden[1]),
        moved / each.at.memory,
        offloaded / each.at.host + on_host / HOST_ADAM,
        reducing,
        gathering,
        hidden,
        first,
        moved,
        offloaded,
        on_host,
    )


def _group_bandwidth(stride: int, size: int, at: Speeds, domain: int) -> float:
    """Bytes per second of a ring over `size` ranks that are `stride` apart: within the fast link's reach its
    own; across, as many NICs as the ring has ranks there.
    """
    if stride * size <= domain:
        return at.link
    return min(at.link, at.nic * max(1, domain // stride))


def _rank_on_cpu(work: Workload, layout: Layout, micro_batch: int, recompute: str) -> float:
    """A number that orders layouts on a CPU: whole copies of the model before parts of it."""
    tokens = tokens_per_rank(work, layout, micro_batch)
    micro_batches = max(1, work.global_batch // (micro_batch * layout.dp))
    flops = training_flops_per_token(work.shape, work.seq_length) * work.seq_length
    flops *= work.texts * work.global_batch
    cuts = layout.tp * layout.pp * layout.cp * layout.ep - 1
    again = 4 / 3 if recompute == "full" else 1.0
    seconds = flops / (CPU_FLOPS * layout.world_size) * (1 + CPU_CUT * cuts) * again
    return seconds + micro_batches * CPU_LAUNCH + 1e-6 * max(0.0, tokens - CPU_TOKENS)
