"""Whoever judges a step's rollouts: a critic that says what each token is worth, a reward that scores the
whole, in these processes (`Near`) or behind HTTP in others (`Far`). An algorithm cannot tell them apart.

A judge is asked about rollouts as they come, answers when all are there, and the critic learns from what
the step made of it. Every rank gets every answer. What a judge cannot say is a `Problem`, never a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runtime.batch import Sample
from runtime.dealing import Numbers, Table, by_sample, deal, gathered
from runtime.engine import Engine
from runtime.problem import Problem
from runtime.rollouts import Rollout
from runtime.scoring import PLAIN, Scoring

Score = Callable[[Sequence[Rollout]], Sequence[float]]
"""A reward that is a function; the same result on every rank."""


@dataclass(frozen=True)
class Answers:
    """By rollout: V before each of its tokens but the first [n - 1], empty without a critic; its score."""

    values: dict[int, Numbers]
    scores: dict[int, float]


@dataclass(frozen=True)
class Lesson:
    """What the critic learns from one rollout: [n - 1] each, `mask` 1 where a token counts."""

    rollout: Rollout
    returns: Numbers
    values: Numbers
    mask: Numbers


class Judges(Protocol):
    """What an algorithm sees."""

    def expect(self, ids: Sequence[int]) -> None:
        """These rollouts are this replica's next ones, whatever order they come in. Not a collective."""
        ...

    def ask(self, rollout: Rollout) -> None:
        """A rollout of this replica is there; its judgement may begin. Not a collective."""
        ...

    def answers(self, rollouts: Sequence[Rollout]) -> Answers:
        """What is said of all of them. Collective."""
        ...

    def teach(self, lessons: Sequence[Lesson], step: int) -> None:
        """Let the critic learn; it may go on while the actor does. Collective."""
        ...

    def taught(self) -> dict[str, float]:
        """Wait for the critic to have learnt; its metrics, the same on every rank. Collective."""
        ...

    def save(self, step: int) -> None:
        """Save what has learnt, as of `step`. Collective."""
        ...


Fit = Callable[[Sequence[Lesson], int], dict[str, float]]


@dataclass
class Near:
    """Models in these processes. `reward` lets an engine speak as the reward model while inside."""

    critic: Engine | None
    table: Table
    reward: Callable[[], AbstractContextManager[Engine]] | None = None
    score: Score | None = None
    scoring: Scoring = PLAIN
    fit: Fit | None = None
    saving: Callable[[int], None] | None = None
    _metrics: Mapping[str, float] | None = None

    def expect(self, ids: Sequence[int]) -> None:
        """All are judged together when they are there."""

    def ask(self, rollout: Rollout) -> None:
        """Judged with all others, by all ranks together."""

    def answers(self, rollouts: Sequence[Rollout]) -> Answers:
        return Answers(self.values(rollouts), self.scores(rollouts))

    def values(self, rollouts: Sequence[Rollout]) -> dict[int, Numbers]:
        """By rollout, of the critic; nothing without one. Collective."""
        if self.critic is None:
            return {}
        found = heard(self.critic, [r.read_out() for r in rollouts], self.table)
        return {r.id: found[r.id][:-1, 0] for r in rollouts}

    def teach(self, lessons: Sequence[Lesson], step: int) -> None:
        if self.fit is not None:
            self._metrics = self.fit(lessons, step)

    def taught(self) -> dict[str, float]:
        found, self._metrics = self._metrics or {}, None
        return dict(found)

    def save(self, step: int) -> None:
        if self.saving is not None:
            self.saving(step)

    def scores(self, rollouts: Sequence[Rollout]) -> dict[int, float]:
        """By rollout, of the reward; Problem R053 for one that is not finite. Collective."""
        if self.score is not None:
            scores = self.scoring.held(np.asarray(self.score(rollouts), np.float64)).tolist()
        else:
            assert self.reward is not None
            with self.reward() as engine:
                scores = spoken(engine, rollouts, self.table, self.scoring)
        for rollout, score in zip(rollouts, scores, strict=True):
            if not np.isfinite(score):
                raise Problem("R053", f"the reward of the response to row {rollout.row} is {score}")
        return {r.id: float(score) for r, score in zip(rollouts, scores, strict=True)}


def spoken(engine: Engine, rollouts: Sequence[Rollout], table: Table, scoring: Scoring) -> list[float]:
    """A reward model's score of each rollout, from what its head says at the last token."""
    found = heard(engine, [r.read_out() for r in rollouts], table)
    return scoring.of(np.stack([found[r.id][-1] for r in rollouts])).tolist()


def heard(engine: Engine, samples: Sequence[Sample], table: Table) -> dict[int, Numbers]:
    """What a head says on every column of every sample [n - 1, outputs], on every rank."""
    share = deal(samples, table)
    outputs = engine.forward(share.microbatches, "values")
    return gathered(by_sample(outputs, share), engine.parallel.groups.dp)


@contextmanager
def itself(engine: Engine) -> Iterator[Engine]:
    """A reward model that has an engine of its own."""
    yield engine
