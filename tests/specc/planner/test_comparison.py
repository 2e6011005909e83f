"""Why a layout was taken: its rivals are slower or too large, and the formulas add up to the plan."""

import re

import pytest

from specc import planner
from specc.planner import hardware, layouts
from specc.planner.comparison import Comparison, compare

SPEC = """\
name: compared
cluster: toy
algorithm: sft
model: llama3-70b
data: {train: "builtin:arithmetic"}
train: {steps: 100, global_batch: 128, seq_length: 4096, warmup_steps: 1}
"""


def compared(compile_text, *overrides: str):
    done = compile_text(SPEC, overrides)
    assert done.plan is not None, done.diagnostics
    role = done.plan.jobs[0].roles[0]
    _, request = planner.requests(done.graph, done.profile)[0]
    return compare(request, role, hardware.gpu(done.plan.cluster.gpu)), role, request


def test_no_runner_up_is_faster_and_they_come_in_order(compile_text):
    found, role, _ = compared(compile_text, "nodes=32")
    steps = [rival.step_seconds for rival in found.runners_up]
    assert steps == sorted(steps)
    assert steps[0] >= role.step_seconds
    assert all(
        rival.slower == pytest.approx(rival.step_seconds - role.step_seconds) for rival in found.runners_up
    )
    assert found.winner not in [rival.layout for rival in found.runners_up]


def test_what_does_not_fit_is_named_with_how_much(compile_text):
    found, _, _ = compared(compile_text, "nodes=32")
    assert found.too_large
    for rival in found.too_large:
        assert rival.oom_probability > layouts.MARGIN
        assert rival.over_gib == pytest.approx(
            rival.total_gib - hardware.gpu("h100-80gb").usable_gib, abs=0.002
        )


def test_one_node_less_is_named_where_the_fewest_were_taken(compile_text):
    found, role, _ = compared(compile_text)
    assert found.too_large[0].nodes == role.nodes - 1


def test_rivals_keep_what_is_pinned(compile_text):
    found, _, _ = compared(compile_text, "nodes=8", "parallel={tp: 4}")
    assert found.runners_up
    assert all("TP4" in rival.layout for rival in (*found.runners_up, *found.too_large))


@pytest.mark.parametrize("more", [[], ["nodes=32"], ["model=mixtral-8x7b", "nodes=8"], ["precision=fp32"]])
def test_the_parts_are_those_of_the_plan(compile_text, more):
    found, role, _ = compared(compile_text, *more)
    parts = {part: gib for part, gib in role.memory.parts.items() if gib}
    assert {f.part: f.gib for f in found.formulas} == pytest.approx(parts, abs=0.001)


@pytest.mark.parametrize("more", [[], ["nodes=32"], ["model=mixtral-8x7b", "nodes=8"]])
def test_the_parts_of_a_step_add_up_to_it(compile_text, more):
    found, role, _ = compared(compile_text, *more)
    assert sum(part.seconds for part in found.times) == pytest.approx(role.step_seconds, abs=2e-3)
    assert all(part.text for part in found.times)


def product(text: str) -> float:
    """A formula as arithmetic: words and commas go, `x` multiplies."""
    text = text.replace(",", "").replace("of a layer", "").replace("MiB", "* 1048576")
    text = re.sub(r"\b(dp|cp|vp) ", "", text)
    text = re.sub(r"parameters|bytes|layers|in flight|tokens|of the vocabulary|of hidden states", "", text)
    text = re.sub(r"while one layer is computed|of experts", "", text).replace(" x ", " * ")
    return eval(text)  # of our own making, in a test


@pytest.mark.parametrize("more", [[], ["nodes=32"], ["nodes=8", "parallel={tp: 8, pp: 8, vp: 2}"]])
def test_every_product_gives_the_part_that_it_stands_for(compile_text, more):
    found, _, _ = compared(compile_text, *more)
    products = {f.part: f for f in found.formulas if re.match(r"[(\d]", f.text)}
    assert {"weights", "gradients", "optimizer", "activations"} <= set(products)
    for formula in products.values():
        assert product(formula.text) / 2**30 == pytest.approx(formula.gib, rel=0.005), formula


def test_the_band_is_said_with_expandable_segments_and_without(compile_text):
    found, role, _ = compared(compile_text, "nodes=32")
    with_them, without = found.bands
    assert with_them.probability == role.memory.oom_probability
    assert without.probability >= with_them.probability
    assert without.safe_gib < with_them.safe_gib < with_them.lost_gib
    assert "without expandable segments" in str(without)


def test_adam_in_bf16_is_2_and_4_and_12_bytes(compile_text):
    found, role, _ = compared(compile_text, "nodes=32")
    texts = {f.part: f.text for f in found.formulas}
    assert texts["weights"].endswith("x 2 bytes")
    assert texts["gradients"].endswith("x 4 bytes")
    assert texts["optimizer"].endswith(f"/ (dp {role.layout.dp} x cp 1) x 12 bytes")


def test_the_bubble_is_that_of_1f1b(compile_text):
    found, role, _ = compared(compile_text, "nodes=32", "parallel.vp=1")
    waits = role.layout.pp - 1
    turns = 128 // (role.micro_batch * role.layout.dp)
    assert isinstance(found, Comparison)
    assert found.bubble == pytest.approx(waits / (turns + waits), abs=0.001)
