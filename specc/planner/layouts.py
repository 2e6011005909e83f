"""The search: every legal way to cut up a role's GPUs, and the best of those that fit.

Exhaustive over TP, PP, CP, EP and micro-batch; full recomputation is tried where plain storing does not
fit, since it always costs time and never memory. What a spec pins stays pinned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from specc.plan import Layout
from specc.planner import rules
from specc.planner.cost import step_seconds
from specc.planner.hardware import Gpu
from specc.planner.memory import GIB, Workload, oom_probability, peak
from specc.planner.rules import Broken, Case, link_domain
from specc.planner.shapes import balanced

MARGIN = 0.05
"""The search takes layouts whose probability of running out of memory is at most this."""

LONG = 16384
"""Rows longer than this may be cut by context parallelism."""

NODES_MOST = 2048


@dataclass(frozen=True)
class Pins:
    """What the spec says about a layout; None is the planner's to choose."""

    tp: int | None = None
    pp: int | None = None
    vp: int | None = None
    cp: int | None = None
    ep: int | None = None
    etp: int | None = None
    micro_batch: int | None = None
    recompute: str | None = None
    stage_layers: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in dataclasses.fields(self) if getattr(self, f.name))

    @property
    def parallel(self) -> bool:
        """Whether the layout itself is pinned, in part or whole."""
        return any(getattr(self, name) for name in ("tp", "pp", "vp", "cp", "ep", "etp"))


@dataclass(frozen=True)
class Found:
    """A legal case with its predictions."""

    case: Case
    total_gib: float
    oom_probability: float
    seconds: float

    @property
    def fits(self) -> bool:
        return self.oom_probability <= MARGIN

    @property
    def order(self) -> tuple[float | int, ...]:
        """Faster first; of equally fast ones the simpler layout, so that the choice is always the same."""
        case, layout = self.case, self.case.layout
        sizes = (layout.pp, layout.tp, layout.cp, layout.ep, layout.vp)
        return (self.seconds, case.recompute != "none", *sizes, -case.micro_batch)


def layouts(work: Workload, gpu: Gpu, nodes: int, gpus: int, pins: Pins) -> Iterator[Layout]:
    """Layouts worth asking the rules about: sizes that divide the world, in rising order."""
    world = nodes * gpus
    for tp in _sizes(pins.tp, _divisors(min(world, link_domain(gpu, gpus)))):
        for cp in _sizes(pins.cp, _context(work, world // tp)):
            rest = world // (tp * cp) if tp > 0 and cp > 0 else 0
            for pp in _sizes(pins.pp, [d for d in _divisors(rest) if d <= work.shape.layers]):
                dp = max(1, rest // pp) if pp > 0 else 1
                vp, etp = pins.vp or 1, pins.etp or 1
                for ep in _sizes(pins.ep, _expert_sizes(work, tp * cp * dp)):
                    yield Layout(
                        tp, pp, vp, cp, ep, etp, dp, tp > 1, _uneven(work, pp, vp, pins.stage_layers)
                    )


def _sizes(pinned: int | None, free: list[int]) -> list[int]:
    return free if pinned is None else [pinned]


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _context(work: Workload, rest: int) -> list[int]:
    """CP sizes to try: powers of two, of long rows only, which keep 4096 tokens or more per rank."""
    if work.seq_length <= LONG or work.implementation != "te" or work.packing:
        return [1]
    return [c for c in (1, 2, 4, 8, 16, 32, 64) if rest % c == 0 and work.seq_length // c >= 4096]


def _expert_sizes(work: Workload, group: int) -> list[int]:
    experts = work.shape.experts
    return [e for e in _divisors(experts) if group % e == 0] if experts else [1]


def _uneven(work: Workload, pp: int, vp: int, pinned: tuple[int, ...]) -> tuple[int, ...]:
    """The layers of each chunk when they are pinned or do not divide; () for an even pipeline."""
    layers, chunks = work.shape.layers, pp * vp
    if pinned or chunks < 1 or layers % chunks == 0 or layers < chunks:
        return pinned
    return balanced(layers, chunks)


def cases(work: Workload, gpu: Gpu, nodes: int, gpus: int, pins: Pins) -> Iterator[Case]:
    """Every case the pins allow on these nodes, legal or not; recomputation is left to `best`."""
    for layout in layouts(work, gpu, nodes, gpus, pins):
        share = work.global_batch // layout.dp
        sizes = [m for m in (1, 2, 4, 8, 16, 32, 64) if m <= share and share % m == 0] or [1]
        for micro_batch in _sizes(pins.micro_batch, sizes):
            yield Case(work, gpu, nodes, gpus, layout, micro_batch, pins.recompute or "none")


def judged(case: Case) -> Found:
    """The case with its memory and its time."""
    worst = peak(case.work, case.layout, case.micro_batch, case.recompute, case.gpu.name != "cpu")
    total = worst.total / GIB
    seconds = step_seconds(case.work, case.layout, case.micro_batch, case.recompute, case.gpu, case.gpus)
    return Found(case, total, oom_probability(total, case.gpu.usable_gib), seconds)


@dataclass(frozen=True)
class Search:
    """What a search over one number of nodes saw."""

    best: Found | None = None  # the fastest that fits with margin
    smallest: Found | None = None  # the legal one with the least memory
    fitting: int = 0  # legal layouts that fit
    legal: int = 0


def search(work: Workload, gpu: Gpu, nodes: int, gpus: int, pins: Pins) -> Search:
    """The fastest legal case that fits on these nodes.

    Exact: full recomputation is slower than none and takes no more memory, so it is tried only where
    none does not fit; and a larger micro-batch of the same layout never takes less memory, so the
    first one that does not fit under either ends that layout.
    """
    best = smallest = None
    fitting = legal = 0
    full: tuple[Layout, int] | None = None
    for case in cases(work, gpu, nodes, gpus, pins):
        if full is not None and full[0] is case.layout and case.micro_batch > full[1]:
            continue
        if not rules.is_legal(case):
            continue
        legal += 1
        found = judged(case)
        if not found.fits and pins.recompute is None and work.trains:
            found = judged(dataclasses.replace(case, recompute="full"))
        if smallest is None or found.total_gib < smallest.total_gib:
            smallest = found
        if not found.fits:
            full = (case.layout, case.micro_batch)
            continue
        fitting += 1
        if best is None or found.order < best.order:
            best = found
    return Search(best, smallest, fitting, legal)


def least_illegal(work: Workload, gpu: Gpu, nodes: int, gpus: int, pins: Pins) -> list[Broken]:
    """Why nothing the pins allow is legal: what the nearest case breaks. Empty when one is legal."""
    nearest: list[Broken] | None = None
    for case in cases(work, gpu, nodes, gpus, pins):
        found = rules.broken(case)
        if not found:
            return []
        if nearest is None or _distance(found, pins) < _distance(nearest, pins):
            nearest = found
    return nearest or []


def _distance(found: list[Broken], pins: Pins) -> tuple[int, int]:
    """Fewer broken rules are nearer; of as many, those that the pins themselves break count first."""
    return len(found), sum(1 for broken in found if broken.fields[0] not in pins.names)


def fewest_nodes(work: Workload, gpu: Gpu, gpus: int, pins: Pins, most: int = NODES_MOST) -> Search | None:
    """The search on the smallest number of nodes that fits, or None when none up to `most` does.

    Starts where the model's state alone would fit if every byte were shared; every number up to 64
    nodes is tried, above that multiples of 4, 16 and 64.
    """
    for nodes in _node_counts(_state_bound(work, gpu, gpus), most):
        result = search(work, gpu, nodes, gpus, pins)
        if result.best is not None:
            return result
    return None


def _state_bound(work: Workload, gpu: Gpu, gpus: int) -> int:
    """Nodes below which even perfectly shared weights, gradients and optimizer state do not fit."""
    if gpu.usable_gib <= 0:
        return 1
    from specc.planner.shapes import parameters

    per_parameter = (12 + work.element_bytes + work.gradient_bytes) if work.trains else work.element_bytes
    if work.precision == "fp32" and work.trains:
        per_parameter = 16
    total = parameters(work.shape, work.head) * per_parameter
    return max(1, int(total / (gpu.usable_gib * GIB * gpus)))


def _node_counts(low: int, most: int) -> Iterator[int]:
    steps = ((64, 1), (256, 4), (1024, 16), (1 << 30, 64))
    for nodes in range(low, most + 1):
        step = next(s for limit, s in steps if nodes <= limit)
        if nodes % step == 0:
            yield nodes
