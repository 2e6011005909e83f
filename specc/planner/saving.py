"""Bytes that saving and loading a checkpoint take beyond the state itself, on the device and in the host.

The distributed optimizer's state is saved in the parameters' own shapes, so that any layout can read it
(Megatron-core's `fully_reshardable`). For that every rank gathers in the host the master and moments of all
that it shares with others, in fp32: 12 + 4/D bytes per parameter. Over the device they go in small pieces.
Without the distributed optimizer nothing is gathered. Loading makes room for the same three in the host, and
joins the halves of gated products, which lie apart in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from specc.plan import Layout
from specc.planner.buffers import chunk_parameters, laid_out
from specc.planner.shapes import StageParameters
from specc.planner.workload import Workload

FP32, STATES = 4, 3
"""Bytes of an element, and how many of it there are: the master and two moments."""

PIECE = 1 << 22
"""Elements that the runtime gathers at once."""


@dataclass(frozen=True)
class Room:
    """Bytes at the worst moment, beside weights, gradients and optimizer state."""

    device: float
    host: float


def saving(work: Workload, layout: Layout, stage: int, outputs: int = 1) -> Room:
    """What a rank of the stage takes to save."""
    kept = worst = device = 0.0
    for buckets, unpadded, size in _buffers(work, layout, stage, outputs):
        kept += STATES * FP32 * unpadded
        for bucket in buckets:
            own, piece = bucket / size, min(bucket, PIECE)
            worst = max(worst, kept + FP32 * own)  # its own part of one of the three
            device = max(device, FP32 * (piece + piece / size))
    return Room(device, worst)


def quickly(work: Workload, layout: Layout, held: StageParameters) -> Room:
    """What `saving` says, from counts of parameters alone: without padding, as a search can ask it."""
    if not work.trains or not work.distributed_optimizer:
        return Room(0.0, 0.0)
    shared, apart = held.dense, held.experts
    if layout.ep == 1:  # experts that every rank has are gathered with the rest
        shared, apart = shared + apart, 0
    size = layout.dp * layout.cp
    own = max(1, layout.tp * size // (layout.ep * layout.etp))
    first = STATES * FP32 * shared + FP32 * shared / size
    second = STATES * FP32 * (shared + apart) + FP32 * apart / own
    pieces = min(shared, PIECE) * (1 + 1 / size), min(apart, PIECE) * (1 + 1 / own)
    return Room(FP32 * max(pieces), max(first, second))


def loading(work: Workload, layout: Layout, stage: int, outputs: int = 1) -> Room:
    """What a rank of the stage takes to load."""
    unpadded = sum(each for _, each, _ in _buffers(work, layout, stage, outputs))
    halves = sum(
        parameter.count
        for v in range(layout.vp)
        for parameter in chunk_parameters(work.shape, layout, v * layout.pp + stage, work.head, outputs)
        if parameter.halves
    )
    joined = STATES * FP32 * halves if unpadded else 0
    return Room(work.element_bytes * halves, STATES * FP32 * unpadded + joined)


def _buffers(
    work: Workload, layout: Layout, stage: int, outputs: int
) -> Iterator[tuple[list[int], int, int]]:
    """Of every buffer under the distributed optimizer, in the order in which they are gathered: the elements
    of its buckets, those up to the end of each bucket's last parameter, and how many ranks share it.
    """
    if not work.trains or not work.distributed_optimizer:
        return
    for expert, size in (
        (False, layout.dp * layout.cp),
        (True, layout.tp * layout.cp * layout.dp // (layout.ep * layout.etp)),
    ):
        for v in range(layout.vp):
            held = list(chunk_parameters(work.shape, layout, v * layout.pp + stage, work.head, outputs))
            for fp32 in (False, True):
                of_kind = [p for p in held if p.expert is expert and p.fp32 is fp32]
                if not of_kind:
                    continue
                laid = laid_out(of_kind, size)
                unpadded = sum(inside[-1][1] - start for start, _, inside in laid)
                yield [end - start for start, end, _ in laid], unpadded, size
