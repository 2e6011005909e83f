"""`specc explain SPEC parallel`: the winner among its rivals, as text and as JSON."""

import json


def test_the_layout_is_explained_with_rivals_and_formulas(specc, spec):
    ran = specc("explain", spec, "parallel")
    assert ran.code == 0
    assert "runners-up on the same nodes" in ran.out
    assert "memory of the fullest GPU" in ran.out
    assert "parameters x 2 bytes" in ran.out


def test_other_values_are_explained_without(specc, spec):
    assert "runners-up" not in specc("explain", spec, "train.lr").out


def test_the_comparison_is_data_too(specc, spec):
    facts = json.loads(specc("explain", spec, "parallel", "--json").out)
    (found,) = facts["comparisons"]
    assert facts["value"] == found["winner"]
    assert {"runners_up", "too_large", "formulas"} <= set(found)


def test_a_layout_that_there_is_none_of_says_why(specc, spec):
    ran = specc("explain", spec, "parallel", "--set", "model=llama3-70b")
    assert ran.code == 1
    assert "P031" in ran.err


def test_a_stage_is_explained_by_its_path(specc, tmp_path):
    path = tmp_path / "two.yaml"
    stage = (
        '{algorithm: sft, model: llama3-8b, data: {train: "builtin:arithmetic"}, nodes: 1, '
        "train: {steps: 10, warmup_steps: 1}}"
    )
    path.write_text(f"name: two\ncluster: example-h100\nstages:\n  one: {stage}\n  two: {stage}\n")
    facts = json.loads(specc("explain", path, "stages.two.parallel", "--json").out)
    assert len(facts["comparisons"]) == 1


def test_on_a_cpu_no_times_are_made_up(specc, spec):
    ran = specc("explain", spec, "parallel", "--cluster", "local-cpu", "--set", "model=tiny-llama")
    assert ran.code == 0
    assert "lost by" not in ran.out
