"""The search: every legal way to cut up a role's GPUs, and the best of those that fit.

Exhaustive over TP, PP, VP, CP, EP, ETP, DP, micro-batch and recomputation (`space`). Choices are looked at
by a bound that none of them undercuts (`bounds`), the exact predictions are made of those only that may
still win, and the first that comes out is the optimum: best first, as in A*. What is pruned is provably no
better, given that of one cut
  - a larger micro-batch never takes less memory (than EVEN times as much), and
  - more pieces of a stage never take less memory where they leave every stage its number of layers,
which tests hold, as they hold the whole search to plain enumeration. What a spec pins stays pinned.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from specc.plan import Layout
from specc.planner import rules
from specc.planner.bounds import Bounds
from specc.planner.cost import step_seconds
from specc.planner.feasibility import outside_bytes
from specc.planner.hardware import Gpu
from specc.planner.memory import GIB, Workload, oom_probability, peak
from specc.planner.rules import Broken, Case, link_domain
from specc.planner.shapes import parameters
from specc.planner.space import MODES, Cut, Pins, Space, divisors

__all__ = ["Broken", "Cut", "Pins", "Space"]

MARGIN = 0.05
"""The search takes layouts whose probability of running out of memory is at most this."""

NODES_MOST = 2048

EVEN = 0.97
"""Of the memory of a smaller micro-batch, what a larger one of the same layout takes at least: as many rows
are in flight in fewer micro-batches, each of which keeps something of its own.
"""


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
        sizes = (layout.pp, layout.tp, layout.cp, layout.ep, layout.etp, layout.vp)
        mode = MODES.index(case.recompute), case.work.recompute_layers or case.work.shape.layers
        return (self.seconds, *mode, *sizes, -case.micro_batch)

    @property
    def gpu_seconds(self) -> float:
        return self.seconds * self.case.world


def judged(case: Case) -> Found:
    """The case with its memory and its time."""
    return _with_memory(case, _seconds(case))


def _seconds(case: Case) -> float:
    found = step_seconds(case.work, case.layout, case.micro_batch, case.recompute, case.gpu, case.gpus)
    return case.work.time_factor * found


def _with_memory(case: Case, seconds: float) -> Found:
    total = _bytes(case) / GIB
    return Found(case, total, oom_probability(total, case.gpu.usable_gib), seconds)


def _bytes(case: Case) -> float:
    return peak(case.work, case.layout, case.micro_batch, case.recompute, case.gpu.name != "cpu").total


@dataclass(frozen=True)
class Search:
    """What there is on one number of nodes; what is not always asked for is looked for when it is."""

    best: Found | None = None  # the fastest that fits with margin
    space: Space | None = field(default=None, compare=False, repr=False)
    nodes: int = 0

    @functools.cached_property
    def smallest(self) -> Found | None:
        """The legal one with the least memory, None when none is legal."""
        return None if self.space is None else least_memory(self.space, self.nodes)

    @functools.cached_property
    def legal(self) -> int:
        """Legal choices, ways to recompute aside."""
        return 0 if self.space is None else self.space.count(self.nodes)


def search(work: Workload, gpu: Gpu, nodes: int, gpus: int, pins: Pins) -> Search:
    """The fastest legal case that fits on these nodes."""
    space = Space(work, gpu, gpus, pins)
    return Search(fastest(Bounds(space), nodes), space, nodes)


def fastest(bounds: Bounds, nodes: int, within: float = math.inf) -> Found | None:
    """The fastest that fits on these nodes; None when that takes more than `within` seconds, or none fits."""
    return next(iter(Frontier(bounds, nodes, within)), None)


class Frontier:
    """Legal choices that fit on so many nodes, best first, found one by one as they are asked for.

    What waits in the heap is either found or a step that makes it more precise: a cut is dealt micro-batches,
    each opens into numbers of pieces, those get their seconds, and only then their memory and the rules.
    With `keep_large`, `too_large` collects those that might have come out by then but do not fit.
    """

    def __init__(
        self, bounds: Bounds, nodes: int, within: float = math.inf, keep_large: bool = False
    ) -> None:
        self.bounds, self.space, self.nodes, self.within = bounds, bounds.space, nodes, within
        self.keep_large = keep_large
        self.too_large: list[Found] = []
        self._heap: list[tuple[float, tuple[float | int, ...], int, Found | Callable[[], object]]] = []
        self._turn = itertools.count()

    def __iter__(self) -> Iterator[Found]:
        self._begin()
        while self._heap:
            _, _, _, item = heapq.heappop(self._heap)
            if isinstance(item, Found):
                yield item
            else:
                item()

    def _push(self, seconds: float, item: Found | Callable[[], object]) -> None:
        """A step comes before what was found to be as fast: only then are all of equal time compared."""
        if seconds <= self.within:
            order = item.order if isinstance(item, Found) else ()
            heapq.heappush(self._heap, (seconds, order, next(self._turn), item))

    def _begin(self) -> None:
        space, bounds, capacity = self.space, self.bounds, self.space.gpu.usable_gib
        for cut in space.cuts(self.nodes):
            if not self.keep_large and self._is_hopeless(cut):
                continue
            seconds = bounds.least_seconds(cut)
            if seconds <= self.within and oom_probability(bounds.bytes(cut) / GIB, capacity) <= MARGIN:
                self._push(seconds, functools.partial(self._deal, cut))

    def _is_hopeless(self, cut: Cut) -> bool:
        """Whether a cut does not fit with any number of copies. The more they are, the less each holds of the
        optimizer's state and of micro-batches in flight, but for what communication takes: so the most
        copies decide for all, with the buffers of one.
        """
        key = cut._replace(dp=0)
        found = self.bounds.hopeless.get(key)
        if found is None:
            most = max(self.space.copies, default=1)
            widest, alone = (self._outside(cut._replace(dp=dp)) for dp in (most, 1))
            spare = max(0.0, widest - alone) / GIB
            cut = cut._replace(dp=most)
            found = not self._may_fit(cut, self.space.micro_batches(cut)[0], spare)[0]
            self.bounds.hopeless[key] = found
        return found

    def _outside(self, cut: Cut) -> float:
        return outside_bytes(self.space.layout(cut, 1)) if self.space.gpu.name != "cpu" else 0.0

    def _deal(self, cut: Cut) -> None:
        """A cut: its micro-batches with their numbers of pieces, but for those that surely have no room."""
        sizes = self.space.micro_batches(cut)
        room = 0
        if self._has_room(cut, sizes[0]):
            room = bisect.bisect_left(sizes, True, 1, key=lambda size: not self._has_room(cut, size))
        for i, micro_batch in enumerate(sizes):
            pieces = self.space.pieces(cut, micro_batch)
            if i >= room:
                pieces = tuple(vp for vp in pieces if not self._same_stages(cut, pieces[0], vp))
            if pieces:
                seconds = self.bounds.seconds(cut, micro_batch, pieces[-1])
                self._push(seconds, functools.partial(self._open, cut, micro_batch, pieces))

    def _open(self, cut: Cut, micro_batch: int, pieces: tuple[int, ...]) -> None:
        """A cut with a micro-batch: the fewest pieces are timed, which bounds more of them closely."""
        fewest, *more = pieces
        seconds = self._time(cut, micro_batch, fewest)
        if not more or self.space.gpu.name == "cpu":
            rest = 0.0
        else:
            rest = self.bounds.rest(cut, micro_batch, fewest, seconds)
        for vp in more:
            seconds = self.bounds.seconds(cut, micro_batch, vp, rest)
            self._push(seconds, functools.partial(self._time, cut, micro_batch, vp))

    def _has_room(self, cut: Cut, micro_batch: int) -> bool:
        """Whether the fewest pieces may fit; what does not, and would be legal, is noted."""
        has_room, leanest = self._may_fit(cut, micro_batch)
        if not has_room and leanest is not None and rules.is_legal(leanest.case):
            self._refuse(leanest)
        return has_room

    def _may_fit(self, cut: Cut, micro_batch: int, spare: float = 0.0) -> tuple[bool, Found | None]:
        """Whether the fewest pieces are not too large in every way to recompute, were they `spare` GiB
        smaller, and the last way that was looked at. Of two layers or more full recomputation keeps least.
        """
        found, pieces = None, self.space.pieces(cut, micro_batch)
        if not pieces:
            return True, None
        several = self.space.work.shape.layers >= 2 * cut.pp * pieces[0]
        for mode in self.space.modes[-1:] if several else reversed(self.space.modes):
            case = self.space.case(self.nodes, cut, pieces[0], micro_batch, mode)
            found = _with_memory(case, 0.0)
            least = EVEN * found.total_gib - spare
            if found.fits or oom_probability(least, case.gpu.usable_gib) <= MARGIN:
                return True, found
        return False, found

    def _refuse(self, found: Found) -> None:
        if self.keep_large:
            self.too_large.append(judged(found.case))

    def _same_stages(self, cut: Cut, one: int, other: int) -> bool:
        return one == other or self.space.stages(cut.pp, one) == self.space.stages(cut.pp, other)

    def _time(self, cut: Cut, micro_batch: int, vp: int, turn: int = 0) -> float:
        """The seconds of a choice; whether it is legal and fits waits until they may win."""
        case = self.space.case(self.nodes, cut, vp, micro_batch, self.space.modes[turn])
        if case.recompute == "full" and self.space.blocks:
            return self._recompute_least(case)
        seconds = _seconds(case)
        others = range(1, len(self.space.modes)) if turn == 0 else ()  # none is faster, but in no known order
        slower = [functools.partial(self._time, cut, micro_batch, vp, other) for other in others]
        self._push(seconds, functools.partial(self._weigh, case, seconds, slower))
        return seconds

    def _weigh(self, case: Case, seconds: float, slower: Iterable[Callable[[], object]]) -> None:
        """A choice whose time may win: it is found if it fits, else with more recomputation perhaps."""
        if not rules.is_legal(case):
            return
        found = _with_memory(case, seconds)
        if found.fits:
            self._push(seconds, found)
        elif case.recompute == self.space.modes[-1]:
            self._refuse(found)
        else:
            for more in slower:
                more()

    def _recompute_least(self, case: Case) -> float:
        """Full recomputation of as few layers of each chunk as fits: the more, the slower and the smaller."""
        found = _with_memory(case, 0.0)
        if not found.fits:
            self._refuse(found)
            return math.inf
        low, high = 0, self.space.largest_chunk(case.layout)  # too few, enough
        while high - low > 1:
            middle = (low + high) // 2
            tried = _with_memory(self.space.partly(case, middle), 0.0)
            if tried.fits:
                high, found = middle, tried
            else:
                low = middle
        seconds = _seconds(found.case)
        self._push(seconds, dataclasses.replace(found, seconds=seconds))
        return seconds


def least_memory(space: Space, nodes: int) -> Found | None:
    """The legal choice that takes the least memory, None when none is legal."""
    return next(iter(smallest(space, nodes, 1)), None)


def smallest(space: Space, nodes: int, count: int, only_too_large: bool = False) -> list[Found]:
    """The cuts that take the least memory, each as its leanest choice, the smallest first; perhaps only of
    those that do not fit however lean.
    """
    bounds = Bounds(space)
    kept: list[Found] = []
    for low, cut in sorted((bounds.bytes(cut), cut) for cut in space.cuts(nodes)):
        if len(kept) == count and low > kept[-1].total_gib * GIB:
            break
        lean = _lean(space, nodes, cut)
        if lean and not (only_too_large and any(found.fits for found in lean)):
            least = min(lean, key=lambda found: found.total_gib)
            kept = sorted([*kept, least], key=lambda found: found.total_gib)[:count]
    return [judged(found.case) for found in kept]


def _lean(space: Space, nodes: int, cut: Cut) -> list[Found]:
    """The legal cases of a cut among which is the one with the least memory."""
    found: list[Found] = []
    least = math.inf
    for micro_batch in space.micro_batches(cut):
        cases = [
            space.case(nodes, cut, vp, micro_batch, mode)
            for vp in space.pieces(cut, micro_batch)
            for mode in space.modes
        ]
        of_size = [_with_memory(case, 0.0) for case in cases if rules.is_legal(case)]
        found += of_size
        low = min((one.total_gib for one in of_size), default=math.inf)
        least = min(least, low)
        if least < EVEN * low < math.inf:
            break
    return found


# --- numbers of nodes --------------------------------------------------------------------------------


def fewest_nodes(work: Workload, gpu: Gpu, gpus: int, pins: Pins, most: int = NODES_MOST) -> Search | None:
    """The search on the smallest number of nodes that fits, or None when none up to `most` does."""
    space = Space(work, gpu, gpus, pins)
    bounds = Bounds(space)
    for nodes in range(state_bound(work, gpu, gpus), most + 1):
        best = fastest(bounds, nodes)
        if best is not None:
            return Search(best, space, nodes)
    return None


def state_bound(work: Workload, gpu: Gpu, gpus: int) -> int:
    """Nodes below which even perfectly shared weights, gradients and optimizer state do not fit."""
    if gpu.usable_gib <= 0:
        return 1
    total = parameters(work.shape, work.head) * work.element_bytes
    return max(1, int(total / (gpu.usable_gib * GIB * gpus)))


# --- when nothing is legal ---------------------------------------------------------------------------


def cases(work: Workload, gpu: Gpu, nodes: int, gpus: int, pins: Pins) -> Iterator[Case]:
    """Cases that the pins allow on these nodes, legal or not, to name the rules that forbid them all."""
    for layout in _layouts(work, gpu, nodes, gpus, pins):
        share = max(1, work.global_batch // layout.dp)
        for micro_batch in (pins.micro_batch,) if pins.micro_batch else divisors(share):
            yield Case(work, gpu, nodes, gpus, layout, micro_batch, pins.recompute or "none")


def _layouts(work: Workload, gpu: Gpu, nodes: int, gpus: int, pins: Pins) -> Iterator[Layout]:
    """Layouts of sizes that divide the world; what is pinned need not."""
    world = nodes * gpus
    for tp in _sizes(pins.tp, divisors(min(world, link_domain(gpu, gpus)))):
        for cp in _sizes(pins.cp, (1,)):
            rest = max(1, world // max(1, tp * cp))
            for pp in _sizes(pins.pp, [d for d in divisors(rest) if d <= work.shape.layers]):
                dp = max(1, rest // max(1, pp))
                for ep in _sizes(pins.ep, (1,)):
                    yield _layout(work, pins, Cut(tp, cp, pp, dp, ep, pins.etp or 1))


def _layout(work: Workload, pins: Pins, cut: Cut) -> Layout:
    vp = pins.vp or 1
    chunks, layers, dealt = max(1, cut.pp * vp), work.shape.layers, pins.stage_layers
    if not dealt and layers % chunks and layers >= chunks:
        from specc.planner.shapes import balanced

        dealt = balanced(layers, chunks)
    return Layout(cut.tp, cut.pp, vp, cut.cp, cut.ep, cut.etp, cut.dp, cut.tp > 1, dealt)


def _sizes(pinned: int | None, free: Iterable[int]) -> Iterable[int]:
    return free if pinned is None else (pinned,)


def least_illegal(work: Workload, gpu: Gpu, nodes: int, gpus: int, pins: Pins) -> list[Broken]:
    """Why nothing the pins allow is legal: what the nearest case breaks. Empty when one is legal."""
    if Space(work, gpu, gpus, pins).count(nodes):
        return []
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
