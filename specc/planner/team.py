"""From the requests of a stage with several roles to the roles of its job, and what is wrong with them.

A guest lives in the processes of its host, on the same nodes and GPUs. Of a shape that is there already it
has that model's layout, and its weights are swapped through the host's memory or lie beside; of another
shape it is a model of its own. Groups have whole nodes of their own, but where there is one machine only
they share its GPUs. Sizes of actor and critic are chosen together (`balance`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from specc import plan
from specc.diagnostics import Diagnostic
from specc.planner.balance import (
    NOTHING,
    ROWS_MOST,
    ActorSide,
    Choice,
    CriticSide,
    Pair,
    alone,
    fits,
    joined,
    pair,
)
from specc.planner.hardware import Gpu
from specc.planner.layouts import NODES_MOST, Found
from specc.planner.memory import model_state, role_memory
from specc.planner.placement import Request, as_role, place
from specc.planner.ppo import REQUEST, Rollouts, Step, Times, actor_times, timeline
from specc.planner.rollout import Lengths
from specc.planner.rules import Case
from specc.planner.shapes import stage_parameters

ROWS_ON_A_CPU = 32
"""Responses that a replica generates at once there, at most."""


@dataclass(frozen=True)
class Team:
    """The requests of a stage, and what they share."""

    requests: tuple[Request, ...]
    rollouts: Rollouts
    card: Gpu
    gpus_per_node: int
    most: int  # nodes of the job
    one_machine: bool  # all groups are on the same node
    offload: bool | None = False  # of the actor; None is the planner's to choose

    def named(self, name: str) -> Request | None:
        return next((request for request in self.requests if request.name == name), None)

    def guests(self, host: Request) -> list[Request]:
        return [r for r in self.requests if r.group == host.name and r.name != host.name]

    @property
    def hosts(self) -> list[Request]:
        return [request for request in self.requests if request.group == request.name]

    @property
    def gpus(self) -> int:
        """GPUs of a node that a group gets where its role does not say."""
        return max(1, self.gpus_per_node // len(self.hosts)) if self.one_machine else self.gpus_per_node


@dataclass(frozen=True)
class Placed:
    """The roles, with what only all of them together decide."""

    roles: tuple[plan.Role, ...]
    timeline: tuple[plan.Span, ...] = ()
    batch: int = 0  # rows of a request; 0 where nothing is predicted


def rollouts_of(settings: Mapping[str, Any]) -> Rollouts:
    """What a step generates, from the settings of a job that learns from rollouts."""
    generate = settings["generate"]
    own = next(section for section in settings.values() if "rollouts" in section)
    mean = generate["expected_tokens"] or max(1.0, generate["max_tokens"] / 2)
    return Rollouts(
        count=own.get("generations") or own["rollouts"],
        epochs=own["epochs"],
        prompt=generate["expected_prompt_tokens"] or max(1.0, generate["max_prompt_tokens"] / 4),
        lengths=Lengths(mean, generate["max_tokens"]),
        rows=generate["rows"] or 0,
        engine=generate["engine"],
        reshard=generate["reshard"],
        learnt=own.get("learnt") or 0,
        learnt_tokens=own.get("learnt_tokens") or 0,
        critic_epochs=(settings.get("critic") or {}).get("epochs") or 1,  # as the runtime takes it
    )


def place_together(team: Team) -> tuple[Placed, list[Diagnostic]]:
    """Every role on its machines; fewer than were asked for where one has no place."""
    said = _what_cannot_be(team)
    if said:
        return Placed(()), said
    team = dataclasses.replace(team, requests=tuple(_with_guests(team, r) for r in team.requests))
    critic = team.named("critic")
    if team.card.name == "cpu" or (critic is not None and critic.group != "critic"):
        return _one_by_one(team)
    return _balanced(team) if critic is not None else _uncriticised(team)


# --- what cannot be --------------------------------------------------------------------------------------


def _what_cannot_be(team: Team) -> list[Diagnostic]:
    said: list[Diagnostic] = []
    actor = team.requests[0]
    for request in team.requests[1:]:
        path = request.paths.get("model", request.path())
        if request.model.shape.vocab != actor.model.shape.vocab and path not in [d.path for d in said]:
            message = (
                f"`{request.model.name}` knows {request.model.shape.vocab} tokens, the actor's model "
                f"{actor.model.shape.vocab}: they do not read the same ids"
            )
            help = "take models with the same tokenizer"
            said.append(Diagnostic("P040", "error", message, path, "", help))
        if request.weights == "swap" and _kin(team, request) is None:
            host = request.group
            message = f"the {request.name} is not of the {host}'s shape, so their weights cannot trade places"
            help = f"use weights: resident, or a model of the shape of {_name(team, host)}"
            where = request.paths.get("weights", request.path())
            said.append(Diagnostic("P041", "error", message, where, "", help))
    hosts = team.hosts
    if team.one_machine and team.card.name != "cpu" and len(hosts) > team.gpus_per_node:
        message = f"{len(hosts)} groups of processes need a GPU each, and there is {team.gpus_per_node}"
        help = "use placement: local, where all models take turns"
        said.append(Diagnostic("P042", "error", message, actor.path("placement"), "", help))
    return said


def _name(team: Team, role: str) -> str:
    request = team.named(role)
    return f"`{request.model.name}`" if request else f"the {role}"


def _kin(team: Team, request: Request) -> Request | None:
    """The role whose place a frozen guest's weights can take: the one of its shape that is in its group, with
    a head of its kind where there are several.
    """
    if request.work.trains or request.group == request.name:
        return None
    others = [r for r in team.requests if r.group == request.group and r.work.trains]
    alike = [r for r in others if r.model.shape == request.model.shape]
    numbers = request.work.head != "language"
    return min(alike, key=lambda r: (r.work.head != "language") != numbers, default=None)


def _is_swapped(team: Team, request: Request) -> bool:
    return request.weights != "resident" and _kin(team, request) is not None


def _with_guests(team: Team, request: Request) -> Request:
    """The request of a role that trains, with the frozen weights that share its place in view."""
    kept = [r for r in team.requests if (kin := _kin(team, r)) is not None and kin.name == request.name]
    if not kept:
        return request
    swapped = all(_is_swapped(team, r) for r in kept)
    work = dataclasses.replace(request.work, reference="swap" if swapped else "resident")
    return dataclasses.replace(request, work=work)


# --- one after the other -----------------------------------------------------------------------------------


def _one_by_one(team: Team) -> tuple[Placed, list[Diagnostic]]:
    """Each host by itself, its guests on its nodes."""
    said: list[Diagnostic] = []
    roles: dict[str, plan.Role] = {}
    for host in team.hosts:
        role, more = place(_with_gpus(team, host), team.card, team.gpus_per_node, team.most)
        said += more
        if role is not None:
            roles |= _group(team, host, role, said)
    ordered = tuple(roles[r.name] for r in team.requests if r.name in roles)
    if len(ordered) < len(team.requests):
        return Placed(ordered), said
    timeline, batch = _prediction(team, roles)
    seconds = round(max((part.start + part.seconds for part in timeline), default=0.0), 3)
    if seconds:  # the actor's step is the job's
        ordered = (dataclasses.replace(ordered[0], step_seconds=seconds), *ordered[1:])
    return Placed(ordered, timeline, batch), said


def _with_gpus(team: Team, request: Request) -> Request:
    if not team.one_machine:
        return request
    return dataclasses.replace(request, gpus=request.gpus or team.gpus, nodes=request.nodes or 1)


def _group(team: Team, host: Request, role: plan.Role, said: list[Diagnostic]) -> dict[str, plan.Role]:
    """A host's role and those of its guests. Models of their own take room: the host is placed anew."""
    guests = team.guests(host)
    own = [r for r in guests if r.work.trains or _kin(team, r) is None]
    found = {r.name: _own(team, r, role, said) for r in own}
    room = sum(_resting(made, team.requests, team.card) for made in found.values() if made is not None)
    if room and team.card.name != "cpu":
        host = dataclasses.replace(
            host, work=dataclasses.replace(host.work, beside=room), nodes=role.nodes, gpus=role.gpus
        )
        anew, more = place(host, team.card, team.gpus_per_node, team.most)
        said += more
        role = anew or role
        found = {r.name: _own(team, r, role, said, _resting(role, team.requests, team.card)) for r in own}
    roles = {host.name: _hosting(team, host, role)}
    roles |= {name: made for name, made in found.items() if made is not None}
    for guest in guests:
        kin = _kin(team, guest)
        if guest.name not in found and kin is not None and kin.name in roles:
            roles[guest.name] = _sharing(team, guest, roles[kin.name], host.name)
    return roles


def _hosting(team: Team, request: Request, role: plan.Role) -> plan.Role:
    """The role with what only roles of a team have."""
    work = request.work
    if work.phase == "actor" and not role.rows:
        role = _generating(team, request, role)
    return dataclasses.replace(
        role, group=request.group, trains=work.trains, offload_optimizer=work.offload_optimizer_in_rollout
    )


def _generating(team: Team, request: Request, role: plan.Role) -> plan.Role:
    """The role with as many rows at once as fit, and their memory."""
    on_cpu = team.card.name == "cpu"
    share = -(-team.rollouts.count // max(1, role.layout.dp))
    rows = team.rollouts.rows or min(ROWS_ON_A_CPU if on_cpu else ROWS_MOST, share)
    chosen = _chosen(team, request, role)
    while True:
        work = dataclasses.replace(chosen.seat.work, rollout_micro_batch=rows)
        if on_cpu or team.rollouts.rows or rows == 1 or fits(work, chosen.found):
            memory = role_memory(work, role.layout, role.micro_batch, role.recompute, team.card)
            return dataclasses.replace(role, memory=memory, rows=rows)
        rows //= 2


def _own(
    team: Team, guest: Request, host: plan.Role, said: list[Diagnostic], room: float = 0.0
) -> plan.Role | None:
    """A model of its own in the host's processes."""
    work = dataclasses.replace(guest.work, beside=room)
    asked = dataclasses.replace(guest, nodes=host.nodes, gpus=host.gpus, work=work)
    role, more = place(asked, team.card, max(host.gpus, team.gpus_per_node), team.most)
    if room:
        said += more
    if role is None:
        if not room:
            said += more
        return None
    role = _hosting(team, guest, role)
    return dataclasses.replace(role, why=f"lives in the {host.name}'s processes; {role.why}")


def _sharing(team: Team, guest: Request, kin: plan.Role, host: str) -> plan.Role:
    """A frozen role in the place of another of its shape."""
    micro_batch = guest.pins.micro_batch or kin.micro_batch
    swaps = _is_swapped(team, guest)
    where = (
        "its weights wait on the host and trade places with" if swaps else "its weights lie beside those of"
    )
    return dataclasses.replace(
        kin,
        name=guest.name,
        program=guest.program,
        micro_batch=micro_batch,
        global_batch=guest.work.global_batch,
        model=guest.model,
        recompute="none",
        recompute_layers=0,
        recompute_modules=(),
        memory=role_memory(guest.work, kin.layout, micro_batch, "none", team.card),
        step_seconds=0.0,
        why=f"{where} the {kin.name}'s",
        group=host,
        trains=False,
        swaps_with=kin.name if swaps else "",
        offload_optimizer=False,
        rows=0,
    )


def _resting(role: plan.Role | None, requests: tuple[Request, ...], card: Gpu) -> float:
    """Bytes that a role holds on a GPU while another of its group is at work."""
    if role is None:
        return 0.0
    work = next(r.work for r in requests if r.name == role.name)
    held = [
        model_state(work, role.layout, stage_parameters(work.shape, role.layout, stage, work.head))
        for stage in (0, role.layout.pp - 1)
    ]
    away = work.offload_optimizer_in_rollout
    return max(weights + gradients + (0 if away else optimizer) for weights, gradients, optimizer in held)


# --- actor and critic on machines of their own -------------------------------------------------------------


def _balanced(team: Team) -> tuple[Placed, list[Diagnostic]]:
    both = sides(team)
    assert both is not None
    actor, critic = (side.request for side in both)
    others = [host for host in team.hosts if host.name not in ("actor", "critic")]
    said: list[Diagnostic] = []
    roles: dict[str, plan.Role] = {}
    for host in others:
        role, more = place(_with_gpus(team, host), team.card, team.gpus_per_node, team.most)
        said += more
        if role is not None:
            roles |= _group(team, host, role, said)
    left = team.most - sum(role.nodes for role in roles.values())
    budget = min(left, actor.max_nodes or left)
    found = pair(
        *both,
        (actor.nodes, critic.nodes),
        actor.objective,
        budget if budget < NODES_MOST - 1 else None,
    )
    if found is None:
        placed, more = _one_by_one(team)
        return placed, more or said
    said += _idle_aims(actor, critic)
    for request, choice in ((actor, found.actor), (critic, found.critic)):
        chosen = dataclasses.replace(request, work=choice.work)
        roles |= _group(team, chosen, _role_of(chosen, choice, found), said)
    ordered = tuple(roles[r.name] for r in team.requests if r.name in roles)
    return Placed(ordered, _rounded(found.step), found.batch), said


def _uncriticised(team: Team) -> tuple[Placed, list[Diagnostic]]:
    """An actor that learns alone; a reward model, if there is one, judges in its processes or its own."""
    actor = _with_gpus(team, team.requests[0])
    side = ActorSide(actor, team.card, actor.gpus or team.gpus, team.rollouts, team.offload)
    most = min(team.most, actor.max_nodes or team.most)
    choice = alone(side, actor.nodes, actor.objective, most if most < NODES_MOST - 1 else None)
    if choice is None:
        return _one_by_one(team)
    said: list[Diagnostic] = []
    roles: dict[str, plan.Role] = {}
    for host in team.hosts[1:]:
        role, more = place(_with_gpus(team, host), team.card, team.gpus_per_node, team.most)
        said += more
        if role is not None:
            roles |= _group(team, host, role, said)
    chosen = dataclasses.replace(actor, work=choice.work)
    roles |= _group(team, chosen, _as_role(chosen, choice, ""), said)
    ordered = tuple(roles[r.name] for r in team.requests if r.name in roles)
    if len(ordered) < len(team.requests):
        return Placed(ordered), said
    step, batch, _ = scored(team, choice, roles.get("reward"))
    first = dataclasses.replace(
        ordered[0], step_seconds=round(step.seconds, 3), why=_why(actor, step, choice.nodes)
    )
    return Placed((first, *ordered[1:]), _rounded(step), batch), said


class Scored(NamedTuple):
    """A step without a critic."""

    step: Step
    batch: int  # rows of a request
    times: Times


def scored(team: Team, choice: Choice, reward: plan.Role | None) -> Scored:
    """The step with the requests that make it as short as any; all rows at once without a model."""
    count, scorer = team.rollouts.count, team.named("reward")
    found: list[Scored] = []
    batch = count if reward is None else reward.layout.dp * reward.micro_batch
    while not found or found[-1].batch < count:
        request = 0.0
        if reward is not None and scorer is not None:
            seat = _chosen(team, scorer, reward).seat
            request = REQUEST + seat.passed(min(batch, count), team.rollouts.tokens)
        turns = {"request": request, "requests": -(-count // batch), "critic": 0.0}
        times = Times(**choice.times, **turns)
        apart = reward is None or reward.group != "actor"
        found.append(Scored(timeline(times, apart, ("actor", "reward")), min(batch, count), times))
        batch *= 2
    shortest = min(one.step.seconds for one in found)
    return next(one for one in reversed(found) if one.step.seconds <= shortest * (1 + NOTHING))


def actor_alone(team: Team) -> ActorSide | None:
    """The choices of an actor that no critic learns beside; None where one does, or there is no actor."""
    actor = team.named("actor")
    if actor is None or team.named("critic") is not None:
        return None
    actor = _with_guests(team, _with_gpus(team, actor))
    return ActorSide(actor, team.card, actor.gpus or team.gpus, team.rollouts, team.offload)


def sides(team: Team) -> tuple[ActorSide, CriticSide] | None:
    """The choices of actor and critic; None where one is not there."""
    actor, critic, scorer = (team.named(name) for name in ("actor", "critic", "reward"))
    if actor is None or critic is None:
        return None
    actor, critic = (_with_guests(team, _with_gpus(team, request)) for request in (actor, critic))
    shared = scorer.work if scorer is not None and scorer.group == critic.group else None
    return (
        ActorSide(actor, team.card, actor.gpus or team.gpus, team.rollouts, team.offload),
        CriticSide(critic, team.card, critic.gpus or team.gpus, team.rollouts, shared),
    )


def _idle_aims(actor: Request, critic: Request) -> list[Diagnostic]:
    """What the spec aims at though it says how many nodes each takes."""
    aims = [name for name in ("objective", "max_nodes") if name in actor.paths]
    if not aims or actor.nodes is None or critic.nodes is None:
        return []
    message = f"with nodes for both there is nothing to choose by plan.{' or plan.'.join(aims)}"
    help = "leave nodes of a role out, or what the plan aims at"
    return [Diagnostic("P038", "warning", message, actor.path(*aims), "", help)]


def _as_role(request: Request, choice: Choice, why: str) -> plan.Role:
    case = dataclasses.replace(choice.found.case, work=choice.seat.work)
    role = as_role(request, dataclasses.replace(choice.found, case=case), why)
    return dataclasses.replace(role, rows=choice.rows)


def _role_of(request: Request, choice: Choice, found: Pair) -> plan.Role:
    role = _as_role(request, choice, _why(request, found.step, choice.nodes))
    seconds = found.step.seconds
    if request.name != "actor":
        seconds -= found.step.waits[request.name]
    return dataclasses.replace(role, step_seconds=round(seconds, 3))


def _why(request: Request, step: Step, nodes: int) -> str:
    """One phrase: what was pinned or chosen, and what the step is made of."""
    lane = request.name
    pinned = [name for name in request.pins.names if name in request.paths]
    where = f"{nodes} node{'' if nodes == 1 else 's'}"
    where += " as given" if request.nodes else ", chosen with the others"
    where += f", {' and '.join(pinned)} as pinned" if pinned else ""
    parts: dict[str, float] = {}
    for part in step.parts:
        if part.lane == lane and part.name != "wait":
            parts[part.name] = parts.get(part.name, 0.0) + part.seconds
    largest = sorted(parts, key=lambda name: -parts[name])[:4]
    made = ", ".join(f"{name} {parts[name]:.1f} s" for name in largest)
    waits = step.waits[lane]
    return f"{where}; of a step {made}, waiting {waits:.1f} s ({waits / step.seconds:.0%})"


def _rounded(step: Step) -> tuple[plan.Span, ...]:
    return tuple(
        dataclasses.replace(part, start=round(part.start, 3), seconds=round(part.seconds, 3))
        for part in step.parts
    )


def _prediction(team: Team, roles: Mapping[str, plan.Role]) -> tuple[tuple[plan.Span, ...], int]:
    """The step of roles that were placed one by one, and the rows of a request; nothing on a CPU."""
    actor, critic = team.named("actor"), team.named("critic")
    if team.card.name == "cpu" or not actor or not critic or not {"actor", "critic"} <= set(roles):
        return (), 0
    one, other = roles["actor"], roles["critic"]
    both = sides(team)
    assert both is not None
    chosen = [_chosen(team, request, role) for request, role in ((actor, one), (critic, other))]
    rollouts = dataclasses.replace(team.rollouts, rows=one.rows)
    times = actor_times(chosen[0].seat, rollouts, actor.work.reference)
    found = joined(
        dataclasses.replace(chosen[0], times=times), chosen[1], both[1], apart=critic.group == "critic"
    )
    return _rounded(found.step), found.batch


def _chosen(team: Team, request: Request, role: plan.Role) -> Choice:
    work = dataclasses.replace(request.work, recompute_layers=role.recompute_layers)
    case = Case(work, team.card, role.nodes, role.gpus, role.layout, role.micro_batch, role.recompute)
    return Choice(Found(case, 0.0, 0.0, 0.0), work, {}, role.rows)
