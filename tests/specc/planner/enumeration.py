"""The search's reference: random problems, and the plain enumeration of everything that the rules allow.

Problems are small models on few GPUs, whose memory is drawn near what some legal layout takes, so that some
layouts fit and others do not. `differences` compares one search with the enumeration; the suite asks it about
hundreds of problems, `tests/campaign_search.py` about thousands.
"""

import dataclasses
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from specc.plan import Layout, Shape
from specc.planner import hardware, layouts, rules
from specc.planner.hardware import Gpu
from specc.planner.layouts import Found
from specc.planner.memory import Workload
from specc.planner.rules import Case
from specc.planner.shapes import balanced, stage_layers
from specc.planner.space import MODES, Pins

OF_LAYOUT = ("tp", "pp", "vp", "cp", "ep", "etp", "stage_layers")


@dataclass(frozen=True)
class Problem:
    work: Workload
    gpu: Gpu
    nodes: int
    gpus: int
    pins: Pins


def problem(seed: int) -> Problem:
    """A random problem; the same for the same seed."""
    draw = random.Random(seed)
    nodes, gpus = draw.choice([(n, g) for n in range(1, 7) for g in (1, 2, 3, 4, 6, 8) if n * g <= 16])
    card = hardware.gpu(draw.choice(["a100-80gb", "h100-80gb", "rtx4090", "gb200"]))
    assert card is not None
    given = Problem(_work(draw), card, nodes, gpus, _pins(draw))
    legal = list(itertools.islice(everything(given), 400))
    if not legal:
        return given
    near = layouts.judged(draw.choice(legal)).total_gib
    card = dataclasses.replace(card, usable_gib=near * draw.uniform(0.9, 1.6))
    return dataclasses.replace(given, gpu=card)


def _work(draw: random.Random) -> Workload:
    heads = draw.choice([2, 4, 6, 8, 12])
    experts = draw.choice([0, 0, 0, 2, 4])
    shape = Shape(
        family="llama",
        layers=draw.randint(1, 8),
        hidden=heads * 128,
        ffn=draw.choice([2048, 3072, 5120]),
        heads=heads,
        kv_groups=draw.choice([g for g in (1, 2, 4, heads) if heads % g == 0]),
        head_dim=128,
        vocab=draw.choice([1000, 32000]),
        max_positions=8192,
        tied=draw.random() < 0.3,
        experts=experts,
        experts_per_token=min(experts, 2),
        expert_ffn=draw.choice([512, 768]) if experts else 0,
    )
    trains = draw.random() < 0.9
    return Workload(
        shape,
        seq_length=draw.choice([512, 1000, 1024, 1536]),
        global_batch=draw.choice([1, 2, 3, 4, 6, 8, 12]),
        trains=trains,
        head=draw.choice(["language", "language", "scalar"]),
        precision=draw.choice(["bf16", "bf16", "fp32"]),
        implementation=draw.choice(["te", "te", "local"]),
        gradient_bytes=draw.choice([4, 4, 2]),
        distributed_optimizer=draw.random() < 0.9,
    )


def _pins(draw: random.Random) -> Pins:
    def some(*values: object) -> object:
        return draw.choice(values) if draw.random() < 0.15 else None

    return Pins(
        tp=some(1, 2, 4),  # type: ignore[arg-type]
        pp=some(1, 2, 3),  # type: ignore[arg-type]
        vp=some(1, 2),  # type: ignore[arg-type]
        cp=some(1, 2),  # type: ignore[arg-type]
        ep=some(1, 2),  # type: ignore[arg-type]
        etp=some(1, 2),  # type: ignore[arg-type]
        micro_batch=some(1, 2, 3),  # type: ignore[arg-type]
        recompute=some("none", "selective", "full"),  # type: ignore[arg-type]
    )


def everything(given: Problem) -> Iterator[Case]:
    """Every legal case: all sizes up to the world, with no thought given to which may be worth a look."""
    world, shape, pins = given.nodes * given.gpus, given.work.shape, given.pins
    sizes = range(1, world + 1)
    modes = MODES if given.work.trains else ("none",)
    for tp, cp, pp in itertools.product(sizes, sizes, sizes):
        if world % (tp * cp * pp) or any(
            getattr(pins, name) not in (None, size) for name, size in (("tp", tp), ("cp", cp), ("pp", pp))
        ):
            continue
        dp = world // (tp * cp * pp)
        experts = itertools.product(range(1, shape.experts + 1), sizes) if shape.experts else [(1, 1)]
        for (ep, etp), vp in itertools.product(experts, range(1, shape.layers // pp + 1)):
            dealt = balanced(shape.layers, pp * vp) if shape.layers % (pp * vp) else ()
            layout = Layout(tp, pp, vp, cp, ep, etp, dp, tp > 1, dealt)
            for micro_batch in range(1, given.work.global_batch + 1):
                case = Case(given.work, given.gpu, given.nodes, given.gpus, layout, micro_batch)
                if not _kept(case, pins) or not rules.is_legal(case):
                    continue
                for mode in (pins.recompute,) if pins.recompute else modes:
                    yield dataclasses.replace(case, recompute=mode)
                if given.work.trains and not pins.recompute:
                    for layers in range(1, max(stage_layers(shape, layout))):
                        partly = dataclasses.replace(given.work, recompute_layers=layers)
                        yield dataclasses.replace(case, work=partly, recompute="full")


def _kept(case: Case, pins: Pins) -> bool:
    return all(
        getattr(case.layout if name in OF_LAYOUT else case, name) == getattr(pins, name)
        for name in pins.names
        if name != "recompute"
    )


def differences(given: Problem) -> list[str]:
    """Where the search and the plain enumeration disagree; empty when they do not."""
    every = [layouts.judged(case) for case in everything(given)]
    fitting = [found for found in every if found.fits]
    search = layouts.search(given.work, given.gpu, given.nodes, given.gpus, given.pins)
    said = []
    legal = len({(found.case.layout, found.case.micro_batch) for found in every})
    if search.legal != legal:
        said.append(f"{search.legal} legal, but enumerated are {legal}")
    best = min(fitting, key=lambda f: f.order, default=None)
    if _order(best) != _order(search.best):
        said.append(f"the best is {_shown(best)}, but the search says {_shown(search.best)}")
    least = min((found.total_gib for found in every), default=None)
    found = search.smallest.total_gib if search.smallest else None
    if least != found:
        said.append(f"the smallest takes {least} GiB, but the search says {found}")
    return said


def _shown(found: Found | None) -> str:
    if found is None:
        return "none"
    case = found.case
    how = f"{case.recompute} {case.work.recompute_layers or ''}".strip()
    return f"{case.layout} x {case.micro_batch}, {how}, {found.seconds:.6g} s, {found.total_gib:.3f} GiB"


def _order(found: Found | None) -> tuple[float | int, ...] | None:
    return found.order if found is not None else None
