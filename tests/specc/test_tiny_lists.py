"""The tiny twin of a stage that reads several data sets: each of the list is made small, in its place."""

import json
from typing import Any

import pytest

from specc import tiny
from specc.compile import compile_spec

SPEC = """\
name: several
cluster: example-h100
algorithm: generate
model: llama3-8b
data: {prompts: PROMPTS}
generate: {samples: 4, max_tokens: 2048}
"""


@pytest.fixture
def prompts(tmp_path):
    """prompts(what the spec says): what its twin reads."""
    (tmp_path / "here.jsonl").write_text('{"input": "1+1="}\n' * 100)

    def prompts(said: Any) -> list[dict[str, Any]]:
        path = tmp_path / "several.yaml"
        path.write_text(SPEC.replace("PROMPTS", json.dumps(said)))
        done = compile_spec(path, tiny=True, here=True)
        assert done.plan, done.diagnostics
        return done.plan.jobs[0].data["prompts"]

    return prompts


def test_what_is_here_is_read_and_what_is_not_is_generated_each_in_its_place(prompts):
    here, gone = prompts(["here.jsonl", "gone.jsonl"])
    assert (here["path"], here["limit"]) == ("here.jsonl", tiny.ROWS)
    assert (gone["path"], gone["limit"]) == ("builtin:arithmetic", tiny.ROWS)


def test_weights_and_templates_stay_with_their_data(prompts):
    said = [
        {"path": "gone.jsonl", "weight": 3, "prompt": "Q: {question}"},
        {"path": "here.jsonl", "weight": 1},
    ]
    gone, here = prompts(said)
    assert (gone["path"], gone["weight"], gone["prompt"]) == ("builtin:arithmetic", 3, "Q: {question}")
    assert (here["path"], here["weight"]) == ("here.jsonl", 1)


def test_a_smaller_limit_stays(prompts):
    (few, many) = prompts([{"path": "here.jsonl", "limit": 3}, {"path": "gone.jsonl", "limit": 5000}])
    assert (few["limit"], many["limit"]) == (3, tiny.ROWS)


def test_one_data_set_may_stand_without_brackets(prompts):
    (only,) = prompts("gone.jsonl")
    assert only["path"] == "builtin:arithmetic"


def test_rows_of_another_stage_stay_in_a_list_beside_a_file_that_is_made_small(tmp_path):
    path = tmp_path / "mixed.yaml"
    path.write_text(
        "name: mixed\ncluster: example-h100\nstages:\n"
        "  ask: {algorithm: generate, model: llama3-8b, data: {prompts: gone.jsonl}}\n"
        "  both: {algorithm: mix, data: {sources: [{from: ask}, {path: gone.jsonl, repeat: 2}]}}\n"
    )
    done = compile_spec(path, tiny=True, here=True)
    assert done.plan, done.diagnostics
    asked, *files = done.plan.jobs[1].data["sources"]
    assert (asked["path"], asked["from"]["stage"]) == ("", "ask")
    assert [(each["path"], each["limit"]) for each in files] == [("builtin:arithmetic", tiny.ROWS)] * 2
