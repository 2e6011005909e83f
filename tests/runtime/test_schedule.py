"""The learning rate: bounded, in monotone pieces that meet, and free of the known defects."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.schedule import decay_steps, learning_rate


@st.composite
def schedules(draw):
    peak = draw(st.floats(1e-7, 1e-2))
    train = {
        "lr": peak,
        "min_lr": draw(st.floats(0, 1)) * peak,
        "schedule": draw(st.sampled_from(["cosine", "linear", "constant"])),
        "warmup_steps": draw(st.integers(0, 50)),
        "constant_steps": draw(st.integers(0, 200)),
    }
    return train, draw(st.integers(1, 300))


def rates(train, steps, count=None):
    return [learning_rate(step, steps, train) for step in range(count or steps)]


@given(schedules())
def test_a_rate_is_above_zero_until_it_rests_at_the_minimum_and_at_most_the_peak(drawn):
    train, steps = drawn
    found, until = rates(train, steps), train["warmup_steps"] + decay_steps(steps, train)
    assert all(0 < rate <= train["lr"] * (1 + 1e-12) for rate in found[:until])
    at_rest = train["lr"] if train["schedule"] == "constant" else train["min_lr"]
    assert found[until:] == [pytest.approx(at_rest)] * max(steps - until, 0)


@given(schedules())
def test_it_rises_through_the_warm_up_and_never_again(drawn):
    train, steps = drawn
    found = rates(train, steps, steps + 50)
    warmup = train["warmup_steps"]
    up, down = found[: warmup + 1], found[warmup:]
    assert up == sorted(up)
    assert all(a >= b * (1 - 1e-12) for a, b in pairwise(down))


@given(schedules())
def test_the_warm_up_ends_at_the_peak(drawn):
    train, steps = drawn
    assert learning_rate(
        train["warmup_steps"], max(steps, train["warmup_steps"] + 2), train
    ) == pytest.approx(train["lr"])


@given(schedules())
def test_the_decay_ends_at_the_floor_and_stays_there(drawn):
    train, steps = drawn
    if train["schedule"] == "constant":
        return
    joint = train["warmup_steps"] + decay_steps(steps, train)
    for step in (joint, joint + 1, joint + 1000):
        assert learning_rate(step, steps, train) == pytest.approx(train["min_lr"], abs=1e-15)


@given(schedules())
def test_no_step_of_the_decay_is_steeper_than_the_shape_allows(drawn):
    train, steps = drawn
    span, length = train["lr"] - train["min_lr"], decay_steps(steps, train)
    found = rates(train, steps, steps + 50)[train["warmup_steps"] :]
    largest = max((a - b for a, b in pairwise(found)), default=0)
    assert largest <= span * min(1.0, 3.1416 / 2 / length) * (1 + 1e-9) + 1e-15


def test_the_cosine_by_hand():
    train = {"lr": 1.0, "min_lr": 0.2, "warmup_steps": 3, "constant_steps": 2}
    found = rates(train, 9)
    assert found == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 0.2 + 0.4 * (1 + 2**-0.5), 0.6, 0.2 + 0.4 * (1 - 2**-0.5), 0.2, 0.2]
    )


def test_a_constant_part_without_room_does_not_drop_to_the_floor_after_the_warm_up():
    train = {"lr": 1.0, "min_lr": 0.1, "warmup_steps": 10, "constant_steps": 1000}
    assert learning_rate(11, 800, train) > 0.99


def test_equal_lr_and_min_lr_are_a_constant():
    train = {"lr": 2e-6, "min_lr": 2e-6, "warmup_steps": 2, "constant_steps": 5}
    assert set(rates(train, 20)[2:]) == {2e-6}


def test_a_zero_rate_is_zero_everywhere():
    assert set(rates({"lr": 0.0, "min_lr": 9e-7, "warmup_steps": 2}, 10)) == {0.0}
