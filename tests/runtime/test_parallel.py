"""Processes find their place in the layout."""

import pytest

from specc.plan import Layout

pytestmark = pytest.mark.torch


def place(layout: Layout) -> str:
    from runtime import cpu, parallel

    cpu.install()
    return str(parallel.start(layout, "gloo", "cpu", timeout_seconds=60))


def test_ranks_of_a_tensor_parallel_group_are_neighbours(world):
    assert world(4, place, Layout(tp=2, pp=2)) == [
        "TP(0)-PP(0)-DP(0)-Rank(0)",
        "TP(1)-PP(0)-DP(0)-Rank(1)",
        "TP(0)-PP(1)-DP(0)-Rank(2)",
        "TP(1)-PP(1)-DP(0)-Rank(3)",
    ]


def test_expert_ranks_lie_within_data_parallel_ones(world):
    assert world(2, place, Layout(dp=2, ep=2)) == [
        "TP(0)-PP(0)-DP(0)-EP(0)-Rank(0)",
        "TP(0)-PP(0)-DP(1)-EP(1)-Rank(1)",
    ]


def test_a_world_that_does_not_fit_the_layout_is_refused_with_the_product(world):
    with pytest.raises(AssertionError, match=r"world size 1 is not TP 2 x PP 1 x CP 1 x DP 1 = 2"):
        world(1, place, Layout(tp=2))
