"""From stages to a graph: order, references, circles, and what a stage is identified by."""

import pytest

from specc import source
from specc.experiment import check
from specc.graph import lower

STAGE = {"algorithm": "sft", "model": "tiny-llama", "data": {"train": "builtin:arithmetic"}}


def lowered(data):
    read, _ = source.parse(source.dump({"name": "toy", **data}), "spec.yaml")
    experiment, said = check(read)
    assert not said
    return lower(experiment)


def chain(**needs):
    """Stages by name, each from the stage it names, or from none."""
    stages = {
        name: {**STAGE, **({"model": {"from": other}} if other else {})} for name, other in needs.items()
    }
    return lowered({"stages": stages})


def test_stages_stand_after_those_they_need_else_in_the_order_of_the_spec():
    graph, said = chain(c="a", b=None, a="d", d=None, e="c")
    assert not said
    assert [stage.name for stage in graph.stages] == ["d", "a", "c", "b", "e"]


def test_a_stage_says_whose_checkpoint_it_needs_and_where_the_spec_says_so():
    graph, _ = chain(a=None, b="a")
    (artifact,) = graph.stage("b").inputs
    assert (artifact.kind, artifact.stage, artifact.path) == ("checkpoint", "a", "stages.b.model.from")
    assert graph.stage("b").roles[0].model == {"from": "a"}


def test_an_unknown_stage_is_told_with_the_one_that_was_perhaps_meant():
    _, (said,) = chain(first=None, second="frist")
    assert (said.code, said.path, said.help) == ("G001", "stages.second.model.from", "did you mean `first`?")


@pytest.mark.parametrize(
    ("needs", "circle"),
    [
        ({"a": "a"}, "stage `a` takes its model from itself"),
        ({"a": "b", "b": "a"}, "the stages need one another in a circle: `a` -> `b` -> `a`"),
        ({"x": "a", "a": "c", "b": "a", "c": "b"}, "a circle: `a` -> `b` -> `c` -> `a`"),
    ],
)
def test_a_circle_is_named_in_full(needs, circle):
    _, said = chain(**needs)
    assert [d.code for d in said] == ["G002"]
    assert circle in said[0].message


def test_a_long_chain_is_no_trouble():
    names = [f"s{i}" for i in range(400)]
    graph, said = chain(**dict(zip(names[1:], names, strict=False)), s0=None)
    assert not said
    assert [stage.name for stage in graph.stages] == names


def test_another_runs_stage_is_no_stage_of_this_graph():
    graph, said = lowered({**STAGE, "model": {"from": {"run": "runs/other", "stage": "rm"}}})
    assert not said
    assert graph.stages[0].inputs[0].run == "runs/other"
    assert graph.stages[0].roles[0].model == {"from": {"stage": "rm", "run": "runs/other"}}


def test_the_last_stage_exports_unless_the_spec_says_otherwise():
    graph, _ = chain(a=None, b="a")
    assert [stage.export for stage in graph.stages] == [False, True]
    graph, _ = lowered({**STAGE, "export": False})
    assert graph.stages[0].export is False


def test_paths_are_those_that_the_person_writes():
    assert lowered(STAGE)[0].stages[0].roles[0].paths["tp"] == "parallel.tp"
    assert chain(a=None)[0].stages[0].roles[0].paths["micro_batch"] == "stages.a.train.micro_batch"
    assert chain(a=None)[0].stages[0].path("train.lr") == "stages.a.train.lr"


def test_one_epoch_is_trained_when_neither_steps_nor_epochs_are_said():
    def counts(**train):
        settings = lowered({**STAGE, "train": train})[0].stages[0].settings["train"]
        return settings["steps"], settings["epochs"]

    assert counts() == (0, 1)
    assert counts(steps=5) == (5, 0)
    assert counts(steps=5, epochs=0.5) == (5, 0.5)


def test_placement_does_not_change_the_identity_and_mathematics_does():
    def identity(**more):
        return lowered({**STAGE, **more})[0].stages[0].identity

    same = {"nodes": 2, "time": "4h", "parallel": {"tp": 2}, "cluster": "elsewhere", "name": "other"}
    assert identity(**same) == identity()
    assert identity(seed=7) != identity()
    assert identity(sft={"add_eos": False}) != identity()
