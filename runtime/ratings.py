"""Ratings from battles: who beat whom how often, to strengths (Bradley and Terry, 1952), to Elo.

    P(i beats j) = sigma(theta_i - theta_j),   sum theta = 0,   elo_i = 1000 + 400 theta_i

with the natural logarithm. `wins[i, j]` counts the battles that i won against j; a tie is one for each. The
likelihood is concave, and Newton's method finds its one maximum where there is one: where every side has lost
to somebody who, through others, has lost to it (Ford, 1957). Otherwise strengths would grow without end; then
a light penalty holds them, and only their order means anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

PENALTY = 1e-3
"""Of the squared strengths, where the likelihood has no maximum."""
TOLERANCE = 1e-10
"""Of the gradient, in battles."""
ROUNDS = 200


@dataclass(frozen=True)
class Ratings:
    """Strengths [n], which add up to 0."""

    theta: np.ndarray
    finite: bool  # else only the order means anything

    @property
    def elo(self) -> np.ndarray:
        return 1000.0 + 400.0 * self.theta

    def distinct(self, tolerance: float = 1e-3) -> bool:
        """Whether no two Elo are closer than `tolerance`."""
        return bool(np.all(np.diff(np.sort(self.elo)) > tolerance))


def wins_of(count: int, battles: Iterable[tuple[int, int, float]]) -> np.ndarray:
    """The matrix [n, n] of battles (i, j, outcome): 1 when i won, 0 when j did, 0.5 for a tie."""
    wins = np.zeros((count, count))
    for i, j, outcome in battles:
        wins[i, j] += outcome > 0
        wins[j, i] += outcome < 1
    return wins


def bradley_terry(wins: np.ndarray) -> Ratings:
    """The most likely strengths of these battles, in fp64."""
    wins = np.asarray(wins, np.float64)
    finite = has_maximum(wins)
    return Ratings(_maximum(wins, 0.0 if finite else PENALTY), finite)


def has_maximum(wins: np.ndarray) -> bool:
    """Whether everybody is beaten by everybody, directly or through others."""
    reached = (np.asarray(wins) > 0) | np.eye(len(wins), dtype=bool)
    for _ in range(len(wins)):
        reached = (reached.astype(np.int64) @ reached.astype(np.int64)) > 0
    return bool(reached.all())


def _maximum(wins: np.ndarray, penalty: float) -> np.ndarray:
    """Newton's method with halved steps on sum w_ij log sigma(theta_i - theta_j) - penalty/2 theta^2."""
    theta = np.zeros(len(wins))
    played = wins + wins.T
    for _ in range(ROUNDS):
        likely = 1.0 / (1.0 + np.exp(theta[None, :] - theta[:, None]))  # [i, j]: i beats j
        gradient = wins.sum(1) - (played * likely).sum(1) - penalty * theta
        if np.abs(gradient).max(initial=0.0) < TOLERANCE:
            break
        weight = played * likely * (1.0 - likely)
        hessian = np.diag(weight.sum(1) + penalty) - weight
        # strengths count up to a constant: the mean is held at 0 by a term of its own
        step = np.linalg.solve(hessian + np.full_like(hessian, 1.0 / max(len(wins), 1)), gradient)
        before, size = _likelihood(theta, wins, penalty), 1.0
        while size > 1e-8 and _likelihood(theta + size * step, wins, penalty) < before - 1e-12:
            size /= 2
        theta = theta + size * step
        theta = theta - theta.mean()
    return theta


def _likelihood(theta: np.ndarray, wins: np.ndarray, penalty: float) -> float:
    between = theta[:, None] - theta[None, :]
    return float(-(wins * np.logaddexp(0.0, -between)).sum() - penalty / 2 * (theta**2).sum())
