"""Which response is learnt and which is unlearnt."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.choosing import Candidate, Choice, choose


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made(
    *scores: float | None, lengths: tuple[int, ...] = (), variances: tuple[float, ...] = ()
) -> list[Candidate]:
    lengths = lengths or tuple(range(1, len(scores) + 1))
    variances = variances or (0.0,) * len(scores)
    return [
        Candidate((i, *[7] * (size - 1)), True, score, variance)
        for i, (score, size, variance) in enumerate(zip(scores, lengths, variances, strict=True))
    ]


def test_the_best_and_the_worst() -> None:
    assert choose(made(3.0, 5.0, 1.0, 2.0), 0.0, draws()) == Choice(1, 2)


def test_of_equal_scores_the_surest_then_the_first() -> None:
    surest = made(5.0, 5.0, 1.0, 1.0, variances=(0.5, 0.2, 0.1, 0.3))
    assert choose(surest, 0.0, draws()) == Choice(1, 2)
    assert choose(made(5.0, 5.0, 1.0, 1.0), 0.0, draws()) == Choice(0, 2)


def test_length_control_takes_the_shortest_of_the_good_and_the_longest_of_the_bad() -> None:
    # s_max 5, s_min 0, rho 0.1: good from 4.5, bad up to 0.5
    four = made(5.0, 4.5, 0.0, 0.5, lengths=(9, 3, 2, 8))
    assert choose(four, 0.1, draws()) == Choice(1, 3)
    assert choose(four, 0.09, draws()) == Choice(0, 2)
    assert choose(four, 0.0, draws()) == Choice(0, 2)
    assert choose(made(5.0, 5.0, 0.0, 0.0, lengths=(4, 4, 6, 6)), 0.1, draws()) == Choice(0, 2)


def test_thresholds_are_met_by_means_that_are_rounded() -> None:
    """0.7 * 4.1 + 0.3 * 1.1 is 3.1999999999999997 in fp64, or a little more in another order."""
    assert choose(made(4.1, 3.2, 1.1, 2.0, lengths=(9, 1, 1, 9)), 0.3, draws()) == Choice(1, 3)


@pytest.mark.parametrize(
    "candidates",
    [
        made(None, None, None),
        made(None, 4.0, None),
        made(4.0, 4.0, 4.0),
        made(4.0, None, 4.0),
        [Candidate((1,), False, 5.0), Candidate((2,), True, 1.0), Candidate((3,), False, 0.0)],
        [Candidate((1,), True, 5.0), Candidate((1,), True, 1.0)],
    ],
)
def test_where_nothing_can_be_told_apart_the_pair_is_bad(candidates: list[Candidate]) -> None:
    found = choose(candidates, 0.0, draws())
    assert found.bad
    assert found.chosen != found.rejected


def test_a_response_that_was_cut_takes_no_part() -> None:
    cut = [
        Candidate((1,), False, 5.0),
        Candidate((2,), True, 4.0),
        Candidate((3,), True, 1.0),
        Candidate((4,), False, 0.0),
    ]
    assert choose(cut, 0.0, draws()) == Choice(1, 2)


def test_a_bad_pair_is_drawn_from_all_pairs() -> None:
    drawn = {
        (c.chosen, c.rejected) for seed in range(200) if (c := choose(made(None, None, None), 0, draws(seed)))
    }
    assert drawn == set(itertools.permutations(range(3), 2))
    assert choose(made(None, None, None), 0, draws(5)) == choose(made(None, None, None), 0, draws(5))


def test_control_that_overlaps_never_learns_the_worse_one() -> None:
    found = choose(made(5.0, 1.0, lengths=(9, 2)), 1.0, draws())
    assert found == Choice(1, 0, bad=True)


some = st.lists(st.none() | st.floats(0, 5).map(lambda x: round(x, 3)), min_size=2, max_size=7)


@given(some, st.floats(0, 1), st.permutations(range(7)))
def test_the_order_of_responses_does_not_matter(
    scores: list[float | None], rho: float, order: list[int]
) -> None:
    """With distinct lengths and variances there is only one answer."""
    sizes = tuple(range(1, len(scores) + 1))
    candidates = made(*scores, lengths=sizes, variances=tuple(s / 10 for s in sizes))
    turned = [candidates[i] for i in order if i < len(scores)]
    one, other = choose(candidates, rho, draws()), choose(turned, rho, draws())
    assert one.bad == other.bad
    if not one.bad:
        assert candidates[one.chosen] is turned[other.chosen]
        assert candidates[one.rejected] is turned[other.rejected]


@given(some, st.floats(0, 0.5))
def test_what_is_chosen_scores_higher_and_lies_within_the_control(
    scores: list[float | None], rho: float
) -> None:
    candidates = made(*scores)
    found = choose(candidates, rho, draws())
    valid = [score for score in scores if score is not None]
    if len(set(valid)) < 2 or max(valid) - min(valid) < 1e-6:
        assert found.bad
        return
    chosen, rejected = scores[found.chosen], scores[found.rejected]
    assert chosen is not None
    assert rejected is not None
    high, low = max(valid), min(valid)
    assert chosen >= high - rho * (high - low) - 1e-6
    assert rejected <= low + rho * (high - low) + 1e-6
    assert found.bad == (chosen - rejected <= 1e-9 * max(high, 1.0))
