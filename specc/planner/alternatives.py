"""What else there was for roles that work together: other layouts, and other numbers of nodes.

For one role `compared` shows what the whole step would be with its other layouts on the same nodes, all else
as planned. `front` shows pairs of actor and critic that no other beats in nodes and time at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from specc import plan
from specc.planner.balance import ActorSide, Choice, CriticSide, Pair, Side, joined, pair
from specc.planner.comparison import RUNNERS_UP, Comparison, Rival, Timed, bubble, compare
from specc.planner.layouts import Found
from specc.planner.memory import GIB
from specc.planner.phases import peak, phases
from specc.planner.placement import Request
from specc.planner.ppo import Times, critic_times, formulas
from specc.planner.rules import Case
from specc.planner.team import Team, actor_alone, scored, sides
from specc.planner.workload import Workload

STEP = math.sqrt(2)
"""Each budget of nodes that `front` looks at is so many times the one before."""

REACH = 16


def compared(team: Team, request: Request, roles: Mapping[str, plan.Role]) -> Comparison:
    """What the role's layout was chosen from; for a guest in another's processes there was no choice."""
    role = roles[request.name]
    request = dataclasses.replace(request, work=_as_planned(request, role))
    found = compare(dataclasses.replace(request, nodes=role.nodes), role, team.card)
    if role.group != role.name:
        return dataclasses.replace(found, runners_up=(), too_large=())
    if team.card.name == "cpu":
        return found
    if (alone := actor_alone(team)) is not None and request.name == "actor":
        return _compared_alone(team, alone, roles, found)
    both = sides(team)
    if both is None or request.name not in ("actor", "critic"):  # the search knows of training alone
        return dataclasses.replace(found, runners_up=())
    actor, critic = both
    side: Side = actor if request.name == "actor" else critic
    choices = {name: _planned(s, roles[name]) for name, s in (("actor", actor), ("critic", critic))}
    rivals: list[Rival] = []
    for choice in side.every(role.nodes):
        chosen = choices | {request.name: choice}
        step = joined(chosen["actor"], chosen["critic"], critic).step.seconds
        rivals.append(_rival(choice, step, roles["actor"].step_seconds))
    others = sorted((r for r in rivals if r.layout != str(role.layout)), key=lambda r: r.step_seconds)
    return dataclasses.replace(
        found,
        step_seconds=roles["actor"].step_seconds,
        runners_up=tuple(others[:RUNNERS_UP]),
        times=_timed(joined(choices["actor"], choices["critic"], critic), actor, critic),
    )


def _compared_alone(
    team: Team, side: ActorSide, roles: Mapping[str, plan.Role], found: Comparison
) -> Comparison:
    """The same for an actor that no critic learns beside."""
    role, reward = roles["actor"], roles.get("reward")
    rivals = [
        _rival(choice, scored(team, choice, reward).step.seconds, role.step_seconds)
        for choice in side.every(role.nodes)
    ]
    others = sorted((r for r in rivals if r.layout != str(role.layout)), key=lambda r: r.step_seconds)
    planned = _planned(side, role)
    step, _, times = scored(team, planned, reward)
    said = formulas(planned.seat, dataclasses.replace(side.rollouts, rows=planned.rows), times)
    parts = dict.fromkeys((part.lane, part.name) for part in step.parts)
    timed = tuple(
        Timed(name, lane, round(step.of(name, lane), 3), said.get(f"{lane} {name}", said.get(name, "")))
        for lane, name in sorted(parts, key=lambda key: key[0])
    )
    return dataclasses.replace(
        found, step_seconds=role.step_seconds, runners_up=tuple(others[:RUNNERS_UP]), times=timed
    )


def _timed(chosen: Pair, actor: ActorSide, critic: CriticSide) -> tuple[Timed, ...]:
    """The parts of the planned step, lane by lane, with their formulas."""
    rollouts = dataclasses.replace(actor.rollouts, rows=chosen.actor.rows)
    judged = critic_times(
        chosen.critic.seat, critic.scores(chosen.critic), rollouts, chosen.batch, critic.swaps
    )
    said = formulas(chosen.actor.seat, rollouts, Times(**chosen.actor.times, **judged))
    passes = f"{rollouts.critic_epochs} x {rollouts.count} rows of {rollouts.tokens} tokens"
    said |= {"critic train": passes}
    names = dict.fromkeys((part.lane, part.name) for part in chosen.step.parts)
    return tuple(
        Timed(
            name, lane, round(chosen.step.of(name, lane), 3), said.get(f"{lane} {name}", said.get(name, ""))
        )
        for lane, name in sorted(names, key=lambda key: key[0])
    )


def front(team: Team, roles: Mapping[str, plan.Role]) -> list[Pair]:
    """Pairs by their nodes, each faster than all of fewer nodes; none where both numbers are given."""
    both = sides(team)
    pinned = (team.requests[0].nodes, roles["critic"].nodes if _is_pinned(team, "critic") else None)
    if both is None or team.card.name == "cpu" or None not in pinned:
        return []
    first = pair(*both, pinned, "fewest_nodes", None)
    found: list[Pair] = []
    most = min(team.most, REACH * first.nodes) if first else 0
    budget = float(first.nodes) if first else 1.0
    while budget <= most:
        better = pair(*both, pinned, "earliest", int(budget))
        if better is not None and (not found or better.step.seconds < found[-1].step.seconds):
            found.append(better)
        budget *= STEP
    return found


def _is_pinned(team: Team, name: str) -> bool:
    request = team.named(name)
    return request is not None and request.nodes is not None


def _as_planned(request: Request, role: plan.Role) -> Workload:
    return dataclasses.replace(
        request.work,
        rollout_micro_batch=role.rows,
        offload_optimizer_in_rollout=role.offload_optimizer,
    )


def _planned(side: Side, role: plan.Role) -> Choice:
    """The plan's own choice, with its times."""
    work = dataclasses.replace(
        side.request.work,
        recompute_layers=role.recompute_layers,
        recompute_modules=role.recompute_modules,
        rollout_micro_batch=role.rows,
        offload_optimizer_in_rollout=role.offload_optimizer,
    )
    case = Case(work, side.card, role.nodes, role.gpus, role.layout, role.micro_batch, role.recompute)
    return side.timed(Choice(Found(case, 0.0, 0.0, 0.0), work, {}, role.rows))


def _rival(choice: Choice, seconds: float, planned: float) -> Rival:
    case = choice.found.case
    found = phases(choice.seat.work, case.layout, case.micro_batch, case.recompute, True, case.gpu)
    total = peak(found).total / GIB
    return Rival(
        nodes=case.nodes,
        layout=str(case.layout),
        micro_batch=case.micro_batch,
        recompute=case.recompute,
        recompute_layers=case.work.recompute_layers if case.recompute == "full" else 0,
        step_seconds=round(seconds, 3),
        slower=round(seconds - planned, 3) + 0.0,  # no -0
        bubble=bubble(case.layout, case.micro_batch, case.work.global_batch),
        total_gib=round(total, 3),
        over_gib=round(total - case.gpu.usable_gib, 3),
        oom_probability=choice.found.oom_probability,
    )
