"""Seconds of one PPO step, part by part, and what overlaps with what.

    actor's GPUs   refit | generate ............... | wait | log-probs | swap, reference, swap | train | wait
    critic's GPUs          judge, request by request  .... |                                   | train

  generate   the rollouts (`rollout`): prompts, waves or a continuous batch, the slowest replica
  judge      values and scores of each request, weights swapped between where they share a model's place. It
             begins when the first request is full, so that all but the last one can hide behind the
             generation: it ends no earlier than both (first request full + all judging) and (generation + one
             request)
  log-probs  the actor's own, over all rollouts; then the reference's, between two swaps of the weights
  train      epochs x rollouts / global_batch optimizer steps, each model's own; the critic's run beside the
             actor's where they have machines of their own, so the step waits for what is longer. Judgements
             are waited for after the log-probs, which need none
  offload    Adam's state to the host before the rollouts and back before training, where it is offloaded

In the same processes nothing overlaps: all parts follow one another. Rows are as long as is expected on the
mean (prompt + response) in passes and training, which deal rows of like length together; the runtime pads to
no more. Sources: NeMo-Aligner's PPO (arXiv:2405.01481); its published step times in `tests`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from specc.plan import Layout, Span
from specc.planner.cost import forward_seconds, step_seconds
from specc.planner.hardware import Gpu
from specc.planner.memory import model_state
from specc.planner.rollout import (
    ENGINES,
    Lengths,
    offload_seconds,
    refit_seconds,
    resharded,
    rollout_seconds,
    swap_seconds,
    token_seconds,
)
from specc.planner.shapes import stage_parameters
from specc.planner.workload import Workload

OVERHEAD = 8.0
"""Seconds of a step outside of every part: rollouts dealt to ranks, advantages, metrics, barriers. Fitted,
see `rollout.ENGINES`."""

REQUEST = 0.1
"""Seconds of a request to a server beside its forward passes: the network, cutting, gathering."""


@dataclass(frozen=True)
class Rollouts:
    """What a step generates."""

    count: int
    epochs: int
    prompt: float  # tokens on the mean
    lengths: Lengths  # of responses
    rows: int  # at once on each replica
    engine: str = "megatron"
    reshard: bool = False
    learnt: int = 0  # rows that are learnt, where most are only judgements of them; 0: all
    learnt_tokens: int = 0  # of each of these
    critic_epochs: int = 1  # passes of the critic, where there is one

    @property
    def tokens(self) -> int:
        """Of a row, on the mean."""
        return max(1, round(self.prompt + self.lengths.mean))

    @property
    def passed(self) -> tuple[int, int]:
        """Rows that pass through the models to be learnt, and tokens of each."""
        return (self.learnt, self.learnt_tokens) if self.learnt else (self.count, self.tokens)

    @property
    def of_critic(self) -> Rollouts:
        """The same as the critic learns them."""
        return dataclasses.replace(self, epochs=self.critic_epochs)

    def updates(self, work: Workload) -> int:
        """Optimizer steps of a step."""
        return self.epochs * max(
            1, self.passed[0] // (work.global_batch * (work.texts if self.learnt else 1))
        )


@dataclass(frozen=True)
class Seat:
    """One model on its machines."""

    work: Workload
    layout: Layout
    micro_batch: int
    recompute: str
    gpu: Gpu
    node: int  # GPUs of a node

    def passed(self, rows: int, tokens: int) -> float:
        """Seconds of a forward pass."""
        found = forward_seconds(self.work, self.layout, self.micro_batch, rows, tokens, self.gpu, self.node)
        return self.work.time_factor * found

    def swapped(self) -> float:
        return swap_seconds(self.work, self.layout, self.gpu)

    def learnt(self, rollouts: Rollouts) -> float:
        """Seconds of all optimizer steps over a step's rollouts."""
        work = dataclasses.replace(self.work, seq_length=rollouts.passed[1])
        steps = rollouts.updates(self.work)
        each = step_seconds(work, self.layout, self.micro_batch, self.recompute, self.gpu, self.node)
        return steps * self.work.time_factor * each

    def offloaded(self) -> float:
        """Seconds in which Adam's state goes to the host or comes back."""
        if not self.work.offload_optimizer_in_rollout:
            return 0.0
        held = stage_parameters(self.work.shape, self.layout, 0, self.work.head)
        return offload_seconds(model_state(self.work, self.layout, held)[2], self.gpu)


@dataclass(frozen=True)
class Step:
    """One PPO step."""

    parts: tuple[Span, ...]  # by start

    @property
    def seconds(self) -> float:
        return max((part.start + part.seconds for part in self.parts), default=0.0)

    def of(self, name: str, lane: str = "") -> float:
        """Seconds of the parts of that name."""
        return sum(part.seconds for part in self.parts if part.name == name and lane in ("", part.lane))

    @property
    def waits(self) -> dict[str, float]:
        """Seconds in which a lane has nothing to do."""
        lanes = dict.fromkeys(part.lane for part in self.parts)
        busy = {
            lane: sum(p.seconds for p in self.parts if p.lane == lane and p.name != "wait") for lane in lanes
        }
        return {lane: self.seconds - spent for lane, spent in busy.items()}


@dataclass(frozen=True)
class Times:
    """Seconds of each part by itself, before anything overlaps."""

    refit: float
    generate: float
    first_batch: float  # of it, until the first rollouts can be judged
    request: float  # judging one request
    requests: float
    logprobs: float
    reference: float  # with both swaps
    actor: float  # training
    critic: float
    offload: float  # of the actor's state, one way

    @property
    def judge(self) -> float:
        return self.requests * self.request


def actor_times(actor: Seat, rollouts: Rollouts, reference: str) -> dict[str, float]:
    """The parts of a step that are the actor's alone; `reference` is none, swap or resident."""
    layout = engine_layout(actor.layout, rollouts)
    at_once = rollouts.rows * layout.pp  # a batch for each pipeline stage is on its way
    replicas = layout.dp * layout.cp
    generate = actor.work.time_factor * rollout_seconds(
        actor.work, layout, rollouts.count, 1, rollouts.prompt, rollouts.lengths, at_once, actor.gpu,
        rollouts.engine,
    )  # fmt: skip
    waves = max(1, math.ceil(rollouts.count / (at_once * replicas)))
    first = generate / waves
    if ENGINES[rollouts.engine].continuous:
        first = min(first, generate * rollouts.lengths.mean / max(1.0, rollouts.lengths.most))
    logprobs = actor.passed(*rollouts.passed)
    swaps = 2 * actor.swapped() if reference == "swap" else 0.0
    refit = refit_seconds(actor.work, actor.layout, actor.gpu, actor.node, rollouts.engine)
    return {
        "refit": refit,
        "generate": generate,
        "first_batch": first,
        "logprobs": 0.0 if rollouts.learnt else logprobs,  # pairs are learnt from as they are generated
        "reference": logprobs + swaps if reference != "none" else 0.0,
        "actor": actor.learnt(rollouts),
        "offload": actor.offloaded(),
    }


def critic_times(
    critic: Seat, reward: Seat | None, rollouts: Rollouts, batch: int, swaps: bool
) -> dict[str, float]:
    """The parts of a step that are the critic's and the reward model's; `batch` is rows of a request."""
    request = REQUEST + critic.passed(batch, rollouts.tokens)
    if reward is not None:
        request += reward.passed(batch, rollouts.tokens) + (critic.swapped() if swaps else 0.0)
    return {
        "request": request,
        "requests": math.ceil(rollouts.count / batch),
        "critic": critic.learnt(rollouts.of_critic),
    }


def engine_layout(layout: Layout, rollouts: Rollouts) -> Layout:
    """How the engine lies over the actor's GPUs."""
    return resharded(layout) if rollouts.reshard else layout


def timeline(times: Times, apart: bool = True, names: tuple[str, str] = ("actor", "critic")) -> Step:
    """The step as a schedule. `apart`: the critic has machines of its own."""
    return _apart(times, *names) if apart else _together(times, names[0])


def _apart(times: Times, actor: str, critic: str) -> Step:
    lanes = _Lanes()
    lanes.add("overhead", actor, OVERHEAD)
    lanes.add("offload", actor, times.offload)
    lanes.add("refit", actor, times.refit)
    began = lanes.end(actor)
    lanes.add("generate", actor, times.generate)
    generated = lanes.end(actor)
    last = min(times.request, times.judge)
    first = max(times.first_batch, times.generate / times.requests)  # until a request is full
    judged = max(began + first + times.judge, generated + last)
    lanes.add("judge", critic, times.judge, not_before=judged - times.judge)
    lanes.add("log-probs", actor, times.logprobs)
    lanes.add("reference", actor, times.reference)
    lanes.add("offload", actor, times.offload)
    lanes.wait(actor, judged)
    lanes.wait(critic, lanes.end(actor))
    lanes.add("train", actor, times.actor)
    lanes.add("train", critic, times.critic)
    end = max(lanes.end(actor), lanes.end(critic))
    lanes.wait(actor, end)
    lanes.wait(critic, end)
    return lanes.step()


def _together(times: Times, lane: str) -> Step:
    lanes = _Lanes()
    for name in ("overhead", "offload", "refit", "generate", "judge", "logprobs", "reference", "offload"):
        seconds = OVERHEAD if name == "overhead" else getattr(times, name)
        lanes.add(name.replace("logprobs", "log-probs"), lane, seconds)
    lanes.add("train critic", lane, times.critic)
    lanes.add("train", lane, times.actor)
    return lanes.step()


class _Lanes:
    """Parts put one after the other on their lanes."""

    def __init__(self) -> None:
        self._parts: list[Span] = []
        self._ends: dict[str, float] = {}

    def end(self, lane: str) -> float:
        return self._ends.get(lane, 0.0)

    def add(self, name: str, lane: str, seconds: float, not_before: float = 0.0) -> None:
        if seconds > 0:
            self.wait(lane, not_before)
            self._parts.append(Span(name, lane, self.end(lane), seconds))
            self._ends[lane] = self.end(lane) + seconds

    def wait(self, lane: str, until: float) -> None:
        if until > self.end(lane):
            self._parts.append(Span("wait", lane, self.end(lane), until - self.end(lane)))
            self._ends[lane] = until

    def step(self) -> Step:
        return Step(tuple(sorted(self._parts, key=lambda part: part.start)))


def formulas(actor: Seat, rollouts: Rollouts, times: Times) -> dict[str, str]:
    """How the seconds of each part come about, with their numbers."""
    layout = engine_layout(actor.layout, rollouts)
    replicas, at_once = layout.dp * layout.cp, rollouts.rows * layout.pp
    waves = math.ceil(rollouts.count / (at_once * replicas))
    lengths, batch = rollouts.lengths, min(at_once, -(-rollouts.count // replicas))
    longest = lengths.longest(batch)
    token = token_seconds(
        actor.work, layout, batch, rollouts.prompt + longest / 2, actor.gpu, rollouts.engine
    )
    steps = rollouts.updates(actor.work)
    rows = "{} rows of {} tokens".format(*rollouts.passed)
    kind = "batch, filled as rows end," if ENGINES[rollouts.engine].continuous else _count(waves, "wave")
    found = {
        "overhead": "rollouts dealt, advantages, metrics (fitted)",
        "refit": f"weights to {rollouts.engine}" if times.refit else "",
        "generate": f"{kind} of {replicas} x {batch} rows, the longest of each {longest:.0f} tokens"
        f" at {token * 1e3:.1f} ms, the longest of all {lengths.longest(rollouts.count):.0f}",
        "judge": f"{_count(times.requests, 'request')} x {times.request:.2f} s" if times.judge else "",
        "log-probs": f"{rows} forward" if times.logprobs else "",
        "reference": _of_reference(times, rows),
        "offload": "Adam's state to the host, and back" if times.offload else "",
        "train": f"{_count(steps, 'optimizer step')} x {times.actor / steps:.2f} s",
    }
    return {name: text for name, text in found.items() if text}


def _of_reference(times: Times, rows: str) -> str:
    if not times.reference:
        return ""
    if not times.logprobs:
        return f"{rows} forward, and swaps"
    return f"the same, and {times.reference - times.logprobs:.2f} s of swaps"


def _count(count: float, noun: str) -> str:
    return f"{count:.0f} {noun}{'' if count == 1 else 's'}"
