"""What `from:` leads to: models and rows of stages, and of sections that become several stages."""

import pytest

from specc import source
from specc.experiment import check
from specc.graph import lower

SFT = {"algorithm": "sft", "model": "tiny-llama", "data": {"train": "builtin:arithmetic"}}
GENERATE = {"algorithm": "generate", "model": "tiny-llama", "data": {"prompts": "builtin:arithmetic"}}
BEST = {"algorithm": "best_of_n", "data": {"rows": {"from": "gen"}}}
ROUNDS = {
    "algorithm": "rejection",
    "data": {"prompts": "builtin:arithmetic"},
    "roles": {"actor": {"model": "tiny-llama"}, "reward": {"function": "builtin:gsm8k"}},
    "rounds": 2,
}


def lowered(**stages):
    read, _ = source.parse(source.dump({"name": "toy", "stages": stages}), "spec.yaml")
    experiment, said = check(read)
    assert not said, [d.message for d in said]
    return lower(experiment)


def test_rows_of_a_stage_are_needed_like_its_checkpoint_and_order_the_stages():
    graph, said = lowered(learn={**SFT, "data": {"train": {"from": "best"}}}, best=BEST, gen=GENERATE)
    assert not said
    assert [stage.name for stage in graph.stages] == ["gen", "best", "learn"]
    [needed] = graph.stage("learn").inputs
    assert (needed.kind, needed.stage, needed.path) == ("rows", "best", "stages.learn.data.train.from")
    assert graph.stage("learn").data["train"]["path"] == ""
    assert graph.stage("learn").data["train"]["from"] == {"stage": "best", "run": ""}


def test_rows_of_another_run_are_needed_of_no_stage_here():
    rows = {"from": {"run": "runs/old", "stage": "best"}}
    graph, said = lowered(learn={**SFT, "data": {"train": rows}})
    assert not said
    assert graph.stage("learn").data["train"]["from"] == {"stage": "best", "run": "runs/old"}


@pytest.mark.parametrize(
    ("stages", "message", "path"),
    [
        ({"best": BEST}, "there is no stage `gen` to take rows from", "stages.best.data.rows.from"),
        (
            {"best": BEST, "gen": SFT},
            "stage `gen` trains a model and makes no rows",
            "stages.best.data.rows.from",
        ),
        (
            {"gen": GENERATE, "more": {**SFT, "model": {"from": "gen"}}},
            "stage `gen` makes rows and trains no model",
            "stages.more.model.from",
        ),
        ({"gen": BEST}, "stage `gen` takes its rows from itself", "stages.gen.data.rows.from"),
    ],
)
def test_what_is_not_there_or_makes_something_else_is_told_where_it_is_asked_for(stages, message, path):
    _, (said,) = lowered(**stages)
    assert (said.message, said.path) == (message, path)


def test_the_name_of_several_stages_means_the_last_one_that_makes_what_is_asked_for():
    chat = {**SFT, "model": {"from": "loop"}, "data": {"train": {"from": "loop"}}}
    graph, said = lowered(chat=chat, loop=ROUNDS)
    assert not said
    assert {(a.kind, a.stage) for a in graph.stage("chat").inputs} == {
        ("checkpoint", "loop-2-train"),
        ("rows", "loop-2-select"),
    }
    assert graph.stage("chat").roles[0].model == {"from": "loop-2-train"}
    assert graph.stage("chat").data["train"]["from"]["stage"] == "loop-2-select"


def test_two_stages_of_one_name_are_told():
    _, said = lowered(loop=ROUNDS, **{"loop-1-train": SFT})
    assert [d.code for d in said] == ["G005"]
    assert "both make a stage `loop-1-train`" in said[0].message


def test_only_the_last_stage_that_trains_exports():
    graph, _ = lowered(loop=ROUNDS, best={**BEST, "data": {"rows": {"from": "loop"}}})
    assert [stage.name for stage in graph.stages if stage.export] == ["loop-2-train"]
