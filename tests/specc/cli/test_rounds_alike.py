"""Rounds that are alike are printed once; what is only named like a round is not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from specc import cli
from specc.cli.folding import Round, ends, folded, rounds_of
from specc.plan import FORMAT, NO_MODEL, Cluster, Job, Layout, Plan, Role

SPEC = """\
name: toy
cluster: local-cpu
algorithm: rejection
data: {prompts: "builtin:arithmetic"}
roles: {actor: {model: tiny-llama}, reward: {function: "builtin:gsm8k"}}
rounds: 4
prompts_per_round: 64
generate: {samples: 4, max_tokens: 16, max_prompt_tokens: 64}
train: {global_batch: 32, seq_length: 128}
"""


def chained(rounds: int, wait: bool = True, batches: dict[int, int] | None = None) -> Plan:
    """Rounds of two clerks each; `batches` of the second one by round, 8 where nothing is said."""
    role = Role("clerk", "above", 1, 0, Layout(), 1, 8, NO_MODEL, trains=False)
    jobs = []
    for number in range(1, rounds + 1):
        names = f"loop-{number}-make", f"loop-{number}-learn"
        waits = (f"loop-{number - 1}-learn",) if wait and number > 1 else ()
        other = dataclasses.replace(role, global_batch=(batches or {}).get(number, 8))
        jobs += [
            Job(name, name, 1, after, (one,), {}, {}, hash=name)
            for name, after, one in zip(names, (waits, (names[0],)), (role, other), strict=True)
        ]
    return Plan(FORMAT, "toy", "0", 1, Cluster("here", "none", "cpu", 1, "cpu", "gloo"), tuple(jobs))


def shown(plan: Plan) -> list[str]:
    def text(job: Job) -> str:
        return f"{job.stage} after {job.depends_on} by {job.roles[0].global_batch}"

    found = folded(plan.jobs, rounds_of(plan), lambda job: job.stage, text)
    return [one if isinstance(one, str) else one.stage for one in found]


def test_rounds_that_say_the_same_are_one_line():
    first, second = ["loop-1-make", "loop-1-learn"], ["loop-2-make", "loop-2-learn"]
    assert shown(chained(20)) == [*first, *second, "... rounds 3 to 20 alike"]  # the first waits for nothing


def test_a_round_that_differs_is_printed_and_those_behind_it_fold_again():
    found = shown(chained(7, batches={4: 16}))
    assert [one for one in found if "alike" in one] == ["... round 3 alike", "... rounds 6 to 7 alike"]
    assert [one for one in found if "learn" in one] == [f"loop-{k}-learn" for k in (1, 2, 4, 5)]


def test_stages_that_do_not_wait_for_one_another_are_no_rounds():
    apart = chained(5, wait=False)
    assert rounds_of(apart) == {}
    assert shown(apart) == [job.stage for job in apart.jobs]
    assert rounds_of(chained(2))["loop-1-make"] == Round("loop", 1)


def test_a_report_of_many_rounds_shows_the_first_and_the_last():
    def shown(rounds: int) -> list[str]:
        plan = chained(rounds)
        return ends([job.stage for job in plan.jobs], rounds_of(plan), lambda stage: stage)

    first, last = ["loop-1-make", "loop-1-learn"], ["loop-20-make", "loop-20-learn"]
    assert shown(20) == [*first, "... rounds 2 to 19 between", *last]
    assert len(shown(3)) == 6  # so few are all shown
    assert ends(["a", "b"], {}, str) == ["a", "b"]


@pytest.fixture
def spec(tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text(SPEC)
    return str(file)


def test_a_plan_of_many_rounds_is_a_page_and_its_json_is_whole(spec, capsys):
    assert cli.run(["plan", spec]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40
    assert lines.count("... rounds 2 to 4 alike") == 3  # of the table, the notes, and what lies ahead
    assert [line for line in lines if "rejection-3" in line] == []
    assert cli.run(["plan", spec, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["jobs"]) == len(found["outlook"]) == 16


def test_a_layout_of_many_rounds_is_explained_once(spec, capsys):
    assert cli.run(["explain", spec, "roles.actor.parallel"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(" runs " in line for line in lines) == 2  # as it answers, and as it learns
    assert "  from    the planner" in lines
    assert lines[-1] == "... rounds 2 to 4 alike"
