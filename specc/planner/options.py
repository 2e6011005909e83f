"""The choices that a role leaves open: more nodes and an earlier end, or fewer and a later one.

At one number of nodes the fastest layout is the best in GPU-hours too, and GPU-hours are nodes times
time; so an option is dominated exactly when another takes no more nodes and no more time. Every number of
nodes is looked at, from the fewest that fit up to REACH times as many, or as the cluster gives.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from specc import planner
from specc.plan import Job, Layout, Memory, Plan, Role
from specc.planner import objectives
from specc.planner.hardware import Gpu, gpu
from specc.planner.layouts import NODES_MOST, Found
from specc.planner.memory import role_memory
from specc.planner.placement import Request, searched

if TYPE_CHECKING:
    from specc.graph import Graph
    from specc.planner.team import Team
    from specc.spec.cluster import Profile


@dataclass(frozen=True)
class Option:
    """One way to run a role. Wall time and GPU-hours are 0 where the number of steps is not known."""

    stage: str
    role: str
    nodes: int
    gpus: int  # per node
    layout: Layout
    micro_batch: int
    recompute: str
    recompute_layers: int  # of each chunk; 0 for all
    memory: Memory = field(repr=False)
    step_seconds: float
    wall_seconds: float
    gpu_hours: float
    planned: bool  # whether it is what the plan takes


def options(graph: Graph, profile: Profile, plan: Plan, folder: Path | str, count: int) -> list[Option]:
    """Up to `count` options of each role, by nodes; the one that the plan takes is always among them."""
    roles = {(job.stage, role.name): (job, role) for job in plan.jobs for role in job.roles}
    said: list[Option] = []
    teams = planner.teams(graph, profile, folder)
    for job in plan.jobs:
        if job.stage in teams:
            said += _of_team(job, teams[job.stage], count)
    for stage, request in planner.requests(graph, profile, folder):
        if stage.name in teams:
            continue
        job, role = roles[stage.name, request.name]
        card = gpu(plan.cluster.gpu)
        assert card is not None
        front = pareto(_candidates(request, card, role, profile.nodes or NODES_MOST))
        ways = [_taken(role, found) for found in front]
        if role not in ways:
            ways = sorted([*ways, role], key=lambda way: way.nodes)
        said += spread([_option(job, way, way is role) for way in ways], count)
    return said


def _of_team(job: Job, team: Team, count: int) -> list[Option]:
    """Pairs of roles whose sizes are chosen together: two lines each, with the time of the whole step."""
    from specc.planner.alternatives import front  # which only they need

    roles = {role.name: role for role in job.roles}
    hosts = [role for role in job.roles if role.group in ("", role.name)]
    planned = [
        _option(job, dataclasses.replace(role, step_seconds=hosts[0].step_seconds), True) for role in hosts
    ]
    others: list[list[Option]] = []
    for pair in front(team, roles):
        ways = [
            dataclasses.replace(_taken(roles[name], choice.found), step_seconds=round(pair.step.seconds, 3))
            for name, choice in (("actor", pair.actor), ("critic", pair.critic))
        ]
        if [way.nodes for way in ways] != [role.nodes for role in hosts[:2]]:
            others.append([_option(job, way, False) for way in ways])
    kept = others if len(others) < count else others[:: -(-len(others) // max(1, count - 1))]
    everything = sorted([planned, *kept], key=lambda rows: sum(row.nodes for row in rows))
    return [row for rows in everything for row in rows]


def _candidates(request: Request, card: Gpu, role: Role, most: int) -> Iterable[Found]:
    """The fastest fitting case of each number of nodes that the pins allow; none on a CPU, or where the
    plan holds a layout that does not fit.
    """
    if card.name == "cpu":
        return []
    work, pins = request.work, request.pins
    if request.nodes is not None:
        found = searched(work, card, request.nodes, role.gpus, pins).best
        return [found] if found is not None else []
    return objectives.front(work, card, role.gpus, pins, min(most, request.max_nodes or most))


def pareto(found: Iterable[Found]) -> list[Found]:
    """Those that no other beats in nodes and time at once, by nodes."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda f: (f.case.nodes, f.order)):
        if not kept or round(one.seconds, 3) < round(kept[-1].seconds, 3):  # as it is shown
            kept.append(one)
    return kept


def spread(front: Sequence[Option], count: int) -> list[Option]:
    """`count` of the front, far apart: the planned one, the ends, then whatever is farthest from those."""
    ends = [option for option in front if option.planned][:1] or list(front[:1])
    taken = list(dict.fromkeys([*map(front.index, ends), 0, len(front) - 1]))[:count]
    while len(taken) < min(count, len(front)):
        left = (index for index in range(len(front)) if index not in taken)
        taken.append(max(left, key=lambda index: min(_ratio(front[index], front[t]) for t in taken)))
    return [front[index] for index in sorted(taken)]


def _ratio(one: Option, other: Option) -> float:
    return abs(math.log(one.nodes / other.nodes))


def _taken(role: Role, found: Found) -> Role:
    """The role as it would be with this case."""
    case = found.case
    choice = {
        "nodes": case.nodes,
        "layout": case.layout,
        "micro_batch": case.micro_batch,
        "recompute": case.recompute,
        "recompute_layers": case.work.recompute_layers if case.recompute == "full" else 0,
    }
    if all(getattr(role, key) == value for key, value in choice.items()):
        return role
    memory = role_memory(case.work, case.layout, case.micro_batch, case.recompute, case.gpu)
    return dataclasses.replace(role, **choice, memory=memory, step_seconds=round(found.seconds, 3))


def _option(job: Job, role: Role, planned: bool) -> Option:
    steps = job.settings.get("train", {}).get("steps") or 0
    return Option(
        stage=job.stage,
        role=role.name,
        nodes=role.nodes,
        gpus=role.gpus,
        layout=role.layout,
        micro_batch=role.micro_batch,
        recompute=role.recompute,
        recompute_layers=role.recompute_layers,
        memory=role.memory,
        step_seconds=role.step_seconds,
        wall_seconds=round(steps * role.step_seconds, 1),
        gpu_hours=round(steps * role.step_seconds / 3600 * role.nodes * role.gpus, 3),
        planned=planned,
    )
