"""`specc plan --options`: as a table, as JSON, and when it is asked for wrongly."""

import json

import pytest


def test_options_are_shown_as_a_table(specc, spec):
    ran = specc("plan", spec, "--set", "nodes=null", "--options", "3")
    assert ran.code == 0
    shown = ran.out.split("options: none is beaten in both nodes and time\n\n")[1].splitlines()
    assert shown[0].split() == [
        *("stage", "role", "nodes", "x", "gpus", "layout", "micro", "memory", "step", "time", "GPU-hours")
    ]
    assert len(shown) == 4
    assert sum(line.endswith("<- planned") for line in shown) == 1


def test_pinned_nodes_say_how_they_are_freed(specc, spec):
    ran = specc("plan", spec, "--options", "3")
    assert "where nodes are pinned there is no choice; --set nodes=null frees them" in ran.out


def test_options_stand_beside_the_contract_in_json(specc, spec):
    plain = json.loads(specc("plan", spec, "--json").out)
    ran = json.loads(specc("plan", spec, "--json", "--options", "2", "--set", "nodes=null").out)
    assert set(ran) == {*plain, "options"}
    assert len(ran["options"]) == 2
    first = ran["options"][0]
    assert {"stage", "role", "nodes", "layout", "micro_batch", "recompute", "memory"} <= set(first)
    assert first["step_seconds"] * 10 == pytest.approx(first["wall_seconds"], abs=0.1)
    role = ran["jobs"][0]["roles"][0]
    planned = next(option for option in ran["options"] if option["planned"])
    assert planned["layout"]["dp"] == role["layout"]["dp"]
    assert planned["memory"] == role["memory"]


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5", "99999"])
def test_a_bad_number_of_options_is_a_usage_error(specc, spec, count):
    ran = specc("plan", spec, "--options", count)
    assert ran.code == 2
    assert "is not a number from 1 to 1000" in ran.err or "expected one argument" in ran.err


def test_options_of_the_cpu_are_what_the_plan_takes(specc, spec):
    ran = specc("plan", spec, "--cluster", "local-cpu", "--set", "model=tiny-llama", "--options", "3")
    assert ran.code == 0
    assert ran.out.count("<- planned") == 1


def test_the_objective_and_its_budget_are_flags_too(specc, spec):
    flags = ("--set", "nodes=null", "--objective", "fastest", "--nodes", "3")
    ran = json.loads(specc("plan", spec, "--json", *flags).out)
    said = json.loads(
        specc(
            "plan", spec, "--json", "--set", "nodes=null", "--set", "plan={objective: fastest, max_nodes: 3}"
        ).out
    )
    assert ran["jobs"] == said["jobs"]
    assert ran["jobs"][0]["nodes"] <= 3
    assert "the fastest" in ran["jobs"][0]["roles"][0]["why"]


def test_an_unknown_objective_is_a_usage_error(specc, spec):
    assert specc("plan", spec, "--objective", "prettiest").code == 2
