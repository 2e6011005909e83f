"""From a stage's roles to a job: each role gets its machines, its layout, and the reason for it.

Roles are placed one by one, each as a group of whole nodes of its own. What can go wrong is said here,
at the path of the pin or of the role: an illegal pin (the rule's code), a pinned layout that is
predicted not to fit (P030, a warning), and nothing that fits (P031, with the smallest that does).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specc import plan
from specc.diagnostics import Diagnostic
from specc.planner import layouts, objectives, rules
from specc.planner.hardware import Gpu, gpu
from specc.planner.layouts import NODES_MOST, Found, Search
from specc.planner.memory import Workload, role_memory
from specc.planner.rules import Case
from specc.planner.space import SIZES, Pins, Space

if TYPE_CHECKING:
    from specc.graph import StageRole

BIGGER = ("a100-80gb", "h100-80gb", "h200", "b200")
"""GPUs that the error names, in nodes of 8, when no number of the profile's own would do."""

SENSIBLE = 8
"""Times the GPUs of the smallest way that fits: a way that takes more of them is not advised."""


@dataclass(frozen=True)
class Request:
    """What one role asks for; None is the planner's to choose."""

    name: str
    program: str
    model: plan.Model
    work: Workload
    pins: Pins
    nodes: int | None
    gpus: int | None  # per node
    paths: dict[str, str]  # field of a case -> its path in the spec; "" -> the role's own
    objective: str = "fewest_nodes"  # one of objectives.OBJECTIVES: which number of nodes, when that is open
    max_nodes: int | None = None  # as the spec says; the cluster may give fewer
    group: str = ""  # role in whose processes it lives
    weights: str = ""  # swap | resident: of a frozen role in another's processes; empty where not said

    def path(self, *fields: str) -> str:
        """The path of the first of these fields that the spec has, else the role's."""
        return next((self.paths[field] for field in fields if field in self.paths), self.paths[""])


searched = functools.lru_cache(maxsize=256)(layouts.search)
chosen = functools.lru_cache(maxsize=256)(objectives.choose)
"""The search, made once: the rounds of a stage, and who explains a plan, ask the same question again."""


def place(
    request: Request, card: Gpu, gpus_per_node: int, most: int
) -> tuple[plan.Role | None, list[Diagnostic]]:
    """The role on its machines, or why there is no place for it. `most` bounds the nodes that it may take."""
    gpus = request.gpus or gpus_per_node
    if card.name == "cpu":
        return _place_on_cpu(request, card, gpus)
    if gpus > gpus_per_node:
        message = f"gpus {gpus} is more than the {gpus_per_node} of a node"
        return None, [
            Diagnostic("P034", "error", message, request.path("gpus"), "", f"use gpus: {gpus_per_node}")
        ]
    if request.nodes is None:
        return _place_anywhere(request, card, gpus, most)
    idle = _without_effect(request)
    found = searched(request.work, card, request.nodes, gpus, request.pins)
    if found.best is not None:
        return as_role(request, found.best, _why(request, found)), idle
    if found.smallest is not None and (found.smallest.oom_probability < 0.5 or _is_the_pins(request, found)):
        role, said = _tight(request, found.smallest)
        return role, [*idle, *said]
    return None, [*idle, *_nothing(request, card, gpus, most)]


def clerk(asked: StageRole) -> plan.Role:
    """A role without a model: one plain process, on a machine of which it asks no GPU."""
    return plan.Role(
        name=asked.name,
        program=asked.program,
        nodes=1,
        gpus=0,
        layout=plan.Layout(),
        micro_batch=asked.global_batch,
        global_batch=asked.global_batch,
        model=plan.NO_MODEL,
        trains=False,
        why="no model: one plain process",
    )


def _without_effect(request: Request) -> list[Diagnostic]:
    """What the spec aims at though it says how many nodes to take."""
    aims = [name for name in ("objective", "max_nodes") if name in request.paths]
    if not aims:
        return []
    message = f"with nodes {request.nodes} there is nothing to choose by plan.{' or plan.'.join(aims)}"
    help = "leave nodes out (--set nodes=null), or what the plan aims at"
    return [Diagnostic("P038", "warning", message, request.path(*aims), "", help)]


def _place_anywhere(
    request: Request, card: Gpu, gpus: int, most: int
) -> tuple[plan.Role | None, list[Diagnostic]]:
    """The role on the number of nodes that is best by its objective."""
    if request.objective == "earliest" and request.max_nodes is None:
        message = "the earliest end is that of a number of nodes, and none is given"
        help = "add plan.max_nodes, the most nodes that it may take"
        return None, [Diagnostic("P037", "error", message, request.path("objective"), "", help)]
    alone = Case(request.work, card, 1, gpus, plan.Layout(), 1, request.pins.recompute or "none")
    if (hopeless := rules.broken_anywhere(alone)) is not None:
        return None, [_as_diagnostic(hopeless, request)]
    most = min(most, request.max_nodes or most)
    bound = most if most < NODES_MOST else None
    found = chosen(request.work, card, gpus, request.pins, request.objective, bound)
    if found is not None and found.best is not None:
        return as_role(request, found.best, _why(request, found)), []
    if request.pins.names:  # where pins alone are in the way, the fewest nodes on which they are legal
        first = _first_legal(request, card, gpus, most)
        if first is not None and first.smallest is not None and _is_the_pins(request, first):
            return _tight(request, first.smallest)
    return None, _nothing(request, card, gpus, most)


def _is_the_pins(request: Request, found: Search) -> bool:
    """Whether it is pins that keep it from fitting: a layout, or what without them would fit there."""
    said = [name for name in request.pins.names if name in request.paths]  # not what an algorithm wants
    if not said or any(name in SIZES for name in said):
        return bool(said)
    assert found.space is not None
    free = searched(request.work, found.space.gpu, found.nodes, found.space.gpus, Pins())
    return free.best is not None


def _first_legal(request: Request, card: Gpu, gpus: int, most: int) -> Search | None:
    """The smallest number of nodes, of those worth asking about, on which the pins are legal."""
    space = Space(request.work, card, gpus, request.pins)
    legal = (nodes for nodes in range(1, min(most, 256) + 1) if space.count(nodes))
    nodes = next(legal, None)
    return None if nodes is None else Search(None, space, nodes)


def _place_on_cpu(request: Request, card: Gpu, gpus: int) -> tuple[plan.Role | None, list[Diagnostic]]:
    """Processes of this machine: as many as the profile says, more when a pinned layout needs them, fewer
    when the batch cannot be dealt to so many.
    """
    pinned = [size or 1 for size in (request.pins.tp, request.pins.pp, request.pins.cp)]
    wanted = gpus if request.gpus else max(gpus, _least_multiple(pinned))
    fewer = range(wanted, 0, -1) if not request.gpus else [wanted]
    nodes = request.nodes or 1
    for processes in fewer:
        found = searched(request.work, card, nodes, processes, request.pins)
        if found.best is not None:
            return as_role(request, found.best, _why(request, found)), []
    return None, _nothing(request, card, wanted, nodes)


def _least_multiple(sizes: list[int]) -> int:
    product = 1
    for size in sizes:
        product *= max(1, size)
    return product


def as_role(request: Request, found: Found, why: str) -> plan.Role:
    """The role as a case has it."""
    case = found.case
    return plan.Role(
        name=request.name,
        program=request.program,
        nodes=case.nodes,
        gpus=case.gpus,
        layout=case.layout,
        micro_batch=case.micro_batch,
        global_batch=case.work.global_batch,
        model=request.model,
        precision=case.work.precision,
        recompute=case.recompute,
        recompute_layers=case.work.recompute_layers if case.recompute == "full" else 0,
        recompute_modules=case.work.recompute_modules if case.recompute == "selective" else (),
        implementation=case.work.implementation,
        distributed_optimizer=case.work.distributed_optimizer,
        memory=role_memory(case.work, case.layout, case.micro_batch, case.recompute, case.gpu),
        # a CPU is not predicted, unless runs on it were measured
        step_seconds=0.0
        if case.gpu.name == "cpu" and case.work.time_factor == 1
        else round(found.seconds, 3),
        why=why,
    )


def _why(request: Request, search: Search) -> str:
    """One phrase: what was pinned, what was chosen, and out of how many."""
    best = search.best
    assert best is not None
    pinned = [name for name in request.pins.names if name != "recompute" and name in request.paths]
    said = f"{' and '.join(_list(pinned))} as pinned" if pinned else ""
    if best.case.gpu.name == "cpu":
        chosen = "processes of this machine"
        return f"{said}; {chosen}" if said else chosen
    fastest = f"the fastest that fits of {search.legal:,} legal choices" if search.legal > 1 else ""
    if request.nodes is None:
        nodes = best.case.nodes
        chosen = _NODES[request.objective].format(f"{nodes} node{'s are' if nodes > 1 else ' is'}")
        chosen += f"; {fastest} there" if fastest else ""
    else:
        chosen = fastest or "the only legal layout"
    if best.case.recompute == "full" and request.pins.recompute is None:
        layers = best.case.work.recompute_layers
        what = f"activations of {layers} layers of each stage's piece" if layers else "activations"
        chosen += f"; {what} are recomputed, since they do not fit"
    return f"{said}; {chosen}" if said else chosen


_NODES = {
    "fewest_nodes": "{} the fewest that fit",
    "fastest": "{} the fastest",
    "cheapest": "{} the cheapest in GPU-hours",
    "earliest": "{} the earliest to end",
}


def _list(names: list[str]) -> list[str]:
    return [", ".join(names[:-1]), names[-1]] if len(names) > 1 else names


# --- what is said when it does not work ------------------------------------------------------------


def _tight(request: Request, found: Found) -> tuple[plan.Role, list[Diagnostic]]:
    """The least memory that the pins allow, with a warning: people may know better."""
    case = found.case
    memory = role_memory(case.work, case.layout, case.micro_batch, case.recompute, case.gpu)
    parts = ", ".join(f"{name} {gib:.1f}" for name, gib in memory.parts.items() if gib >= 0.05)
    chance = f"{memory.oom_probability:.0%} likely to run out of memory"
    message = (
        f"{case.layout} takes {memory.total_gib:.1f} of {memory.capacity_gib:.1f} GiB per GPU and is {chance}"
    )
    wider = layouts.fewest_nodes(case.work, case.gpu, case.gpus, Pins())
    help = f"the parts are {parts} GiB"
    if wider is not None and wider.best is not None:
        nodes = max(wider.best.case.nodes, case.nodes)
        help += f"; without the pins {_nodes(nodes, case.gpus, case.gpu)} would do"
    path = request.path(*request.pins.names, "nodes")
    warning = Diagnostic("P030", "warning", message, path, "pinned", help)
    return as_role(request, found, "as pinned, though it is predicted not to fit"), [warning]


def _nothing(request: Request, card: Gpu, gpus: int, most: int) -> list[Diagnostic]:
    """Why there is no plan: no legal layout (the rule), or none that fits (the smallest that does)."""
    nodes = request.nodes or 1
    illegal = layouts.least_illegal(request.work, card, nodes, gpus, request.pins)
    if illegal and request.nodes is None:  # perhaps legal on another number of nodes
        illegal = _illegal_everywhere(request, card, gpus, most) or illegal
    if illegal:
        pinned = [broken for broken in illegal if set(broken.fields) & set(request.paths)] or illegal
        return [_as_diagnostic(pinned[0], request)]
    where = _nodes(nodes, gpus, card) if request.nodes else f"up to {_nodes(most, gpus, card)}"
    who = f"the {request.name} ({request.model.name})" if request.group else request.model.name
    message = f"{who} does not fit on {where}"
    path = request.path("nodes", "max_nodes")
    return [Diagnostic("P031", "error", message, path, "", _smallest(request, card, gpus))]


def _as_diagnostic(broken: rules.Broken, request: Request) -> Diagnostic:
    path = request.path(*[field for field in broken.fields if field in request.paths])
    return Diagnostic(broken.code, "error", broken.message, path, "", broken.help)


def _illegal_everywhere(request: Request, card: Gpu, gpus: int, most: int) -> list[layouts.Broken]:
    """What breaks on every small number of nodes; empty when the pins are legal on one of them."""
    last: list[layouts.Broken] = []
    for nodes in range(1, min(most, 64) + 1):
        found = layouts.least_illegal(request.work, card, nodes, gpus, request.pins)
        if not found:
            return []
        if not last or len(found) < len(last):
            last = found
    return last


def _smallest(request: Request, card: Gpu, gpus: int) -> str:
    """`it needs at least 4 nodes x 8 h100-80gb`, by the same search with what was pinned; then the same on
    larger GPUs. A number of nodes that nobody would take for it is left out where there is a better way.
    """
    ways: list[tuple[int, str]] = []
    own = layouts.fewest_nodes(request.work, card, gpus, request.pins)
    if own is not None:
        ways.append((own.nodes * gpus, _nodes(own.nodes, gpus, card)))
    for other in filter(None, map(gpu, BIGGER)):
        if other.usable_gib < 1.2 * card.usable_gib:
            continue
        found = layouts.fewest_nodes(request.work, other, other.gpus_per_node, Pins())
        if found is not None:
            count = found.nodes * other.gpus_per_node
            ways.append((count, _nodes(found.nodes, other.gpus_per_node, other)))
            break
    if not ways:
        return "use a shorter seq_length, a smaller model, or larger GPUs"
    fewest = min(count for count, _ in ways)
    sensible = [said for count, said in ways if count <= SENSIBLE * fewest]
    return f"it needs at least {' or '.join(sensible)}"


def _nodes(nodes: int, gpus: int, card: Gpu) -> str:
    return f"{nodes} node{'' if nodes == 1 else 's'} x {gpus} {card.name}"


def job_environment(card: Gpu, roles: tuple[plan.Role, ...]) -> dict[str, str]:
    """Variables that the layout needs: less fragmentation, and overlap of TP and CP before Blackwell."""
    if all(role.is_clerk for role in roles):
        return {}
    if card.name == "cpu":
        return {"OMP_NUM_THREADS": "1"}
    environment = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    if any(role.layout.tp > 1 or role.layout.cp > 1 for role in roles):
        environment["CUDA_DEVICE_MAX_CONNECTIONS"] = "1"
    return environment
