"""The time of a PPO step: against NeMo-Aligner's published table, and against schedules worked by hand."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc import models, shipped
from specc.compile import compile_spec
from specc.plan import Layout
from specc.planner import hardware
from specc.planner.ppo import OVERHEAD, Rollouts, Seat, Times, actor_times, critic_times, timeline
from specc.planner.rollout import Lengths
from specc.planner.team import rollouts_of
from specc.planner.workload import Workload

PUBLISHED = {"nodes_8_4": 366.7, "nodes_16_8": 190.4, "nodes_32_16": 108.0, "nodes_64_32": 56.9}
"""Seconds of a step of 70B, by nodes of actor and critic; on these three constants were fitted."""

HELD_OUT = 164.6
"""Seconds of a step of 405B on 84 + 42 nodes, which nothing was fitted on."""


def plan(name):
    done = compile_spec(shipped.specs() / f"{name}.yaml")
    assert done.plan is not None
    return done.plan


@pytest.fixture(scope="module")
def seconds():
    return {job.stage: job.roles[0].step_seconds for job in plan("ppo_llama70b_scaling").jobs}


@pytest.mark.parametrize("stage", PUBLISHED)
def test_the_step_of_70b_is_as_published(seconds, stage):
    assert seconds[stage] == pytest.approx(PUBLISHED[stage], rel=0.15)


@pytest.mark.parametrize(("stage", "times"), [("nodes_16_8", 2), ("nodes_32_16", 4), ("nodes_64_32", 8)])
def test_it_scales_as_published(seconds, stage, times):
    def efficiency(table):
        return table["nodes_8_4"] / table[stage] / times

    assert efficiency(seconds) == pytest.approx(efficiency(PUBLISHED), abs=0.04)


def test_the_step_of_405b_is_as_published_though_nothing_was_fitted_on_it():
    assert plan("ppo_llama405b").jobs[0].roles[0].step_seconds == pytest.approx(HELD_OUT, rel=0.2)


def test_generation_takes_most_of_the_step_of_70b_as_published():
    job = plan("ppo_llama70b_scaling").jobs[0]
    generate = sum(part.seconds for part in job.timeline if part.name == "generate")
    assert generate / job.roles[0].step_seconds == pytest.approx(0.84, abs=0.06)


# --- what overlaps with what -------------------------------------------------------------------------

TIMES = Times(
    refit=1, generate=100, first_batch=10, request=2, requests=20, logprobs=5, reference=6, actor=20,
    critic=30, offload=0,
)  # fmt: skip


def test_judging_hides_behind_generation_but_for_the_last_request():
    step = timeline(TIMES)
    before = OVERHEAD + 1 + 100 + 5 + 6  # the last request takes less than the log-probabilities
    assert step.seconds == pytest.approx(before + 30)
    assert step.of("judge") == 40


def test_judging_that_takes_longer_than_generation_is_waited_for():
    slow = dataclasses.replace(TIMES, request=8)
    judged = OVERHEAD + 1 + 10 + 8 * 20
    assert timeline(slow).seconds == pytest.approx(judged + 30)
    assert timeline(slow).of("wait", "actor") == pytest.approx(judged - (OVERHEAD + 1 + 100 + 11) + 10)


def test_a_request_of_all_rollouts_is_judged_after_all_are_there():
    whole = dataclasses.replace(TIMES, request=40, requests=1)
    assert timeline(whole).seconds == pytest.approx(OVERHEAD + 1 + 100 + 40 + 30)


def test_the_critic_learns_beside_the_actor():
    for actor, critic in ((20, 30), (30, 20)):
        step = timeline(dataclasses.replace(TIMES, actor=actor, critic=critic))
        trains = [part for part in step.parts if part.name == "train"]
        assert len({part.start for part in trains}) == 1
        assert step.seconds == pytest.approx(trains[0].start + 30)


def test_each_model_passes_over_the_rollouts_as_often_as_is_said_of_it():
    shape, gpu = models.catalog()["llama3-8b"].shape, hardware.gpu("h100-80gb")
    work = Workload(shape, 2048, 64, phase="critic", head="scalar")
    seat = Seat(work, Layout(tp=8, sequence_parallel=True), 1, "none", gpu, 8)
    once = Rollouts(128, 1, 256, Lengths(256, 1024), 16)
    both = dataclasses.replace(once, epochs=2, critic_epochs=3)

    def seconds(rollouts):
        actor, critic = actor_times(seat, rollouts, "none"), critic_times(seat, None, rollouts, 128, False)
        return actor["actor"], critic["critic"], critic["request"]

    actor, critic, request = seconds(once)
    assert min(actor, critic, request) > 0
    assert seconds(both) == pytest.approx((2 * actor, 3 * critic, request))


@pytest.mark.parametrize(("said", "passes"), [({}, 1), ({"epochs": 3}, 3)])
def test_the_critics_passes_are_its_own_and_not_the_actors(said, passes):
    generate = {"expected_tokens": 8, "max_tokens": 16, "expected_prompt_tokens": 4, "max_prompt_tokens": 8}
    generate |= {"rows": 2, "engine": "megatron", "reshard": False}
    settings = {"generate": generate, "ppo": {"rollouts": 8, "epochs": 2}, "critic": {"train": {}} | said}
    found = rollouts_of(settings)
    assert (found.epochs, found.of_critic.epochs) == (2, passes)


def test_in_the_same_processes_nothing_overlaps():
    step = timeline(TIMES, apart=False)
    assert step.seconds == pytest.approx(OVERHEAD + 1 + 100 + 40 + 5 + 6 + 30 + 20)
    assert {part.lane for part in step.parts} == {"actor"}


SECONDS = st.floats(0, 1000)
ANY = st.builds(
    Times, SECONDS, SECONDS, SECONDS, SECONDS, st.integers(1, 50), SECONDS, SECONDS, SECONDS, SECONDS, SECONDS
)


@given(ANY)
def test_parts_of_a_lane_follow_one_another_and_all_lanes_end_together(times):
    step = timeline(times)
    for lane in {part.lane for part in step.parts}:
        own = [part for part in step.parts if part.lane == lane]
        for part, following in itertools.pairwise(own):
            assert following.start == pytest.approx(part.start + part.seconds, abs=1e-6)
        assert own[-1].start + own[-1].seconds == pytest.approx(step.seconds, abs=1e-6)


@given(ANY, st.sampled_from([f.name for f in dataclasses.fields(Times)]), st.floats(1, 3))
def test_a_part_that_takes_longer_makes_no_step_shorter(times, name, factor):
    slower = dataclasses.replace(times, **{name: getattr(times, name) * factor})
    if name == "requests":  # of the same rollouts: more requests are filled sooner
        return
    assert timeline(slower).seconds >= timeline(times).seconds - 1e-6


@given(ANY)
def test_overlap_saves_time_and_never_more_than_all_of_the_shorter_lane(times):
    apart, together = timeline(times).seconds, timeline(times, apart=False).seconds
    assert apart <= together + times.first_batch + times.generate / times.requests + 1e-6
    assert together <= apart + times.judge + min(times.actor, times.critic) + 1e-6
