"""Why a role's layout is what it is: what else was possible, what it lost by, and what does not fit.

The search is done once more on the plan's nodes and goes on behind the winner; each layout stands there with
its best micro-batch. Those that do not fit are the ones that would have been as fast. What was pinned stays
pinned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from specc.plan import Layout, Role
from specc.planner import layouts
from specc.planner.bounds import Bounds
from specc.planner.feasibility import Band, band
from specc.planner.hardware import Gpu
from specc.planner.layouts import Found, Frontier
from specc.planner.memory import GIB, in_flight, layer_activations, logit_bytes, peak
from specc.planner.placement import Request, searched
from specc.planner.shapes import layers_of_stage, padded_vocab, stage_layers, stage_parameters
from specc.planner.space import Space
from specc.planner.step_parts import step_parts
from specc.planner.workload import Workload

RUNNERS_UP, NEAREST = 4, 3


@dataclass(frozen=True)
class Rival:
    """A layout that was not taken. Times are of one step; the bubble is the pipeline's idle share."""

    nodes: int
    layout: str
    micro_batch: int
    recompute: str
    recompute_layers: int  # of each chunk; 0 for all
    step_seconds: float
    slower: float  # seconds a step more than the winner
    bubble: float
    total_gib: float
    over_gib: float  # beyond the GPU's memory; less than nothing where it is only too close to it
    oom_probability: float


@dataclass(frozen=True)
class Formula:
    """One part of the memory of the fullest GPU, as a product with its numbers put in."""

    part: str
    text: str
    gib: float


@dataclass(frozen=True)
class Timed:
    """A part of a step, and how its seconds come about."""

    part: str
    lane: str  # the group whose processes it takes
    seconds: float
    text: str


@dataclass(frozen=True)
class Comparison:
    """The winner among its rivals. `bubble` is the winner's own."""

    role: str
    winner: str
    step_seconds: float
    bubble: float
    runners_up: tuple[Rival, ...]
    too_large: tuple[Rival, ...]
    margin: float  # the likeliness of running out of memory that the search allows
    stage: int  # the pipeline stage of the fullest GPU
    formulas: tuple[Formula, ...]
    times: tuple[Timed, ...]  # of a step, in all lanes where several roles make it; none on a CPU
    bands: tuple[Band, ...]  # how likely it runs out, with expandable segments and without; none on a CPU


def compare(request: Request, role: Role, card: Gpu) -> Comparison:
    """What the role's choice was made from."""
    runners_up, large = _rivals(request, role, card)
    if request.nodes is None and role.nodes > 1 and card.name != "cpu":
        fewer = searched(request.work, card, role.nodes - 1, role.gpus, request.pins)
        large = [*([fewer.smallest] if fewer.smallest and not fewer.best else []), *large]
    stage = role.memory.worst_rank // (role.layout.tp * role.layout.cp * role.layout.dp)
    return Comparison(
        role=role.name,
        winner=str(role.layout),
        step_seconds=role.step_seconds,
        bubble=_waits(request.work, role.layout, role.micro_batch),
        runners_up=tuple(_rival(found, role) for found in runners_up),
        too_large=tuple(_rival(found, role) for found in large[:NEAREST]),
        margin=layouts.MARGIN,
        stage=stage,
        formulas=tuple(formulas(request, role, card, stage)),
        times=tuple(times(request, role, card)),
        bands=bands(role),
    )


def _waits(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Share of a step for which its pipeline waits; responses do not go through it in turns."""
    return 0.0 if work.only_generates else bubble(layout, micro_batch, work.global_batch)


def _rivals(request: Request, role: Role, card: Gpu) -> tuple[list[Found], list[Found]]:
    """The next fastest layouts that fit; and those that do not with any micro-batch: first the ones that
    would be as fast, then the nearest to fitting.
    """
    space = Space(request.work, card, role.gpus, request.pins)
    frontier = Frontier(Bounds(space), role.nodes, keep_large=True)
    fitting: dict[Layout, Found] = {}
    for found in frontier:
        fitting.setdefault(found.case.layout, found)
        if len(fitting) > RUNNERS_UP + 1:
            break
    large: dict[Layout, Found] = {}
    as_fast = sorted(frontier.too_large, key=lambda f: (f.total_gib, f.order))
    others = (
        layouts.smallest(space, role.nodes, NEAREST, only_too_large=True) if len(as_fast) < NEAREST else []
    )
    for found in (*as_fast, *others):
        if found.case.layout not in fitting and found.case.layout != role.layout:
            large.setdefault(found.case.layout, found)
    runners_up = [found for layout, found in fitting.items() if layout != role.layout]
    return runners_up[:RUNNERS_UP], list(large.values())


def _rival(found: Found, role: Role) -> Rival:
    case = found.case
    shown = case.gpu.name != "cpu"  # where time is not predicted, but only ranks
    return Rival(
        nodes=case.nodes,
        layout=str(case.layout),
        micro_batch=case.micro_batch,
        recompute=case.recompute,
        recompute_layers=case.work.recompute_layers if case.recompute == "full" else 0,
        step_seconds=round(found.seconds, 3) if shown else 0.0,
        slower=round(found.seconds - role.step_seconds, 3) + 0.0 if shown else 0.0,  # no -0
        bubble=_waits(case.work, case.layout, case.micro_batch),
        total_gib=round(found.total_gib, 3),
        over_gib=round(found.total_gib - case.gpu.usable_gib, 3) if shown else 0.0,
        oom_probability=found.oom_probability,
    )


def bubble(layout: Layout, micro_batch: int, global_batch: int) -> float:
    """The share of a step in which a pipeline stage waits: (p - 1) / (v m + p - 1)."""
    waiting = layout.pp - 1
    work = layout.vp * max(1, global_batch // (micro_batch * layout.dp))
    return round(waiting / (work + waiting), 3)


def bands(role: Role) -> tuple[Band, ...]:
    """Between which totals a run goes from safe to lost, by how the allocator is set."""
    memory = role.memory
    if not memory.capacity_gib:
        return ()
    return tuple(band(memory.total_gib, memory.capacity_gib, expandable) for expandable in (True, False))


# --- memory, with its numbers ------------------------------------------------------------------------


def times(request: Request, role: Role, card: Gpu) -> Iterator[Timed]:
    """The parts of a role's step, each a formula with its numbers."""
    work = request.work
    work = dataclasses.replace(work, recompute_layers=role.recompute_layers)
    work = dataclasses.replace(work, recompute_modules=role.recompute_modules)
    for part in step_parts(work, role.layout, role.micro_batch, role.recompute, card, role.gpus):
        numbers = ", ".join(f"{each.symbol} {each.value:.4g} {each.meaning}" for each in part.numbers)
        corrected = f" x {work.time_factor:g} as runs taught" if work.time_factor != 1 else ""
        yield Timed(part.name, "", work.time_factor * part.seconds, f"{part.formula}{corrected}; {numbers}")


def formulas(request: Request, role: Role, card: Gpu, stage: int) -> list[Formula]:
    """The parts of the plan's memory that are products, factor by factor; others as what they are."""
    words = {
        "weights": _per_parameter,
        "gradients": _per_parameter,
        "optimizer": _shared,
        "activations": _activations,
        "logits": _logits,
    }
    request = dataclasses.replace(request, work=_as_chosen(request.work, role))
    parts = peak(request.work, role.layout, role.micro_batch, role.recompute, card.name != "cpu").parts
    return [
        Formula(
            part,
            words[part](request, role, stage, size) if part in words else OTHERS.get(part, ""),
            round(size / GIB, 6),
        )
        for part, size in parts
        if size
    ]


def _as_chosen(work: Workload, role: Role) -> Workload:
    """The work with what the plan computes again of it."""
    return dataclasses.replace(
        work, recompute_layers=role.recompute_layers, recompute_modules=role.recompute_modules
    )


OTHERS = {
    "buffers": "workspaces of matrix products and attention, and what is on its way between stages",
    "outside": "CUDA context and NCCL's buffers, which the framework's counters do not show",
    "imbalance": "experts that get more tokens than their share",
    "cache": "keys and values",
    "engine weights": "what a second engine holds of the model, cut by TP alone unless it is resharded",
    "folded weights": "the other stages' weights, gathered while it generates without pipeline stages",
    "gathered": "pieces of the optimizer's state on their way to the host",
    "workspace": "workspaces of matrix products",
}


def _per_parameter(request: Request, role: Role, stage: int, size: float) -> str:
    held = stage_parameters(request.work.shape, role.layout, stage, request.work.head)
    count = held.dense + held.experts
    return f"{count:,} parameters x {size / count:.3g} bytes"


def _shared(request: Request, role: Role, stage: int, size: float) -> str:
    """Adam's state: of dense parameters over dp x cp, of experts over the ranks that hold the same ones."""
    layout = role.layout
    held = stage_parameters(request.work.shape, layout, stage, request.work.head)
    group = layout.dp * layout.cp if role.distributed_optimizer else 1
    owners = max(1, layout.tp * group // (layout.ep * layout.etp)) if role.distributed_optimizer else 1
    each = size / (held.dense / group + held.experts / owners)
    said = (
        f"{held.dense:,} parameters / (dp {layout.dp} x cp {layout.cp})" if group > 1 else f"{held.dense:,}"
    )
    if held.experts:
        return f"({said} + {held.experts:,} of experts / {owners}) x {each:.3g} bytes"
    return f"{said} x {each:.3g} bytes" if group > 1 else f"{said} parameters x {each:.3g} bytes"


def _activations(request: Request, role: Role, stage: int, size: float) -> str:
    work, layout = request.work, role.layout
    kept = layer_activations(work, layout, role.micro_batch, role.recompute) if work.trains else 0.0
    layers = layers_of_stage(work.shape, layout, stage)
    turns = in_flight(layout, stage, max(1, role.global_batch // (role.micro_batch * layout.dp)))
    product = kept * layers / layout.vp * turns
    chunk = f" / vp {layout.vp}" if layout.vp > 1 else ""
    said = f"{kept / 2**20:,.1f} MiB of a layer x {layers} layers{chunk} x {turns} in flight"
    if role.recompute == "full" and role.recompute_layers:  # the others keep everything
        each = [
            min(role.recompute_layers, held) for held in stage_layers(work.shape, layout)[stage :: layout.pp]
        ]
        again, plain = sum(each), layers - sum(each)
        whole = layer_activations(work, layout, role.micro_batch, "none")
        product = (kept * again + whole * plain) / layout.vp * turns
        said = (
            f"({kept / 2**20:,.1f} MiB of a layer x {again} layers + {whole / 2**20:,.1f} MiB of a layer x "
            f"{plain} layers){chunk} x {turns} in flight"
        )
    rest = (size - product) / 2**20
    if rest < -2:  # pieces differ, and those in flight are the smaller ones
        return f"{kept / 2**20:,.1f} MiB of a layer x {size / kept:,.2f} layers in flight"
    if not kept:  # nothing stays for a backward pass
        return f"{rest:,.1f} MiB while one layer is computed"
    return said + (f" + {rest:,.1f} MiB while one layer is computed" if rest > 2 else "")


def _logits(request: Request, role: Role, stage: int, size: float) -> str:
    work, layout = request.work, role.layout
    one = 1 if work.only_generates else work.seq_length // layout.cp  # token of each row that is looked at
    tokens = one * role.micro_batch
    vocab = padded_vocab(work.shape.vocab, layout.tp) // layout.tp
    own = logit_bytes(work, layout, role.micro_batch)
    rest = (size - own) / 2**20
    said = (
        f"{tokens:,} tokens x {vocab:,} of the vocabulary x {own / (tokens * vocab):.3g} bytes" if own else ""
    )
    more = f"{rest:,.1f} MiB of hidden states" if rest > 2 else ""
    return " + ".join(filter(None, (said, more)))
