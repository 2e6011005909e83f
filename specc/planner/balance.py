"""Roles that work together: sizes and layouts chosen together, so that no group of machines waits long.

In come what actor and critic ask for and what a step generates; out goes a pair of choices with their step.
What is chosen for the actor on so many nodes is the layout of the shortest step of its own (generating,
log-probabilities, training), for the critic that of the shortest judging and training. Cuts of the GPUs are
looked at by a bound that none of their choices undercuts, until the bound is worse than what was found; of a
cut the choice that trains full rows fastest is taken. Numbers of nodes that the spec leaves open:

  fewest_nodes        the fewest for each; the critic gets more while the actor waits for more than PATIENCE
  fastest, earliest   the shortest step of all pairs within the budget: pairs by a bound, as cuts are
  cheapest            the least GPU-seconds a step
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from dataclasses import dataclass
from typing import Any

from specc import plan
from specc.planner import layouts, phases
from specc.planner.bounds import Bounds
from specc.planner.hardware import Gpu
from specc.planner.layouts import MARGIN, NODES_MOST, Found, Frontier
from specc.planner.memory import GIB, Workload, oom_probability
from specc.planner.placement import Request
from specc.planner.ppo import (
    OVERHEAD,
    Rollouts,
    Seat,
    Step,
    Times,
    actor_times,
    critic_times,
    engine_layout,
    timeline,
)
from specc.planner.space import Cut, Pins, Space

PATIENCE = 0.1
"""Of a step, what the actor may wait for the critic before that gets more nodes."""

REACH = 4
"""Where nothing bounds the nodes, up to so many times the fewest are looked at."""

PASS = 0.25
"""Of a training pass, what a forward pass takes at least."""

NOTHING = 0.005
"""Of a step: a difference that does not count."""

ROWS_MOST = 256
"""Responses that a replica generates at once, at most, where the spec leaves it open."""


@dataclass(frozen=True)
class Choice:
    """A role on so many nodes, with the parts of a step that are its own."""

    found: Found
    work: Workload
    times: dict[str, float]
    rows: int = 0

    @property
    def nodes(self) -> int:
        return self.found.case.nodes

    @property
    def seat(self) -> Seat:
        case = self.found.case
        work = dataclasses.replace(
            self.work,
            recompute_layers=case.work.recompute_layers,
            recompute_modules=case.work.recompute_modules,
        )
        return Seat(work, case.layout, case.micro_batch, case.recompute, case.gpu, case.gpus)


class Side:
    """The choices of one group's first role, by number of nodes."""

    def __init__(self, request: Request, card: Gpu, gpus: int, rollouts: Rollouts) -> None:
        self.request, self.card, self.gpus, self.rollouts = request, card, gpus, rollouts
        plain = dataclasses.replace(request.work, rollout_micro_batch=0)
        short = dataclasses.replace(plain, seq_length=rollouts.tokens)
        self._bounds = Bounds(Space(plain, card, gpus, request.pins))
        self._short = Bounds(Space(short, card, gpus, Pins(**_loose(request.pins))))
        self._best: dict[int, Choice | None] = {}
        self.tried: dict[int, list[Choice]] = {}  # by number of nodes, what the best was found among
        self._least: dict[int, float] = {}

    @property
    def steps(self) -> int:
        """Optimizer steps of a step."""
        return self.rollouts.updates(self.request.work)

    def best(self, nodes: int) -> Choice | None:
        """The one of the shortest step of its own; None when none fits."""
        if nodes not in self._best:
            self._best[nodes] = self._search(nodes)
        return self._best[nodes]

    def least(self, nodes: int) -> float:
        """Seconds that no choice on so many nodes undercuts; infinite where there is none."""
        if nodes not in self._least:
            self._least[nodes] = min((bound for bound, _ in self._cuts(nodes)), default=math.inf)
        return self._least[nodes]

    def every(self, nodes: int) -> list[Choice]:
        """The choice of each cut that fits, by nothing in particular."""
        found = (
            next(filter(None, map(self._of, _OfCut(self._bounds, nodes, cut))), None)
            for _, cut in self._cuts(nodes)
        )
        return [choice for choice in found if choice is not None]

    def own(self, choice: Choice) -> float:
        """Seconds of its own parts of a step."""
        raise NotImplementedError

    def timed(self, choice: Choice) -> Choice:
        """The choice with the seconds of its parts."""
        raise NotImplementedError

    def _beside(self, cut: Cut) -> float:
        """Seconds beside training that no choice of the cut undercuts."""
        raise NotImplementedError

    def _of(self, found: Found) -> Choice | None:
        """The choice made of a layout that trains; None when it does not fit in another phase."""
        raise NotImplementedError

    def _cuts(self, nodes: int) -> list[tuple[float, Cut]]:
        """The cuts that may have room, by seconds that no choice of a cut undercuts."""
        room = [cut for cut in self._bounds.space.cuts(nodes) if self._may_fit(cut)]
        return sorted((self.steps * self._short.least_seconds(cut) + self._beside(cut), cut) for cut in room)

    def _may_fit(self, cut: Cut) -> bool:
        least = self._bounds.bytes(cut) / GIB
        return oom_probability(least, self.card.usable_gib) <= MARGIN

    def _search(self, nodes: int) -> Choice | None:
        best: Choice | None = None
        tried = self.tried[nodes] = []
        for bound, cut in self._cuts(nodes):
            if best is not None and bound >= self.own(best):
                break
            choice = next(filter(None, map(self._of, _OfCut(self._bounds, nodes, cut))), None)
            if choice is None:
                continue
            tried.append(choice)
            if best is None or self.own(choice) < self.own(best):
                best = choice
        return best


class ActorSide(Side):
    """The role that generates."""

    def __init__(
        self, request: Request, card: Gpu, gpus: int, rollouts: Rollouts, offload: bool | None
    ) -> None:
        super().__init__(request, card, gpus, rollouts)
        self.offload = offload
        self._generated: dict[tuple[int, int, int], float] = {}

    def own(self, choice: Choice) -> float:
        times = choice.times
        once = ("refit", "generate", "logprobs", "reference", "actor")
        return OVERHEAD + sum(times[name] for name in once) + 2 * times["offload"]

    def _beside(self, cut: Cut) -> float:
        key = cut.tp, cut.pp, cut.dp
        found = self._generated.get(key)
        if found is None:
            layout = plan.Layout(cut.tp, cut.pp, dp=cut.dp, sequence_parallel=cut.tp > 1)
            rollouts = dataclasses.replace(self.rollouts, rows=self._most_rows(layout))
            seat = Seat(self.request.work, layout, 1, "none", self.card, self.gpus)
            found = self._generated[key] = OVERHEAD + actor_times(seat, rollouts, "none")["generate"]
        return found

    def _most_rows(self, layout: plan.Layout) -> int:
        """Responses at once on each replica, if memory were no matter."""
        if self.rollouts.rows:
            return self.rollouts.rows
        engine = engine_layout(layout, self.rollouts)
        share = -(-self.rollouts.count // (engine.dp * engine.pp))
        return max(1, min(ROWS_MOST, share))

    def _of(self, found: Found) -> Choice | None:
        for offload in (False, True) if self.offload is None else (self.offload,):
            rows = self._most_rows(found.case.layout)
            while rows:
                work = dataclasses.replace(
                    self.request.work, rollout_micro_batch=rows, offload_optimizer_in_rollout=offload
                )
                if fits(work, found):
                    return self.timed(Choice(found, work, {}, rows))
                rows = 0 if self.rollouts.rows else rows // 2
        return None

    def timed(self, choice: Choice) -> Choice:
        rollouts = dataclasses.replace(self.rollouts, rows=choice.rows)
        return dataclasses.replace(choice, times=actor_times(choice.seat, rollouts, choice.work.reference))


class CriticSide(Side):
    """The role that judges; `scorer` is the reward model that judges with it."""

    def __init__(
        self, request: Request, card: Gpu, gpus: int, rollouts: Rollouts, scorer: Workload | None
    ) -> None:
        super().__init__(request, card, gpus, rollouts.of_critic)
        self.scorer = scorer

    def own(self, choice: Choice) -> float:
        return choice.times["request"] + choice.times["critic"]

    def _beside(self, cut: Cut) -> float:
        """A forward pass is more than a quarter of a training pass, whatever is recomputed there."""
        passes = (1 if self.scorer is None else 2) * self.steps / self.rollouts.epochs
        return PASS * passes * self._short.least_seconds(cut)

    def _of(self, found: Found) -> Choice | None:
        return self.timed(Choice(found, self.request.work, {}))

    def timed(self, choice: Choice) -> Choice:
        count = self.rollouts.count
        times = critic_times(choice.seat, self.scores(choice), self.rollouts, count, self.swaps)
        return dataclasses.replace(choice, times=times)

    @property
    def swaps(self) -> bool:
        return self.request.work.reference == "swap"

    def scores(self, choice: Choice) -> Seat | None:
        """The reward model on the critic's layout."""
        if self.scorer is None:
            return None
        return dataclasses.replace(choice.seat, work=self.scorer, recompute="none")


class _OfCut(Frontier):
    """The choices of one cut, best first."""

    def __init__(self, bounds: Bounds, nodes: int, cut: Cut) -> None:
        super().__init__(bounds, nodes)
        self._cut = cut

    def _begin(self) -> None:
        self._deal(self._cut)


def _loose(pins: Pins) -> dict[str, Any]:
    """Pins of the cut alone: the bound is below every micro-batch and way to recompute."""
    sizes = ("tp", "pp", "cp", "ep", "etp")
    return {name: getattr(pins, name) for name in sizes}


def fits(work: Workload, found: Found) -> bool:
    """Whether every phase fits with margin."""
    case = found.case
    work = dataclasses.replace(
        work, recompute_layers=case.work.recompute_layers, recompute_modules=case.work.recompute_modules
    )
    every = phases.phases(work, case.layout, case.micro_batch, case.recompute, True, case.gpu)
    return oom_probability(phases.peak(every).total / GIB, case.gpu.usable_gib) <= MARGIN


# --- actor and critic together -------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Actor and critic with the step that they make; `batch` is rows of a request."""

    actor: Choice
    critic: Choice
    step: Step
    batch: int

    @property
    def nodes(self) -> int:
        return self.actor.nodes + self.critic.nodes

    @property
    def waits(self) -> float:
        """Of the step, what the actor waits."""
        return self.step.waits["actor"] / self.step.seconds


def joined(actor: Choice, critic: Choice, side: CriticSide, apart: bool = True) -> Pair:
    """The step of a choice for each, with the largest requests that make it as short as any."""
    pairs = [_asked(actor, critic, side, batch, apart) for batch in _batches(critic, side.rollouts.count)]
    shortest = min(found.step.seconds for found in pairs)
    return next(found for found in reversed(pairs) if found.step.seconds <= shortest * (1 + NOTHING))


def _batches(critic: Choice, count: int) -> list[int]:
    """Rows of a request worth looking at, rising: a micro-batch for each replica, then twice as many."""
    case = critic.found.case
    batches = [min(count, case.layout.dp * case.micro_batch)]
    while batches[-1] < count:
        batches.append(min(count, 2 * batches[-1]))
    return batches


def _asked(actor: Choice, critic: Choice, side: CriticSide, batch: int, apart: bool) -> Pair:
    times = critic_times(critic.seat, side.scores(critic), side.rollouts, batch, side.swaps)
    return Pair(actor, critic, timeline(Times(**actor.times, **times), apart), batch)


def least_together(actor: Side, critic: Side, a: int, c: int) -> float:
    """Seconds of a step that no choices on so many nodes undercut."""
    return max(actor.least(a), critic.least(c))


def pair(
    actor: ActorSide,
    critic: CriticSide,
    nodes: tuple[int | None, int | None],
    objective: str,
    most: int | None,
) -> Pair | None:
    """The best pair by the objective; None when nothing fits. None among `nodes` is to be chosen."""
    found = _pair(actor, critic, nodes, objective, most)
    return _polished(found, actor, critic) if found else None


def _polished(found: Pair, actor: ActorSide, critic: CriticSide) -> Pair:
    """On the same nodes, layouts whose own parts take longer but hide in what is waited for anyway."""
    for choice in actor.tried[found.actor.nodes]:
        other = joined(choice, found.critic, critic)
        found = other if other.step.seconds < found.step.seconds else found
    for choice in critic.tried[found.critic.nodes]:
        other = joined(found.actor, choice, critic)
        found = other if other.step.seconds < found.step.seconds else found
    return found


def _pair(
    actor: ActorSide,
    critic: CriticSide,
    nodes: tuple[int | None, int | None],
    objective: str,
    most: int | None,
) -> Pair | None:
    firsts = [
        pinned or _fewest(side, most or NODES_MOST)
        for side, pinned in zip((actor, critic), nodes, strict=True)
    ]
    if not firsts[0] or not firsts[1]:
        return None
    a, c = firsts[0], firsts[1]
    if most is not None and a + c > most and None in nodes:
        return None
    one, other = actor.best(a), critic.best(c)
    if one is None or other is None:
        return None
    first = joined(one, other, critic)
    if objective == "fewest_nodes" or None not in nodes:
        return first if nodes[1] else _patient(first, actor, critic, most)
    last = most or REACH * (a + c)
    spans = [
        range(pinned, pinned + 1) if pinned else range(low, last + 1)
        for pinned, low in zip(nodes, (a, c), strict=True)
    ]
    return _best_pair(actor, critic, spans[0], spans[1], last, objective == "cheapest") or first


def alone(side: Side, nodes: int | None, objective: str, most: int | None) -> Choice | None:
    """The best choice of a side that nobody learns beside; None when nothing fits."""
    first = nodes or _fewest(side, most or NODES_MOST)
    best = side.best(first) if first else None
    if best is None or not first or nodes or objective == "fewest_nodes":
        return best

    def worth(seconds: float, count: int) -> float:
        return seconds * count if objective == "cheapest" else seconds

    least = worth(side.own(best), first)
    for count in range(first + 1, (most or REACH * first) + 1):
        if worth(side.least(count), count) >= least * (1 - NOTHING):
            continue
        choice = side.best(count)
        if choice is not None and worth(side.own(choice), count) < least * (1 - NOTHING):
            best, least = choice, worth(side.own(choice), count)
    return best


def _fewest(side: Side, most: int) -> int | None:
    """The smallest number of nodes that it fits on."""
    work = side.request.work
    for nodes in range(layouts.state_bound(work, side.card, side.gpus), min(most, NODES_MOST) + 1):
        if side.best(nodes) is not None:
            return nodes
    return None


def _patient(first: Pair, actor: ActorSide, critic: CriticSide, most: int | None) -> Pair:
    """More nodes for the critic while the actor waits too long, up to as many as the actor's."""
    best = first
    last = min(most - first.actor.nodes if most else NODES_MOST, max(first.actor.nodes, first.critic.nodes))
    for nodes in range(first.critic.nodes + 1, last + 1):
        if best.waits <= PATIENCE:
            break
        choice = critic.best(nodes)
        if choice is not None:
            found = joined(first.actor, choice, critic)
            best = found if found.step.seconds < best.step.seconds else best
    return best


def _best_pair(
    actor: ActorSide, critic: CriticSide, many: range, few: range, most: int, cheapest: bool
) -> Pair | None:
    """Pairs by their bound, best first: a pair is made precise when its bound is the least. One that may be
    better by NOTHING only is not looked at.
    """

    def worth(seconds: float, nodes: int) -> float:
        return seconds * nodes if cheapest else seconds

    heap = [
        (worth(least_together(actor, critic, a, c), a + c), a + c, a, c)
        for a in many
        for c in few
        if a + c <= most and math.isfinite(actor.least(a)) and math.isfinite(critic.least(c))
    ]
    heapq.heapify(heap)
    best: Pair | None = None
    least = math.inf
    while heap:
        bound, nodes, a, c = heapq.heappop(heap)
        if bound >= least * (1 - NOTHING):
            break
        one = actor.best(a)
        if one is None:
            continue
        own = worth(actor.own(one), nodes)
        if own > bound * (1 + 1e-9):  # what the actor takes by itself is known now
            heapq.heappush(heap, (own, nodes, a, c))
            continue
        other = critic.best(c)
        if other is not None:
            found = joined(one, other, critic)
            if (value := worth(found.step.seconds, nodes)) < least:
                best, least = found, value
    return best
