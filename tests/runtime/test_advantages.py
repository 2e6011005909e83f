"""Advantages against plain double loops over Python floats."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.advantages import (
    adapted_coefficient,
    gae,
    group_advantages,
    kl_estimate,
    last_columns,
    leave_one_out,
    shaped_rewards,
    whitened,
)

pytestmark = pytest.mark.torch

finite = st.floats(-5, 5)


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two tensors and a mask: rows of unlike lengths, some without a response, some of one token."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    mask = torch.zeros(rows, columns, dtype=torch.float64)
    for row in range(rows):
        begin = draw(st.integers(0, columns - 1))
        mask[row, begin : draw(st.integers(begin, columns))] = 1
    count = rows * columns
    numbers = [draw(st.lists(finite, min_size=count, max_size=count)) for _ in range(2)]
    first, second = (torch.tensor(n, dtype=torch.float64).view(rows, columns) for n in numbers)
    return first, second, mask


def plain_gae(rewards: list[float], values: list[float], discount: float, lam: float) -> list[float]:
    """The sum of 1506.02438 eq. 16, term by term."""
    deltas = [
        r + discount * (values[t + 1] if t + 1 < len(values) else 0.0) - values[t]
        for t, r in enumerate(rewards)
    ]
    return [
        sum((discount * lam) ** (later - t) * deltas[later] for later in range(t, len(deltas)))
        for t in range(len(deltas))
    ]


@settings(max_examples=60, deadline=None)
@given(rollouts(), st.floats(0, 1), st.floats(0, 1))
def test_gae_is_the_papers_sum(case: tuple[torch.Tensor, ...], discount: float, lam: float) -> None:
    rewards, values, mask = case
    advantages, returns = gae(rewards, values, mask, discount, lam)
    for row in range(len(mask)):
        inside = mask[row] == 1
        expected = plain_gae(rewards[row, inside].tolist(), values[row, inside].tolist(), discount, lam)
        assert advantages[row, inside].tolist() == pytest.approx(expected, abs=1e-10)
        assert torch.equal(advantages[row, ~inside], torch.zeros(int((~inside).sum()), dtype=torch.float64))
    torch.testing.assert_close(returns, advantages + values * mask, rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(rollouts())
def test_what_lies_outside_the_mask_does_not_matter(case: tuple[torch.Tensor, ...]) -> None:
    rewards, values, mask = case
    bad_rewards, bad_values = (x.masked_fill(mask == 0, math.nan) for x in (rewards, values))
    good, bad = gae(rewards, values, mask, 0.9, 0.95), gae(bad_rewards, bad_values, mask, 0.9, 0.95)
    assert all(torch.equal(one, other) for one, other in zip(good, bad, strict=True))
    assert torch.equal(whitened(rewards, mask), whitened(bad_rewards, mask))


@settings(max_examples=60, deadline=None)
@given(rollouts())
def test_whitening_is_that_of_the_plain_list(case: tuple[torch.Tensor, ...]) -> None:
    values, _, mask = case
    inside = values[mask == 1].tolist()
    mean = sum(inside) / max(len(inside), 1)
    variance = sum((x - mean) ** 2 for x in inside) / max(len(inside), 1)
    white = [(x - mean) / math.sqrt(variance + 1e-8) for x in inside]
    assert whitened(values, mask)[mask == 1].tolist() == pytest.approx(white, abs=1e-10)
    kept = whitened(values, mask, keep_mean=True)[mask == 1].tolist()
    assert kept == pytest.approx([x + mean for x in white], abs=1e-10)


def test_the_score_stands_on_the_last_response_column_and_nowhere_else() -> None:
    mask = torch.tensor([[0.0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    assert last_columns(mask).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    kl = torch.full((3, 4), 0.5)
    rewards = shaped_rewards(torch.tensor([2.0, -1.0, 7.0]), kl, mask, 0.1)
    expected = [[0, -0.05, 1.95, 0], [-0.05, -0.05, -0.05, -1.05], [0, 0, 0, 0]]
    torch.testing.assert_close(rewards, torch.tensor(expected))


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=5))
def test_estimators_are_those_of_the_note(pairs: list[tuple[float, float]]) -> None:
    p, q = (torch.tensor([list(column)], dtype=torch.float64) for column in zip(*pairs, strict=True))
    for name, formula in {
        "k1": lambda d: d,
        "k2": lambda d: d * d / 2,
        "k3": lambda d: math.exp(-d) - 1 + d,
        "absolute": abs,
    }.items():
        expected = [formula(a - b) for a, b in pairs]
        assert kl_estimate(p, q, name)[0].tolist() == pytest.approx(expected, abs=1e-10)  # type: ignore[arg-type]


def test_k1_and_k3_are_unbiased_and_k3_is_never_negative() -> None:
    policy = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    true = float((policy * (policy / reference).log()).sum())
    for name in ("k1", "k3"):
        estimate = kl_estimate(policy.log()[None], reference.log()[None], name)[0]  # type: ignore[arg-type]
        assert float((policy * estimate).sum()) == pytest.approx(true, abs=1e-12)
    assert (kl_estimate(policy.log()[None], reference.log()[None], "k3") >= 0).all()


def test_the_coefficient_follows_its_target_within_a_fifth() -> None:
    assert adapted_coefficient(0.1, kl=6.0, target=6.0, horizon=1000, rollouts=100) == 0.1
    assert adapted_coefficient(0.1, kl=60.0, target=6.0, horizon=1000, rollouts=100) == pytest.approx(0.102)
    assert adapted_coefficient(0.1, kl=0.0, target=6.0, horizon=1000, rollouts=100) == pytest.approx(0.098)


@given(st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=4))
def test_baselines_without_a_critic_are_the_plain_ones(groups: list[list[float]]) -> None:
    scores = torch.tensor(groups, dtype=torch.float64)
    for row, group in zip(leave_one_out(scores), groups, strict=True):
        others = [x - (sum(group) - x) / 2 for x in group]
        assert row.tolist() == pytest.approx(others, abs=1e-10)
    for row, group in zip(group_advantages(scores), groups, strict=True):
        mean = sum(group) / 3
        deviation = math.sqrt(sum((x - mean) ** 2 for x in group) / 2)
        assert row.tolist() == pytest.approx([(x - mean) / (deviation + 1e-6) for x in group], abs=1e-8)
    torch.testing.assert_close(
        group_advantages(scores, divide=False).sum(1), torch.zeros(len(groups)).double()
    )
