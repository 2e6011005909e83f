"""The options: a Pareto set that keeps what is pinned and holds what the plan takes."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specc.planner import hardware, layouts
from specc.planner import options as ways
from specc.planner.layouts import Pins, search
from specc.planner.memory import Workload
from specc.planner.options import Option, pareto, spread

SPEC = """\
name: choices
cluster: toy
algorithm: sft
model: {model}
data: {{train: "builtin:arithmetic"}}
train: {{steps: 100, global_batch: {batch}, seq_length: 2048, warmup_steps: 1}}
"""


def options(compile_text, text: str, count: int = 1000, overrides=()) -> list[Option]:
    done = compile_text(text, overrides)
    assert done.plan is not None, done.diagnostics
    return ways.options(done.graph, done.profile, done.plan, ".", count)


def beats(one: Option, other: Option) -> bool:
    """No worse in nodes, time and GPU-hours, and better in one."""
    a, b = ((o.nodes, o.step_seconds, o.gpu_hours) for o in (one, other))
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def test_no_option_is_beaten_and_the_planned_one_is_among_them(compile_text):
    found = options(compile_text, SPEC.format(model="llama3-70b", batch=128))
    assert len(found) > 5
    assert not any(beats(one, other) for one in found for other in found)
    assert [option.nodes for option in found if option.planned] == [found[0].nodes]


def test_every_option_fits(compile_text):
    found = options(compile_text, SPEC.format(model="llama3-70b", batch=128))
    assert all(option.memory.oom_probability <= layouts.MARGIN for option in found)


def test_the_option_of_each_size_is_what_the_search_finds_there(compile_text):
    text = SPEC.format(model="llama3-8b", batch=64)
    for option in options(compile_text, text, 4):
        role = compile_text(text, [f"nodes={option.nodes}"]).plan.jobs[0].roles[0]
        assert (role.layout, role.micro_batch) == (option.layout, option.micro_batch)
        assert role.step_seconds == option.step_seconds
        assert role.memory == option.memory


@settings(max_examples=settings().max_examples * 3 // 20, deadline=None)
@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.sampled_from([None, 1, 2]))
def test_pins_stay_in_every_option(tp, pp, micro_batch):
    card = hardware.gpu("h100-80gb")
    from specc import models

    work = Workload(models.catalog()["llama3-8b"].shape, 2048, 64)
    pins = Pins(tp=tp, pp=pp, micro_batch=micro_batch)
    found = [search(work, card, nodes, 8, pins).best for nodes in range(1, 17)]
    for one in pareto(f for f in found if f):
        assert (one.case.layout.tp, one.case.layout.pp) == (tp, pp)
        assert micro_batch in (None, one.case.micro_batch)


def test_pinned_nodes_leave_one_option(compile_text):
    found = options(compile_text, SPEC.format(model="llama3-70b", batch=128), overrides=["nodes=8"])
    assert [(option.nodes, option.planned) for option in found] == [(8, True)]


def test_a_layout_that_is_planned_though_it_does_not_fit_is_the_only_option(compile_text):
    text = SPEC.format(model="llama3-70b", batch=128)
    found = options(compile_text, text, overrides=["nodes=1", "parallel={tp: 8, pp: 1}"])
    assert [(option.nodes, option.planned) for option in found] == [(1, True)]
    assert found[0].memory.oom_probability > 0.5


def test_options_stay_within_the_nodes_of_the_cluster(compile_text):
    done = compile_text(SPEC.format(model="llama3-8b", batch=64))
    small = done.profile.model_copy(update={"nodes": 3})
    found = ways.options(done.graph, small, done.plan, ".", 100)
    assert max(option.nodes for option in found) <= 3


FRONTS = st.lists(st.integers(1, 500), min_size=1, max_size=30, unique=True).map(sorted)


@given(FRONTS, st.integers(1, 12), st.data())
def test_those_shown_are_of_the_front_in_order_with_the_planned_one(nodes, count, data):
    planned = data.draw(st.sampled_from(nodes))
    front = [_option(n, n == planned) for n in nodes]
    shown = spread(front, count)
    assert len(shown) == min(count, len(front))
    assert shown == [option for option in front if option in shown]
    assert any(option.planned for option in shown)


def _option(nodes: int, planned: bool) -> Option:
    from specc.plan import Layout, Memory

    return Option("s", "r", nodes, 8, Layout(), 1, "none", 0, Memory(), 1 / nodes, 0, 0, planned)


def test_the_ends_are_shown_when_there_is_room():
    front = [_option(n, n == 1) for n in range(1, 40)]
    shown = [option.nodes for option in spread(front, 3)]
    assert shown[0] == 1
    assert shown[-1] == 39


def test_every_number_of_nodes_that_can_hold_a_layout_is_looked_at(compile_text):
    """With 36 rows a step, 3 and 9 nodes divide what 2, 4 and 8 do not."""
    found = options(compile_text, SPEC.format(model="llama3-8b", batch=72), overrides=[])
    assert {3, 9} <= {option.nodes for option in found}


def test_the_same_spec_gives_the_same_options(compile_text):
    text = SPEC.format(model="llama3-8b", batch=64)
    one, other = (options(compile_text, text, 5) for _ in range(2))
    assert json.dumps([dataclasses.asdict(o) for o in one]) == json.dumps(
        [dataclasses.asdict(o) for o in other]
    )


@pytest.mark.parametrize("batch", [1, 7, 24])
def test_odd_batches_have_options_too(compile_text, batch):
    found = options(compile_text, SPEC.format(model="llama3-8b", batch=batch))
    assert found
    assert not any(beats(one, other) for one in found for other in found)
