"""Strengths from battles, against another way to the same maximum."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runtime.ratings import bradley_terry, has_maximum, wins_of


def zermelo(wins: np.ndarray, rounds: int = 50_000) -> np.ndarray:
    """The same strengths by Zermelo's fixed point (1929), w_i / sum n_ij / (p_i + p_j)."""
    played, strength = wins + wins.T, np.ones(len(wins))
    for _ in range(rounds):
        before = strength
        strength = wins.sum(1) / (played / (strength[:, None] + strength[None, :])).sum(1)
        strength = strength / np.exp(np.log(strength).mean())
        if np.abs(np.log(strength / before)).max() < 1e-14:
            break
    return np.log(strength)


def connected(wins: np.ndarray) -> bool:
    """Whether no split into two camps leaves one of them without a win over the other."""
    n = len(wins)
    camps = (set(c) for k in range(1, n) for c in itertools.combinations(range(n), k))
    return all(any(wins[i, j] > 0 for i in camp for j in set(range(n)) - camp) for camp in camps)


battles = st.integers(2, 5).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 6), min_size=n, max_size=n), min_size=n, max_size=n)
)


def matrix(counts: list[list[int]]) -> np.ndarray:
    wins = np.asarray(counts, np.float64)
    np.fill_diagonal(wins, 0)
    return wins


def test_two_sides_by_hand() -> None:
    found = bradley_terry(np.array([[0, 3], [1, 0]]))
    assert found.finite
    assert found.theta == pytest.approx([math.log(3) / 2, -math.log(3) / 2], abs=1e-10)
    assert found.elo == pytest.approx([1000 + 200 * math.log(3), 1000 - 200 * math.log(3)], abs=1e-7)


@given(battles)
def test_strengths_are_those_of_the_fixed_point(counts: list[list[int]]) -> None:
    wins = matrix(counts)
    assume(connected(wins))
    assert bradley_terry(wins).theta == pytest.approx(zermelo(wins), abs=1e-6)


@given(battles)
def test_a_maximum_is_there_when_no_camp_is_beaten_by_nobody(counts: list[list[int]]) -> None:
    wins = matrix(counts)
    assert has_maximum(wins) == connected(wins)
    assert bradley_terry(wins).finite == connected(wins)


@given(battles, st.permutations(range(5)))
def test_names_do_not_matter(counts: list[list[int]], order: list[int]) -> None:
    wins = matrix(counts)
    order = [i for i in order if i < len(wins)]
    found, turned = bradley_terry(wins), bradley_terry(wins[np.ix_(order, order)])
    assert turned.theta == pytest.approx(found.theta[order], abs=1e-6)
    assert found.theta.sum() == pytest.approx(0, abs=1e-9)


def test_who_always_wins_is_first_and_who_always_loses_is_last() -> None:
    wins = wins_of(4, [(i, j, 1.0) for i, j in itertools.combinations([2, 0, 3, 1], 2)])
    found = bradley_terry(wins)
    assert not found.finite
    assert np.argsort(-found.theta).tolist() == [2, 0, 3, 1]
    assert found.distinct()
    assert np.isfinite(found.elo).all()


def test_ties_and_circles_leave_nobody_ahead() -> None:
    circle = wins_of(3, [(0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0)])
    ties = wins_of(3, [(0, 1, 0.5), (1, 2, 0.5)])
    for wins in (circle, ties):
        found = bradley_terry(wins)
        assert found.theta == pytest.approx([0, 0, 0], abs=1e-9)
        assert not found.distinct()


def test_two_that_are_alike_are_not_distinct_and_nobody_is_no_one() -> None:
    found = bradley_terry(wins_of(3, [(0, 1, 1.0), (0, 2, 1.0), (1, 2, 0.5)]))
    assert found.theta[1] == pytest.approx(found.theta[2], abs=1e-9)
    assert not found.distinct()
    assert bradley_terry(np.zeros((0, 0))).elo.tolist() == []
    assert bradley_terry(np.zeros((1, 1))).elo.tolist() == [1000.0]


def test_a_tie_counts_for_both() -> None:
    assert wins_of(2, [(0, 1, 0.5), (0, 1, 1.0), (1, 0, 1.0)]).tolist() == [[0, 2], [2, 0]]
