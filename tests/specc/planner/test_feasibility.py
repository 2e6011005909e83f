"""The band between a peak that is safe and one that is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.plan import Layout
from specc.planner.feasibility import CONTEXT, GIB, band, oom_probability, outside_bytes

GIBS = st.floats(0, 400)
CAPACITY = st.floats(1, 300)


@given(GIBS, CAPACITY, CAPACITY, st.booleans())
def test_more_memory_never_makes_a_plan_infeasible(total, one, other, expandable):
    small, large = sorted((one, other))
    assert oom_probability(total, large, expandable) <= oom_probability(total, small, expandable)


@given(GIBS, GIBS, CAPACITY)
def test_a_larger_peak_is_never_safer_nor_are_fixed_segments(one, other, capacity):
    low, high = sorted((one, other))
    assert oom_probability(low, capacity) <= oom_probability(high, capacity)
    assert oom_probability(low, capacity) <= oom_probability(low, capacity, expandable=False)


@given(GIBS, CAPACITY, st.booleans())
def test_the_band_says_what_the_probability_comes_from(total, capacity, expandable):
    found = band(total, capacity, expandable)
    assert 0 < found.safe_gib < found.lost_gib < capacity
    assert found.probability == pytest.approx(oom_probability(total, capacity, expandable), abs=0.0011)
    if total <= found.safe_gib:
        assert found.probability == 0
    if total >= found.lost_gib:
        assert found.probability == 1


@pytest.mark.parametrize(("share", "probability"), [(0.5, 0), (0.72, 0), (0.82, 0.5), (0.92, 1), (1.2, 1)])
def test_without_expandable_segments_it_rises_between_72_and_92_percent(share, probability):
    assert oom_probability(share * 80, 80, expandable=False) == pytest.approx(probability, abs=0.001)


def test_a_band_reads_as_a_sentence():
    assert str(band(60, 80)) == (
        "60.0 GiB of 80.0; with expandable segments safe up to 68.8 and lost from 77.6: 0% likely to run out"
    )
    assert str(band(65.6, 80, expandable=False)) == (
        "65.6 GiB of 80.0; without expandable segments safe up to 57.6 and lost from 73.6: "
        "50% likely to run out"
    )


@pytest.mark.parametrize("expandable", [True, False])
def test_a_device_of_no_stated_size_is_not_judged(expandable):
    assert oom_probability(10, 0, expandable) == band(10, 0, expandable).probability == 0


def test_outside_of_the_allocator_lie_the_context_and_what_the_groups_of_ranks_need():
    assert outside_bytes(Layout()) == CONTEXT
    sizes = [
        outside_bytes(layout)
        for layout in (Layout(dp=2), Layout(2, dp=2), Layout(2, 2, dp=2), Layout(2, 2, cp=2))
    ]
    assert sizes == sorted(set(sizes))
    assert 2 * GIB < sizes[0] < sizes[-1] < 6 * GIB
