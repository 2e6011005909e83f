"""The legal space of one role: which sizes there are to choose from, before anything is predicted.

A `Space` is what a role's work, its GPU and its pins leave open, whatever the number of nodes. For a number
of nodes it gives the ways to cut up the GPUs (`cuts`), for a cut the micro-batches, for both the numbers of
pipeline pieces. Sizes come from what they must divide, so that little is enumerated that no rule allows;
`rules` alone decides what is legal. Nothing legal is left out: a test holds `cases` to plain enumeration.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from specc.plan import Layout
from specc.planner import rules
from specc.planner.hardware import Gpu
from specc.planner.memory import Workload
from specc.planner.rules import Case, link_domain
from specc.planner.shapes import balanced

MODES = ("none", "selective", "full")
"""Ways to recompute that the search tries, from the most memory to the least."""


SIZES = ("tp", "pp", "vp", "cp", "ep", "etp")
"""Pins of the layout itself."""


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
        return tuple(f.name for f in fields(self) if getattr(self, f.name))

    @property
    def parallel(self) -> bool:
        """Whether the layout itself is pinned, in part or whole."""
        return any(getattr(self, name) for name in SIZES)


class Cut(NamedTuple):
    """How many GPUs share what; a layout but for the pieces of its pipeline."""

    tp: int
    cp: int
    pp: int
    dp: int
    ep: int
    etp: int


@functools.cache
def divisors(number: int) -> tuple[int, ...]:
    """The divisors of a positive number, rising."""
    low = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return tuple(low + [number // d for d in reversed(low) if d * d != number])


class Space:
    """The choices that a role's work, its GPU and its pins leave, whatever the number of nodes."""

    def __init__(self, work: Workload, gpu: Gpu, gpus: int, pins: Pins) -> None:
        self.work, self.gpu, self.gpus, self.pins = work, gpu, gpus, pins
        self.modes = (pins.recompute,) if pins.recompute else MODES if work.trains else ("none",)
        self.blocks = work.trains and pins.recompute is None  # some layers of a chunk may be recomputed
        self._partly: dict[int, Workload] = {}
        self._rows = list(self._rows_cut())
        self._experts = list(self._experts_cut())
        batch, micro = work.global_batch, pins.micro_batch or 1
        self.copies = divisors(batch // micro) if micro > 0 and batch % micro == 0 else ()
        self._deals: dict[int, tuple[int, ...]] = {}
        self._pieces: dict[tuple[int, int], tuple[int, ...]] = {}
        self._stages: dict[tuple[int, int], tuple[int, ...]] = {}

    def _rows_cut(self) -> Iterator[tuple[int, int]]:
        """TP and CP that the model and the length of a row allow together."""
        work, pins = self.work, self.pins
        heads = divisors(work.shape.heads)
        for tp in (pins.tp,) if pins.tp else heads:
            for cp in (
                (pins.cp,) if pins.cp else (1,) if work.implementation != "te" else divisors(work.seq_length)
            ):
                layout = Layout(tp, cp=cp, sequence_parallel=tp > 1)
                case = Case(work, self.gpu, 1, self.gpus, layout, 1)
                if tp > 0 and cp > 0 and not any(rule(case) for rule in rules.OF_ROWS):
                    yield tp, cp

    def _experts_cut(self) -> Iterator[tuple[int, int]]:
        """EP and ETP that the experts allow together; their groups are looked at with the cut."""
        shape, pins = self.work.shape, self.pins
        if not shape.experts:
            if (pins.ep or 1) == (pins.etp or 1) == 1:
                yield 1, 1
            return
        widths = divisors(link_domain(self.gpu, self.gpus))
        for etp in (pins.etp,) if pins.etp else widths:
            if etp > 0 and shape.expert_ffn % etp == 0:
                yield from (
                    (ep, etp) for ep in ((pins.ep,) if pins.ep else divisors(shape.experts)) if ep > 0
                )

    def cuts(self, nodes: int) -> Iterator[Cut]:
        """The ways to cut up so many nodes; `rules` may still refuse one."""
        world, layers, pinned = nodes * self.gpus, self.work.shape.layers, self.pins.pp
        for tp, cp in self._rows:
            rest, odd = divmod(world, tp * cp)
            if odd:
                continue
            for dp in self.copies:
                pp, odd = divmod(rest, dp)
                if odd or pp < 1 or pp > layers or (pinned and pp != pinned):
                    continue
                group = tp * cp * dp
                for ep, etp in self._experts:
                    if group % (ep * etp) == 0:
                        yield Cut(tp, cp, pp, dp, ep, etp)

    def micro_batches(self, cut: Cut) -> tuple[int, ...]:
        """Sizes of a micro-batch with which every copy of the model gets whole ones, rising."""
        found = self._deals.get(cut.dp)
        if found is None:
            pinned = self.pins.micro_batch
            found = (pinned,) if pinned else divisors(self.work.global_batch // cut.dp)
            self._deals[cut.dp] = found
        return found

    def pieces(self, cut: Cut, micro_batch: int) -> tuple[int, ...]:
        """Numbers of pieces of a pipeline stage (VP), rising."""
        turns = self.work.global_batch // (micro_batch * cut.dp)
        key = cut.pp, turns
        found = self._pieces.get(key)
        if found is None:
            found = self._pieces[key] = tuple(self._pieces_of(cut.pp, turns))
        return found

    def _pieces_of(self, pp: int, micro_batches: int) -> Iterator[int]:
        layers, pins = self.work.shape.layers, self.pins
        if pins.stage_layers:  # they say how many pieces there are
            most = range(len(pins.stage_layers) // pp, len(pins.stage_layers) // pp + 1)
        else:
            most = range(1, layers // pp + 1)
        for vp in most:
            interleaved = vp == 1 or (pp > 1 and micro_batches % pp == 0)
            if interleaved and pins.vp in (None, vp):
                yield vp

    def stages(self, pp: int, vp: int) -> tuple[int, ...]:
        """Layers of every pipeline stage."""
        found = self._stages.get((pp, vp))
        if found is None:
            dealt = self.pins.stage_layers or balanced(self.work.shape.layers, pp * vp)
            found = self._stages[pp, vp] = tuple(sum(dealt[stage::pp]) for stage in range(pp))
        return found

    def layout(self, cut: Cut, vp: int) -> Layout:
        """The layout of a cut; one whose layers do not divide says how many each piece has."""
        layers, chunks = self.work.shape.layers, cut.pp * vp
        dealt = self.pins.stage_layers
        if not dealt and layers % chunks:
            dealt = balanced(layers, chunks)
        return Layout(cut.tp, cut.pp, vp, cut.cp, cut.ep, cut.etp, cut.dp, cut.tp > 1, dealt)

    def case(self, nodes: int, cut: Cut, vp: int, micro_batch: int, recompute: str = "none") -> Case:
        """One complete choice."""
        return Case(self.work, self.gpu, nodes, self.gpus, self.layout(cut, vp), micro_batch, recompute)

    def partly(self, case: Case, layers: int) -> Case:
        """The case with so many layers of each chunk computed again, the others kept."""
        work = self._partly.get(layers)
        if work is None:
            work = self._partly[layers] = replace(self.work, recompute_layers=layers)
        return replace(case, work=work, recompute="full")

    def largest_chunk(self, layout: Layout) -> int:
        """Layers of the chunk that has most."""
        return (
            max(layout.stage_layers)
            if layout.stage_layers
            else -(-self.work.shape.layers // (layout.pp * layout.vp))
        )

    def cases(self, nodes: int) -> Iterator[Case]:
        """Every legal choice on so many nodes, with each way to recompute."""
        for cut in self.cuts(nodes):
            for micro_batch in self.micro_batches(cut):
                for vp in self.pieces(cut, micro_batch):
                    layout = self.layout(cut, vp)
                    for mode in self.modes:
                        case = Case(self.work, self.gpu, nodes, self.gpus, layout, micro_batch, mode)
                        if rules.is_legal(case):
                            yield case
                            if mode == "full" and self.blocks:
                                most = self.largest_chunk(layout)
                                yield from (self.partly(case, layers) for layers in range(1, most))

    def count(self, nodes: int) -> int:
        """How many legal choices there are, ways to recompute aside."""
        total = 0
        for cut in self.cuts(nodes):
            sizes = self.micro_batches(cut)
            vp = self.pins.vp or max(1, len(self.pins.stage_layers) // cut.pp)
            plain = self.case(nodes, cut, vp, sizes[0])
            # of a cut the rules see the same at every micro-batch, but for what `pieces` looks at
            broken = {broken.code for broken in rules.broken(plain)} - {"P017"}
            if not broken:
                total += sum(len(self.pieces(cut, size)) for size in sizes)
        return total
