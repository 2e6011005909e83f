"""Which of several responses to a prompt is learnt, and which is unlearnt, by the scores of a judge.

arXiv:2401.10020, 2.2, with the control of length of arXiv:2407.19594, 2.1. With the best score s_max, the
worst s_min and the control rho:

    chosen    of the responses with score >= (1 - rho) s_max + rho s_min    the shortest
    rejected  of the responses with score <= (1 - rho) s_min + rho s_max    the longest

With rho = 0 both are of equal score, and the one that the judge was surest of (least variance) counts. The
first one does on ties. Only responses that came to an end of their own and have a score take part.

A pair is bad when there is nothing to tell apart: fewer than two such responses, all scores equal, the same
tokens twice, or (for rho above 1/2) a chosen one that is no better. A bad pair keeps its place in the batch
with nothing to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CLOSE = 1e-9
"""Scores that differ by less, relative to their spread, are equal: means of judgements are rounded."""


@dataclass(frozen=True)
class Candidate:
    """A response, and what its judgements come to."""

    tokens: tuple[int, ...]  # of the response
    ended: bool
    score: float | None
    variance: float = 0.0  # of the judgements


@dataclass(frozen=True)
class Choice:
    """Two of the candidates, by index."""

    chosen: int
    rejected: int
    bad: bool = False


def choose(candidates: Sequence[Candidate], rho: float, draws: np.random.Generator) -> Choice:
    """The pair to learn from; for a bad one two that `draws` takes, so that their place is filled."""
    usable = {i: c.score for i, c in enumerate(candidates) if c.ended and c.score is not None}
    low, high = min(usable.values(), default=0.0), max(usable.values(), default=0.0)
    close = CLOSE * max(abs(low), abs(high), 1.0)
    if len(usable) < 2 or high - low <= close:
        return _nothing(candidates, draws)
    best = [i for i, score in usable.items() if score >= (1 - rho) * high + rho * low - close]
    worst = [i for i, score in usable.items() if score <= (1 - rho) * low + rho * high + close]
    if rho > 0:
        chosen = min(best, key=lambda i: len(candidates[i].tokens))
        rejected = max(worst, key=lambda i: len(candidates[i].tokens))
    else:
        chosen = min(best, key=lambda i: candidates[i].variance)
        rejected = min(worst, key=lambda i: candidates[i].variance)
    same = candidates[chosen].tokens == candidates[rejected].tokens
    return Choice(chosen, rejected, bad=same or usable[chosen] - usable[rejected] <= close)


def _nothing(candidates: Sequence[Candidate], draws: np.random.Generator) -> Choice:
    chosen, rejected = draws.choice(len(candidates), 2, replace=False).tolist()
    return Choice(chosen, rejected, bad=True)
