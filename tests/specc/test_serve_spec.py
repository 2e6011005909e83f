"""`algorithm: serve`: what it lowers to, what it refuses, and the job that serves until it is stopped."""

import pytest

from specc import emit
from specc.plan import ANSWER

HEAD = "name: toy\ncluster: toy\n"
MODEL = "{shape: {layers: 2, hidden: 64, heads: 4}}"
SPEC = (
    HEAD
    + f"""\
stages:
  sft:
    algorithm: sft
    model: {MODEL}
    data: {{train: rows.jsonl}}
    train: {{steps: 4}}
  served:
    algorithm: serve
    model: {{from: sft, chat_template: extra_id}}
"""
)


def served(compilation):
    assert compilation.plan, compilation.diagnostics
    return next(job for job in compilation.plan.jobs if job.stage == "served")


def said(compilation):
    return [(d.code, d.path, d.message) for d in compilation.diagnostics if d.severity == "error"]


def test_a_stage_that_serves_is_asked_and_never_learns(compile_text):
    job = served(compile_text(SPEC + "    serve: {port: 8000, max_length: 2048, rows: 16, idle: 30m}\n"))
    [role] = job.roles
    assert (role.program, role.trains, role.rows, role.micro_batch) == (ANSWER, False, 16, 16)
    assert role.model.weights.kind == "stage"
    assert role.model.chat_template == "extra_id"
    assert job.depends_on == ("sft",)
    assert not job.export
    own = job.settings[ANSWER]
    assert own == {
        "host": "127.0.0.1", "port": 8000, "name": "sft", "key_file": "", "length": 2048,
        "most": 512, "idle": 1800, "rehearsal": 0, "rows": 16,
    }  # fmt: skip


def test_how_it_serves_is_no_part_of_what_it_is(compile_text):
    one = served(compile_text(SPEC))
    other = served(compile_text(SPEC + "    serve: {port: 8000, idle: 1h, rows: 4, name: x}\n"))
    assert one.hash == other.hash
    assert one.settings != other.settings


def test_left_open_the_planner_says_how_many_answers_are_made_at_once(compile_text):
    job = served(compile_text(SPEC))
    assert job.roles[0].rows == job.settings[ANSWER]["rows"] > 0


WRONG = {
    "serve: {host: 0.0.0.0}": "everybody may ask",
    'serve: {host: "::"}': "everybody may ask",
    "serve: {host: gpu-node-1}": "everybody may ask",
    "serve: {port: 70000}": "65535",
    "serve: {idle: 30}": "a time with a unit",
    "serve: {prot: 1}": "prot",
    "data: {rows: x.jsonl}": "data",
    "env: {SPECC_API_KEY: abc}": "into the plan",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_cannot_be_served_is_refused(compile_text, line):
    [(code, path, message)] = said(compile_text(SPEC + f"    {line}\n"))
    assert code.startswith(("T", "S"))
    assert WRONG[line] in message + path


def test_with_a_key_other_machines_may_ask(compile_text):
    job = served(compile_text(SPEC + "    serve: {host: 0.0.0.0, key_file: /keys/mine}\n"))
    assert job.settings[ANSWER]["key_file"] == "/keys/mine"


def test_nothing_can_be_taken_from_it(compile_text):
    again = "  again:\n    algorithm: sft\n    model: {from: served}\n    data: {train: {from: served}}\n"
    found = said(compile_text(SPEC + again + "    train: {steps: 4}\n"))
    assert [code for code, *_ in found] == ["G004", "G004"]
    assert all("answers people" in message for *_, message in found)


def test_it_comes_behind_stages_that_nobody_would_wait_for(compile_text):
    other = "  other:\n    algorithm: sft\n    model: {from: sft}\n    data: {train: rows.jsonl}\n"
    plan = compile_text(SPEC + other + "    train: {steps: 4}\n").plan
    assert [job.stage for job in plan.jobs] == ["sft", "other", "served"]


def test_a_reward_model_cannot_be_served(compile_text):
    text = SPEC.replace("algorithm: sft", "algorithm: reward", 1)
    assert [code for code, *_ in said(compile_text(text))] == ["G003"]


def test_its_job_is_queued_again_at_its_limit_and_ends_well_when_it_is_stopped(compile_text):
    files = emit.bundle(compile_text(SPEC).plan, "slurm")
    script, training = files["01-served.sbatch"], files["00-sft.sbatch"]
    assert "served.jsonl" in script
    assert 'submit again to serve again"\n  exit "$code"' in script
    assert "served.jsonl" not in training
    assert 'submit again to continue"\n  exit 1' in training


def test_its_twin_asks_itself_and_ends(compile_text):
    text = SPEC + "    serve: {host: 0.0.0.0, key_file: /keys/mine}\n"
    own = served(compile_text(text, tiny=True)).settings[ANSWER]
    assert (own["rehearsal"], own["port"], own["key_file"], own["host"]) == (3, 0, "", "127.0.0.1")
    assert 0 < own["idle"] < 10
