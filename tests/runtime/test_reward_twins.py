"""The shipped reward models as tiny twins, from their text to the end of their last stage."""

import dataclasses
import json
import os

import pytest
import toy_runs

from runtime import preflight
from specc import shipped
from specc.compile import compile_spec

pytestmark = pytest.mark.torch

SPECS = sorted(path.stem for path in shipped.specs().glob("reward_*.yaml"))


def twin(name, **more):
    done = compile_spec(shipped.specs() / f"{name}.yaml", tiny=True, here=True, **more)
    assert done.plan, done.diagnostics
    return done.plan


@pytest.mark.parametrize("name", SPECS)
def test_the_twin_of_every_recipe_is_a_plan_that_the_runtime_takes(tmp_path, name):
    file = toy_runs.written(tmp_path, twin(name))
    for job in twin(name).jobs:
        _, read, role = preflight.read_plan(file, job.name, job.roles[0].name)
        preflight.check_program(role)
        assert read.stage == job.stage
    assert role.program == "reward"


def stage(plan_file, job, role):
    """One process of a job; its exit code."""
    os.environ["SPECC_ATTEMPT"] = "1"
    from runtime.__main__ import main

    return main([plan_file, job, role])


def test_a_preference_stage_goes_on_from_a_regression_stage(world, tmp_path):
    plan = twin("reward_helpsteer2_preference")
    short = [
        dataclasses.replace(job, settings=job.settings | {"train": job.settings["train"] | {"steps": 4}})
        if "train" in job.settings
        else job
        for job in plan.jobs
    ]
    file = toy_runs.written(tmp_path, dataclasses.replace(plan, jobs=tuple(short)))
    for job in short:
        [role] = job.roles
        assert set(world(role.layout.world_size, stage, str(file), job.name, role.name)) == {0}
    first, last = (json.loads((tmp_path / name / "output.json").read_text()) for name in ("rate", "prefer"))
    assert first["attributes"] == last["attributes"]
    assert last["weights"] == [0.0] * 4 + [1.0] + [0.0] * 4
    assert last["metrics"].keys() >= {"validation_acc", "rewards_chosen_mean", "rewards_rejected_mean"}
    assert first["metrics"].keys() >= {"loss_helpfulness", "validation_loss_helpfulness"}
    config = json.loads((tmp_path / "prefer" / "hf" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert list(config["id2label"].values()) == last["attributes"]
