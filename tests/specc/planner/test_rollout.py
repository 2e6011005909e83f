"""Rollouts: against published times, sums worked by hand, and the laws of waiting for the longest."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc import models
from specc.plan import Layout
from specc.planner import hardware
from specc.planner.rollout import (
    ALL_REDUCE,
    ENGINES,
    Lengths,
    prefill_seconds,
    read_parameters,
    refit_seconds,
    resharded,
    rollout_seconds,
    swap_seconds,
    token_seconds,
)
from specc.planner.shapes import parameters
from specc.planner.workload import Workload

SHAPE = models.catalog()["llama3-70b"].shape
EXPERTS = models.catalog()["mixtral-8x7b"].shape
WORK = Workload(SHAPE, 2048, 1024, trains=False, phase="generate", engine="trtllm")
ONE_NODE = Layout(tp=8, dp=8)


def card(name: str = "h100-80gb") -> hardware.Gpu:
    found = hardware.gpu(name)
    assert found is not None
    return found


def test_a_70b_model_on_8_h100_takes_about_9_ms_per_token_beside_the_host():
    """7.5 ms to read the weights and 160 sums of 12 us; the host's time is fitted."""
    seconds = token_seconds(WORK, ONE_NODE, 8, 1024, card()) - ENGINES["trtllm"].host
    assert seconds == pytest.approx(9.5e-3, rel=0.05)


def test_a_token_is_what_is_read_and_what_is_waited_for():
    cache = 8 * 1000 * 2 * 80 * 8 * 128 * 2 / 8
    read = (2 * parameters(SHAPE) / 8 + cache) / (0.7 * 3350e9)
    expected = read + 2 * 80 * ALL_REDUCE + ENGINES["trtllm"].host
    assert token_seconds(WORK, ONE_NODE, 8, 1000, card()) == pytest.approx(expected, rel=1e-12)


def test_1024_rollouts_on_8_engines_take_about_five_minutes():
    """The tutorials' smallest 70B PPO job: 366.7 s per step, of which about 84 % is generation; responses
    have 350.7 tokens on the mean and 2048 at most.
    """
    layout = dataclasses.replace(ONE_NODE, dp=8)
    found = rollout_seconds(WORK, layout, 1024, 1, 200, Lengths(350.7, 2048), 8, card(), "trtllm")
    assert found == pytest.approx(0.84 * 366.7, rel=0.1)


def test_megatrons_own_engine_is_several_times_slower_than_one_with_captured_graphs():
    slow, fast = (token_seconds(WORK, ONE_NODE, 8, 500, card(), name) for name in ("megatron", "trtllm"))
    assert 2 < slow / fast < 7


def test_reading_prompts_is_bound_by_products():
    flops = 16 * 512 * (2 * (80 * 855_654_400 + 128256 * 8192) + 4 * 80 * 64 * 128 * 512 / 2)
    expected = flops / 8 / (989e12 * ENGINES["trtllm"].products)
    assert prefill_seconds(WORK, ONE_NODE, 16, 512, card()) == pytest.approx(expected, rel=1e-3)


def test_of_many_experts_only_those_that_rows_go_to_are_read():
    work = dataclasses.replace(WORK, shape=EXPERTS)
    one, many = (read_parameters(work, Layout(tp=2), rows) for rows in (1, 1000))
    assert many == pytest.approx(parameters(EXPERTS) / 2)
    experts = 32 * 8 * 3 * 4096 * 14336
    assert one == pytest.approx((parameters(EXPERTS) - experts * 3 / 4) / 2)


# --- lengths -----------------------------------------------------------------------------------------

LENGTHS = st.builds(
    lambda most, share, spread: Lengths(share * most, most, spread),
    st.integers(16, 8192),
    st.floats(0.05, 1.0),
    st.floats(0.05, 1.0),
)


@given(LENGTHS, st.integers(1, 2000))
def test_the_longest_lies_between_the_mean_and_what_is_allowed(lengths, rows):
    found = lengths.longest(rows)
    assert lengths.mean <= found <= lengths.most
    assert found <= lengths.longest(2 * rows) + 1e-6 * lengths.most


@given(LENGTHS)
def test_the_longest_of_one_is_the_mean(lengths):
    assert lengths.longest(1) == pytest.approx(lengths.mean, rel=0.02)


def test_the_longest_of_two_exponential_lengths_is_half_as_long_again():
    """Weibull of power 1: the mean of the longest of n is the harmonic number of n, times the mean."""
    lengths = Lengths(100, 4000, 1.0)
    assert lengths.longest(2) == pytest.approx(150, rel=0.01)
    assert lengths.longest(4) == pytest.approx(100 * (1 + 1 / 2 + 1 / 3 + 1 / 4), rel=0.01)


# --- rollouts ----------------------------------------------------------------------------------------


def rollout(samples=1, at_once=8, lengths=None, prompts=256, engine="trtllm", layout=ONE_NODE):
    lengths = lengths or Lengths(400, 1024)
    return rollout_seconds(WORK, layout, prompts, samples, 300, lengths, at_once, card(), engine)


def test_a_static_batch_waits_for_its_longest_wave_after_wave():
    lengths = Lengths(400, 1024)
    token = [token_seconds(WORK, ONE_NODE, 8, 300 + lengths.longest(n) / 2, card()) for n in (8, 64)]
    prompts = prefill_seconds(WORK, ONE_NODE, 32, 300, card())
    expected = prompts + 3 * lengths.longest(8) * token[0] + lengths.longest(64) * token[1]
    assert rollout() == pytest.approx(expected, rel=1e-9)


def test_rows_that_are_all_equally_long_leave_nobody_waiting():
    same = Lengths(512, 512)
    static, continuous = (rollout(lengths=same, engine=name) for name in ("trtllm", "vllm"))
    host = 4 * 512 * (ENGINES["trtllm"].host - ENGINES["vllm"].host)  # of each token, in 4 waves
    assert continuous == pytest.approx(static - host, rel=0.15)


def test_a_continuous_batch_fills_the_gaps_that_spread_leaves():
    assert rollout(engine="vllm", prompts=1024) < 0.8 * rollout(engine="trtllm", prompts=1024)


@given(st.integers(1, 600), st.integers(1, 64), LENGTHS, st.sampled_from(sorted(ENGINES)))
def test_more_prompts_and_longer_answers_take_no_less(prompts, at_once, lengths, engine):
    base = rollout(1, at_once, lengths, prompts, engine)
    assert rollout(1, at_once, lengths, 2 * prompts, engine) >= base
    longer = Lengths(lengths.mean, 2 * lengths.most, lengths.spread)
    assert rollout(1, at_once, longer, prompts, engine) >= 0.98 * base


@given(st.integers(1, 600), st.integers(1, 64), LENGTHS, st.sampled_from(sorted(ENGINES)))
def test_more_replicas_take_no_longer(prompts, at_once, lengths, engine):
    few, many = (rollout(1, at_once, lengths, prompts, engine, Layout(tp=8, dp=dp)) for dp in (4, 8))
    assert many <= 1.05 * few  # the slowest of more replicas is slower, where each has one wave left


# --- weights on the move -----------------------------------------------------------------------------


def test_an_engine_of_its_own_gets_what_other_stages_hold():
    layout = Layout(tp=8, pp=4, dp=2)
    share = 2 * parameters(SHAPE) / 8
    expected = share * 3 / 4 / (0.8 * 50e9) + 2 * share / (0.8 * 3350e9)
    assert refit_seconds(WORK, layout, card()) == pytest.approx(expected)
    assert refit_seconds(WORK, layout, card(), engine="megatron") == 0
    assert resharded(layout) == Layout(tp=8, dp=8)


def test_a_reference_is_swapped_over_the_hosts_link():
    layout = Layout(tp=8, pp=2, dp=2)
    assert swap_seconds(WORK, layout, card()) == pytest.approx(2 * 2 * parameters(SHAPE) / 16 / 50e9)
