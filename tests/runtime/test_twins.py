"""Tiny twins of the shipped specs: what preflight says of every one, and some that run to their end."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys

import pytest
import toy_runs

from runtime import handover, preflight, rowstore
from runtime.place import place_of
from specc import shipped
from specc.compile import compile_spec

pytestmark = pytest.mark.torch

SPECS = sorted(path.stem for path in shipped.specs().glob("*.yaml"))


def twin(name, *overrides):
    done = compile_spec(shipped.specs() / f"{name}.yaml", overrides, tiny=True, here=True)
    assert done.plan, done.diagnostics
    return done.plan


@pytest.mark.parametrize("name", SPECS)
def test_preflight_takes_the_twin_of_every_spec(tmp_path, name):
    file = toy_runs.written(tmp_path, twin(name))
    for job in twin(name).jobs:
        for group in job.groups:
            plan, read, role = preflight.read_plan(file, job.name, group.role.name)
            environment = {"WORLD_SIZE": str(role.layout.world_size), "SPECC_ATTEMPT": "1"}
            place = place_of(file, read, role.name, environment)
            for needed in {each.model.weights.stage for each in group.roles} - {""}:
                (tmp_path / needed).mkdir(exist_ok=True)
                (tmp_path / needed / "output.json").write_text("{}")
            for _, settings in handover.sections(read):
                if settings.get("from"):
                    rows_made(tmp_path / settings["from"]["stage"])
            preflight.check(plan, read, role, place)


def rows_made(stage):
    """The folder of a stage that has made a row."""
    stage.mkdir(exist_ok=True)
    (stage / "rows.jsonl").write_text('{"input": "1 + 1 =", "output": " 2"}\n')
    output = {"rows": 1, "sha256": rowstore.sha256_of(stage / "rows.jsonl")}
    (stage / "output.json").write_text(json.dumps(output))


@pytest.mark.parametrize("name", ["ppo_llama70b", "grpo_gsm8k", "reinforce_gsm8k"])
def test_what_the_compiler_says_of_an_algorithm_is_what_its_program_reads(name):
    (job,) = twin(name).jobs
    program = importlib.import_module(f"runtime.algorithms.{job.roles[0].program}")
    read = {field.name for field in dataclasses.fields(program.Settings)}
    # of what the other algorithms have the settings are PPO's, and stay as they are
    own = read if name.startswith("ppo") else read & set(program.Settings.__annotations__)
    said = set(job.settings[job.roles[0].program]) - {"responses"}
    assert said <= read
    assert own - {"responses"} <= said | {"kl_in"}


def stage(plan_file, job, role):
    """One process of a job; its exit code."""
    os.environ["SPECC_ATTEMPT"] = "1"
    from runtime.__main__ import main

    return main([plan_file, job, role])


@pytest.mark.parametrize("name", ["grpo_gsm8k", "reinforce_gsm8k"])
def test_an_actor_alone_is_scored_by_a_function(world, tmp_path, name):
    found = twin(name, "generate.min_tokens=1")
    (job,) = found.jobs
    file = toy_runs.written(tmp_path, found)
    assert set(world(job.roles[0].layout.world_size, stage, str(file), job.name, "actor")) == {0}
    output = json.loads((tmp_path / job.stage / "output.json").read_text())
    assert output["step"] == job.settings["train"]["steps"]
    assert output["metrics"].keys() >= {"reward", "kl", "response_length", "validation_reward"}


def test_an_actor_and_what_judges_it_run_as_groups_of_their_own(tmp_path):
    words = ["run", str(shipped.specs() / "ppo_llama70b.yaml"), "--tiny", "--dir", str(tmp_path)]
    ran = subprocess.run([sys.executable, "-m", "specc", *words], capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    stage_folder = tmp_path / "ppo"
    assert (stage_folder / "hf" / "config.json").exists()
    assert {path.name for path in (stage_folder / "attempts" / "1").glob("*.log")} == {
        "actor.log",
        "critic.log",
    }
    lines = (stage_folder / "actor" / "metrics.jsonl").read_text().splitlines()
    steps = [row for row in map(json.loads, lines) if "reward" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert all(row["critic_loss"] > 0 for row in steps)
    assert any(row["grad_norm"] > 0 for row in steps)
    commits = {path.name for path in (stage_folder / "commits").glob("*.json")}
    assert "4.json" in commits
