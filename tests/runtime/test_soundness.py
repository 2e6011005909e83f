"""A plan that was edited by hand is refused by the field that makes no sense, before anything starts."""

import json

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import toy_rewards  # noqa: E402
import toy_runs  # noqa: E402

from runtime import preflight  # noqa: E402
from runtime.problem import Problem  # noqa: E402

JOB, ROLE = ("jobs", 0), ("jobs", 0, "roles", 0)
TRAIN = (*JOB, "settings", "train")


def edited(file, path, value):
    data = json.loads(file.read_text())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(data))


def test_a_plan_as_it_was_compiled_is_sound(tmp_path):
    preflight.read_plan(toy_runs.written(tmp_path, toy_runs.plan()), "sft", "model")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((*JOB, "stage"), "../evil", "`stage` is `../evil`, expected the name of a folder"),
        ((*JOB, "stage"), "", "`stage` is ``, expected the name of a folder"),
        (("cluster", "device"), "tpu", "`device` is `tpu`, expected cuda or cpu"),
        (("cluster", "backend"), "smoke", "`backend` is `smoke`, expected nccl or gloo"),
        ((*ROLE, "precision"), "int3", "`precision` is `int3`, expected bf16 or fp32"),
        ((*ROLE, "recompute"), "lots", "`recompute` is `lots`, expected none or selective or full"),
        ((*ROLE, "global_batch"), 0, "`global_batch` is `0`, expected a number above 0"),
        ((*ROLE, "micro_batch"), -1, "`micro_batch` is `-1`, expected a number above 0"),
        ((*ROLE, "layout", "tp"), 0, "`layout.tp` is `0`, expected a number above 0"),
        ((*ROLE, "layout", "tp"), 3, "4 heads do not divide by TP 3"),
        ((*ROLE, "layout", "ep"), 2, "1 processes do not divide by EP 2 x ETP 1 x PP 1"),
        ((*ROLE, "layout", "cp"), 2, "CP 2 needs Transformer Engine's attention"),
        ((*ROLE, "model", "head"), "wings", "`head` is `wings`, expected language or scalar or attributes"),
        ((*ROLE, "model", "shape", "heads"), 3, "3 heads do not divide by kv_groups 2"),
        ((*ROLE, "model", "shape", "hidden"), 0, "`shape.hidden` is `0`, expected a number above 0"),
        ((*TRAIN, "schedule"), "cosin", "`train.schedule` is `cosin`, expected cosine or linear or constant"),
        ((*TRAIN, "lr"), "fast", "`train.lr` is `fast`, expected a number, 0 or more"),
        ((*TRAIN, "lr"), None, "`train.lr` is nothing, expected a number"),
        ((*TRAIN, "lr"), float("nan"), "`train.lr` is `nan`, expected a number, 0 or more"),
        ((*TRAIN, "seq_length"), 1.5, "`train.seq_length` is `1.5`, expected a whole number, 0 or more"),
        ((*TRAIN, "save_every"), -2, "`train.save_every` is `-2`, expected a whole number, 0 or more"),
        ((*TRAIN, "betas"), 0.9, "`train.betas` is `0.9`, expected two numbers"),
        ((*TRAIN, "wandb"), "x", "`train.wandb` is `x`, expected an object"),
        ((*JOB, "settings"), {}, "`settings.train` is nothing, expected an object"),
        ((*JOB, "settings", "sft", "truncation"), "middle", "`truncation` is `middle`, expected right or"),
        ((*JOB, "collective_timeout_seconds"), 0, "`collective_timeout_seconds` is `0`, expected a number"),
        ((*JOB, "data", "train", "path"), 3, "expected an object with a path"),
        ((*JOB, "data", "train", "limit"), -4, "`data.train.limit` is `-4`, expected a whole number"),
        ((*JOB, "data", "train", "prompt"), 3, "`data.train.prompt` is `3`, expected text"),
        ((*JOB, "data", "train", "format"), "xml", "`data.train.format` is `xml`, expected auto or chat"),
        ((*JOB, "data", "validation"), [], "`data.validation` is `[]`, expected an object with a path"),
        ((*ROLE, "model", "weights"), {"kind": "stage", "stage": "../x"}, "`weights.stage` is `../x`"),
        ((*JOB, "data", "train"), None, "`data.train` is nothing, expected an object with a path"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(tmp_path, path, value, said):
    file = toy_runs.written(tmp_path, toy_runs.plan())
    edited(file, path, value)
    with pytest.raises(Problem) as caught:
        preflight.read_plan(file, "sft", "model")
    assert caught.value.code == "R001"
    assert said in caught.value.message


REWARD = (*JOB, "settings", "reward")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (REWARD, {}, "`settings.reward.loss` is nothing, expected bradley_terry or regression"),
        ((*REWARD, "loss"), "hinge", "`loss` is `hinge`, expected bradley_terry or regression"),
        ((*REWARD, "average"), "median", "`average` is `median`, expected global or micro_batch"),
        ((*REWARD, "weights"), [1.0, 2.0], "`settings.reward.weights` is `[1.0, 2.0]`, expected 1 numbers"),
        ((*ROLE, "model", "head"), "language", "`head` is `language`, expected scalar or attributes"),
        ((*JOB, "data", "train", "chosen"), 3, "`data.train.chosen` is `3`, expected text"),
        (TRAIN, None, "`settings.train` is nothing, expected an object"),
    ],
)
def test_a_reward_model_that_makes_no_sense_is_named(tmp_path, path, value, said):
    file = toy_runs.written(tmp_path, toy_rewards.plan("rows.jsonl"))
    edited(file, path, value)
    with pytest.raises(Problem) as caught:
        preflight.read_plan(file, "sft", "model")
    assert caught.value.code == "R001"
    assert said in caught.value.message


def test_a_program_that_trains_nothing_needs_no_section_about_it(tmp_path):
    rows = {"settings": {}, "data": {"prompts": toy_runs.ARITHMETIC}}
    plan = toy_runs.plan(program="generate", trains=False, job=rows)
    _, job, _ = preflight.read_plan(toy_runs.written(tmp_path, plan), "sft", "model")
    assert "train" not in job.settings
