"""What a role holds in each phase: hand counts, what moves to the host, and laws."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc import models
from specc.plan import Layout
from specc.planner import hardware, memory, phases
from specc.planner.shapes import parameters, stage_parameters
from specc.planner.workload import Workload

SHAPE = models.catalog()["llama3-8b"].shape
TP8 = Layout(tp=8, dp=2, sequence_parallel=True)
H100 = hardware.gpu("h100-80gb")

ACTOR = Workload(
    SHAPE, 4096, 64, phase="actor", rollout_micro_batch=16, prompt_tokens=1024, response_tokens=1024
)
"""An actor that generates with its own weights."""


def by_name(work: Workload, layout: Layout = TP8, **more) -> dict[str, phases.PhasePeak]:
    return {phase.name: phase for phase in phases.phases(work, layout, 1, "none", **more)}


def part(phase: phases.PhasePeak, name: str) -> float:
    return sum(size for each, size in phase.parts if each == name)


def test_a_role_that_is_only_trained_loads_trains_and_saves():
    found = by_name(Workload(SHAPE, 4096, 64))
    assert list(found) == ["load", "train", "save"]
    assert max(phase.total for phase in found.values()) == found["train"].total
    assert found["train"].total == memory.peak(Workload(SHAPE, 4096, 64), TP8, 1, "none").total


def test_an_actor_also_generates_and_scores_what_it_generated():
    assert set(by_name(ACTOR)) == {"load", "generate", "log-probs", "train", "save"}
    critic = dataclasses.replace(ACTOR, head="scalar", phase="critic")
    assert "score" in by_name(critic)
    assert "log-probs" not in by_name(critic)


def test_adams_moments_are_not_there_when_a_role_has_loaded():
    found = by_name(Workload(SHAPE, 4096, 64))
    held = stage_parameters(SHAPE, TP8, 0)
    moments = 8 * held.dense / 2
    assert part(found["save"], "optimizer") - part(found["load"], "optimizer") == pytest.approx(moments)


def test_the_cache_of_a_rollout_holds_its_rows_from_prompt_to_end():
    cache = part(by_name(ACTOR)["generate"], "cache")
    assert cache == 16 * 2048 * 131072 / 8  # 131,072 bytes a token, cut by TP 8


def test_what_is_in_the_host_is_not_on_the_gpu():
    away = dataclasses.replace(ACTOR, offload_optimizer_in_rollout=True)
    here, there = by_name(ACTOR), by_name(away)
    state = part(here["generate"], "optimizer")
    assert here["generate"].total - there["generate"].total == pytest.approx(state)
    assert there["generate"].host == pytest.approx(state)
    assert there["train"].host == here["train"].host == 0
    assert there["train"].total == here["train"].total
    assert there["offloaded"].total < there["log-probs"].total


def test_a_swapped_reference_lies_in_the_host_and_a_resident_one_on_the_gpu():
    plain = by_name(ACTOR)
    swapped = by_name(dataclasses.replace(ACTOR, reference="swap"))
    resident = by_name(dataclasses.replace(ACTOR, reference="resident"))
    weights = part(plain["train"], "weights")
    for name, phase in plain.items():
        assert swapped[name].total == phase.total
        assert swapped[name].host - phase.host == weights
        assert resident[name].total - phase.total == pytest.approx(weights)
    every = phases.phases(dataclasses.replace(ACTOR, reference="swap"), TP8, 1, "none")
    but_save = tuple(phase for phase in every if phase.name != "save")  # which gathers through the host
    assert phases.host_gib(but_save, 8) == pytest.approx(8 * weights / 2**30)
    assert phases.host_gib(every, 8) >= phases.host_gib(but_save, 8)


def test_a_second_engines_weights_stay_while_the_role_trains_unless_they_are_unloaded():
    plain = by_name(ACTOR)
    stays = by_name(dataclasses.replace(ACTOR, engine="trtllm"))
    unloads = by_name(dataclasses.replace(ACTOR, engine="trtllm", engine_resident=False))
    weights = 2 * parameters(SHAPE) / 8
    assert stays["train"].total - plain["train"].total == pytest.approx(weights)
    assert unloads["train"].total == plain["train"].total
    assert part(unloads["generate"], "engine weights") == part(stays["generate"], "engine weights") == weights


def test_an_engine_that_sizes_its_cache_by_the_device_fills_nine_tenths_of_the_rest():
    assert H100 is not None
    found = by_name(dataclasses.replace(ACTOR, engine="vllm"), gpu=H100)["generate"]
    device = H100.usable_gib * 2**30
    rest = device - (found.total - part(found, "cache"))
    assert part(found, "cache") == pytest.approx(0.9 * rest)
    assert found.total < device


def test_an_engine_has_all_layers_on_every_rank():
    layout = Layout(tp=4, pp=4, sequence_parallel=True)
    found = by_name(dataclasses.replace(ACTOR, engine="trtllm"), layout)["generate"]
    assert part(found, "engine weights") == 2 * parameters(SHAPE) / 4
    assert part(found, "cache") == 16 * 2048 * 131072 / 4


def test_what_the_runtime_does_not_do_yet_is_called_unverified():
    found = by_name(ACTOR)
    verified = {name for name, phase in found.items() if phase.verified}
    assert verified == {"load", "train", "save"}
    assert not any(phase.verified for phase in by_name(dataclasses.replace(ACTOR, engine="vllm")).values())


def test_a_frozen_reward_model_loads_and_scores():
    judge = Workload(SHAPE, 4096, 64, trains=False, head="scalar", phase="reward")
    found = by_name(judge)
    assert set(found) == {"load", "score"}
    assert part(found["score"], "gradients") == part(found["score"], "optimizer") == 0


def test_the_plan_states_the_phases_and_the_largest_is_the_total():
    assert H100 is not None
    judge = Workload(SHAPE, 4096, 64, trains=False, head="scalar", phase="reward")
    resident = dataclasses.replace(ACTOR, reference="resident")
    for work in (ACTOR, Workload(SHAPE, 4096, 64), resident, judge):
        found = memory.role_memory(work, TP8, 1, "none", H100)
        assert max(found.phases.values()) == found.total_gib


@given(
    st.sampled_from(["megatron", "trtllm"]),
    st.sampled_from(["none", "swap", "resident"]),
    st.integers(1, 64),
    st.integers(1, 4096),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 3]),
)
def test_longer_responses_and_more_rows_never_take_less(engine, reference, rows, response, tp, pp):
    layout = Layout(tp, pp, sequence_parallel=tp > 1)
    work = dataclasses.replace(
        ACTOR, engine=engine, reference=reference, rollout_micro_batch=rows, response_tokens=response
    )
    size = lambda **more: memory.peak(dataclasses.replace(work, **more), layout, 1, "none").total  # noqa: E731
    assert (
        size()
        <= size(response_tokens=response + 512)
        <= size(response_tokens=response + 512, rollout_micro_batch=rows + 1)
    )
    assert size(offload_optimizer_in_rollout=True) <= size()


def test_stages_that_are_folded_while_it_generates_bring_their_weights_and_all_layers_of_the_cache():
    layout = Layout(tp=4, pp=4, sequence_parallel=True)
    plain = by_name(ACTOR, layout)
    found = by_name(dataclasses.replace(ACTOR, folds=True), layout)
    first, last = (stage_parameters(SHAPE, layout, stage, "language") for stage in (0, 3))
    others = part(found["generate"], "folded weights")
    held = (first, last)[found["generate"].stage == 3]
    whole = parameters(SHAPE) / 4
    assert others == pytest.approx(2 * (whole - held.dense - held.experts), rel=1e-3)
    assert others > 0.7 * 2 * whole
    assert part(found["generate"], "cache") == 4 * part(plain["generate"], "cache")
    assert {name: phase.total for name, phase in found.items() if name != "generate"} == {
        name: phase.total for name, phase in plain.items() if name != "generate"
    }
    uncut = by_name(dataclasses.replace(ACTOR, folds=True))
    assert uncut["generate"].total == by_name(ACTOR)["generate"].total
