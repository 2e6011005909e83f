"""Stages that only ask a model: what their roles' work is, and how many rows they read and make."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from specc.graph import Stage, StageRole
from specc.plan import NO_MODEL, Job, Layout, Role
from specc.planner.asking import Rows, asked_role, made_rows, source_rows, with_rows, work_of

SAID = {"samples": 3, "batch": 10, "expected_tokens": 50, "engine": "vllm"}


def stage(program: str = "generate", makes: str = "rows", **more: object) -> Stage:
    """A stage of one asked role, batches of 10 prompts with 3 responses each."""
    answering = program == "generate"
    role = StageRole(
        name="model",
        program=program,
        model={},
        trains=makes != "rows",
        global_batch=30 if answering else 10,
        seq_length=100,
        prompt_tokens=60 if answering else 0,
        response_tokens=40 if answering else 0,
    )
    return Stage(
        name="ask",
        algorithm=program,
        roles=(replace(role, **more),),  # type: ignore[arg-type]
        settings={program: dict(SAID)},
        data={},
        makes=makes,
    )


def work(of: Stage, nodes: int | None = 1, gpus: int = 8) -> dict[str, object]:
    return work_of(of, of.roles[0], nodes, gpus)


def test_batches_and_lengths_are_rounded_up_so_that_every_layout_is_open():
    found = work(stage())
    assert (found["global_batch"], found["seq_length"]) == (32, 128)
    assert work(stage(), nodes=None, gpus=7)["global_batch"] == 35
    assert work(stage(micro_batch=3), gpus=8)["global_batch"] == 48  # a multiple of 24


def test_what_answers_generates_and_what_scores_does_not():
    found = work(stage())
    assert (found["phase"], found["samples"], found["expected_tokens"]) == ("generate", 3, 50)
    assert (found["engine"], found["engine_resharded"]) == ("vllm", True)
    assert "phase" not in work(stage("score"))


def test_what_learns_is_left_alone():
    assert work(stage(makes="model")) == {}


def test_a_planned_role_says_prompts_of_a_step_and_responses_at_a_time():
    role = Role("model", "generate", 1, 8, Layout(dp=8), 4, 32, NO_MODEL, trains=False)
    role = replace(role, model=replace(NO_MODEL, name="tiny"))
    found = asked_role(role, stage())
    assert (found.global_batch, found.rows, found.trains) == (10, 4, False)
    assert asked_role(role, stage("score")).rows == 0
    assert asked_role(role, stage(makes="model")) is role
    assert with_rows({"generate": SAID}, [found])["generate"] == {**SAID, "rows": 4}
    assert with_rows({"train": {}}, [found]) == {"train": {}}


def job(program: str, data: object, **said: object) -> Job:
    role = SimpleNamespace(program=program)
    return Job("s", "s", 1, (), (role,), {program: said}, data)  # type: ignore[arg-type]


def reads(program: str, *data: object, **said: object) -> Rows | None:
    """Files have 100 rows; stage `known` made 60 of 20 prompts, stage `open` an unknown number."""
    made = {"known": Rows(60, 20)}
    use = {"rows": data[0] if len(data) == 1 else list(data)}
    return source_rows(job(program, use, **said), made, lambda one: 100 if one["path"] == "here" else 0)


HERE, GONE = {"path": "here"}, {"path": "gone"}
KNOWN, OPEN, FAR = (
    {"path": "", "from": {"stage": name, "run": run}}
    for name, run in (("known", ""), ("open", ""), ("known", "elsewhere"))
)


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        ((HERE,), Rows(100, 100)),
        ((GONE,), None),
        ((GONE | {"limit": 7},), Rows(7, 7)),
        ((KNOWN,), Rows(60, 20)),
        ((KNOWN | {"limit": 30},), Rows(30, 20)),
        ((OPEN,), None),
        ((FAR,), None),
        ((HERE, KNOWN), Rows(160, 120)),
        ((HERE, OPEN), None),
    ],
)
def test_rows_that_are_read_are_counted_as_far_as_they_are_known(data, rows):
    assert reads("score", *data) == rows


@pytest.mark.parametrize(("index", "rows"), [(0, 30), (2, 30), (3, 10), (4, 0)])
def test_a_slice_is_as_long_as_the_data_leave_it(index, rows):
    assert reads("generate", HERE, slice={"size": 30, "index": index}) == Rows(rows, rows)
    assert reads("generate", GONE, slice={"size": 30, "index": index}) == Rows(30, 30)


@pytest.mark.parametrize(
    ("program", "said", "rows"),
    [
        ("generate", {"samples": 4}, Rows(240, 60)),
        ("best_of_n", {"keep": 1}, Rows(20, 20)),
        ("best_of_n", {"keep": 5}, Rows(60, 20)),
        ("best_of_n", {"keep": 1, "truncated": "drop"}, None),
        ("above", {}, None),
        ("score", {}, Rows(60, 20)),
        ("mix", {}, Rows(60, 20)),
        ("unheard_of", {}, None),
    ],
)
def test_rows_that_are_made_follow_from_those_that_are_read(program, said, rows):
    assert made_rows(job(program, {}, **said), Rows(60, 20)) == rows
    assert made_rows(job(program, {}, **said), None) is None
