"""Bytes of weights, gradients and optimizer state on one rank, to the byte, as Megatron-core allocates them.

`memory.model_state` says the same by bytes per parameter, which the search needs to be quick. Here every
parameter is listed in the order of the module, and laid into buffers as `_ParamAndGradBuffer` of
Megatron-core 0.16.1 does it. With the distributed optimizer each parameter begins at a multiple of 64
elements, each bucket ends at one of lcm(128, ranks), and rank r of n owns the r-th n-th of every bucket, so
that ranks own unequal parts of the parameters. Adam's count of steps lies on the host and is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from specc.plan import Layout, Shape
from specc.planner.shapes import GATED, norm_width, padded_vocab, stage_layers
from specc.planner.workload import Workload

ALIGNED, BUCKET = 64, 128
"""Elements: where a parameter begins, and what the end of a bucket is a multiple of."""


@dataclass(frozen=True)
class Parameter:
    """One parameter as a rank holds it."""

    count: int
    expert: bool = False  # of an expert that not every rank has: shared by the ranks that do
    own_bucket: bool = False  # a tied embedding that two stages hold
    fp32: bool = False  # whatever the precision
    halves: bool = False  # a gate and what it gates: a checkpoint holds them apart


@dataclass(frozen=True)
class State:
    """Bytes on one rank."""

    weights: int
    gradients: int
    optimizer: int

    def __add__(self, other: State) -> State:
        return State(
            self.weights + other.weights,
            self.gradients + other.gradients,
            self.optimizer + other.optimizer,
        )


@dataclass(frozen=True)
class Place:
    """Which rank: its stage, and its number among those that share optimizer state."""

    stage: int = 0
    dense_rank: int = 0
    expert_rank: int = 0


def state(work: Workload, layout: Layout, place: Place, outputs: int = 1) -> State:
    """What the rank at `place` holds; `outputs` are the numbers of a head that is not a language model's."""
    total = State(0, 0, 0)
    for v in range(layout.vp):  # every chunk has buffers of its own
        held = list(chunk_parameters(work.shape, layout, v * layout.pp + place.stage, work.head, outputs))
        for expert, rank, size in (
            (False, place.dense_rank, layout.dp * layout.cp),
            (True, place.expert_rank, layout.tp * layout.cp * layout.dp // (layout.ep * layout.etp)),
        ):
            for fp32 in (False, True):
                of_kind = [p for p in held if p.expert is expert and p.fp32 is fp32]
                total += _buffer_state(work, of_kind, fp32 or work.precision == "fp32", rank, size)
    return total


def _buffer_state(work: Workload, held: list[Parameter], fp32: bool, rank: int, size: int) -> State:
    """Bytes of parameters that lie in one buffer."""
    element = 4 if fp32 else 2
    count = sum(parameter.count for parameter in held)
    if not work.trains:
        return State(element * count, 0, 0)
    per_owned = 8 if fp32 else 12  # two moments, and an fp32 master where the weight is none
    if not work.distributed_optimizer:
        return State(element * count, 4 * count, per_owned * count)
    buckets = laid_out(held, size)
    whole = sum(end - start for start, end, _ in buckets)
    owned = sum(_owned(bucket, rank, size) for bucket in buckets)
    return State(element * whole, 4 * whole, per_owned * owned)


Bucket = tuple[int, int, list[tuple[int, int]]]
"""Where a bucket starts and ends in its buffer, and each of its parameters."""


def laid_out(held: list[Parameter], size: int) -> list[Bucket]:
    """The buckets of a buffer that `size` ranks share; backward passes fill it from the last parameter on."""
    buckets: list[Bucket] = []
    unit = math.lcm(size, BUCKET)
    start, inside, at = 0, [], 0
    for i, parameter in enumerate(reversed(held)):
        at = _up(at, ALIGNED)
        if parameter.own_bucket and inside:
            buckets.append((start, _up(at, unit), inside))
            start, inside, at = _up(at, unit), [], _up(at, unit)
        inside.append((at, at + parameter.count))
        at += parameter.count
        if parameter.own_bucket or i == len(held) - 1:
            buckets.append((start, _up(at, unit), inside))
            start, inside, at = _up(at, unit), [], _up(at, unit)
    return buckets


def _owned(bucket: Bucket, rank: int, size: int) -> int:
    """Elements of parameters, not of padding, in a rank's part of a bucket."""
    start, end, inside = bucket
    part = (end - start) // size
    first, last = start + rank * part, start + (rank + 1) * part
    return sum(max(0, min(stop, last) - max(begin, first)) for begin, stop in inside)


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


# --- the parameters, in the order of the module ----------------------------------------------------


def chunk_parameters(
    shape: Shape, layout: Layout, chunk: int, head: str = "language", outputs: int = 1
) -> Iterator[Parameter]:
    """Parameters of chunk v of stage p, at `chunk` = v * pp + p."""
    first, last = chunk == 0, chunk == layout.pp * layout.vp - 1
    table = padded_vocab(shape.vocab, layout.tp) // layout.tp * shape.hidden
    tied = shape.tied and head == "language"
    if first:
        yield Parameter(table, own_bucket=tied and layout.pp > 1)
        if shape.position == "learned":
            yield Parameter(shape.max_positions * shape.hidden)
    for _ in range(stage_layers(shape, layout)[chunk]):
        yield from _layer(shape, layout)
    if not last:
        return
    yield from _norm(shape, shape.hidden)
    if head != "language":
        yield Parameter(outputs * shape.hidden, fp32=True)
    elif not tied or layout.pp > 1:
        yield Parameter(table, own_bucket=tied)


def _layer(shape: Shape, layout: Layout) -> Iterator[Parameter]:
    h, d, t = shape.hidden, shape.head_dim, layout.tp
    heads = d * (shape.heads + 2 * shape.kv_groups) // t
    yield from _norm(shape, h)
    yield from _linear(d * shape.heads // t * h, h if shape.linear_bias else 0)
    yield from _linear(heads * h, heads if shape.linear_bias or shape.qkv_bias else 0)
    if shape.qk_norm:
        yield from _norm(shape, d)
        yield from _norm(shape, d)
    yield from _norm(shape, h)
    if not shape.experts:
        yield from _mlp(shape, shape.ffn // t)
        return
    yield Parameter(shape.experts * h)  # the router
    for _ in range(shape.experts // layout.ep):
        yield from _mlp(shape, shape.expert_ffn // layout.etp, expert=layout.ep > 1)
    if shape.shared_expert_ffn:
        yield from _mlp(shape, shape.shared_expert_ffn // t)


def _mlp(shape: Shape, width: int, expert: bool = False) -> Iterator[Parameter]:
    gates = 2 if shape.activation in GATED else 1
    bias, halves = shape.linear_bias, gates == 2
    yield from _linear(gates * width * shape.hidden, gates * width if bias else 0, expert, halves)
    yield from _linear(width * shape.hidden, shape.hidden if bias else 0, expert)


def _linear(weight: int, bias: int, expert: bool = False, halves: bool = False) -> Iterator[Parameter]:
    yield Parameter(weight, expert, halves=halves)
    if bias:
        yield Parameter(bias, expert, halves=halves)


def _norm(shape: Shape, width: int) -> Iterator[Parameter]:
    for _ in range(norm_width(shape)):
        yield Parameter(width)
