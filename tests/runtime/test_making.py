"""Stages that make rows, as they are started: what they leave, refuse, and do without torch."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_rows
import toy_runs
from toy_rows import clerk, job, plain, plan

from runtime.making import check_vocabulary
from runtime.problem import Problem

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_torch(tmp_path):
    """An environment in which whoever imports torch or Megatron falls over."""
    for name in ("torch", "megatron"):
        folder = tmp_path / "poison" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise RuntimeError('nobody may import this')\n")
    return {"PYTHONPATH": str(tmp_path / "poison")}


def answers(folder, prompts=5, samples=3):
    rows = [
        {"input": f"{p}+1=", "output": str(p + 1 + (s != p % samples)), "finish": "stop", "sample": s,
         "source": {"input": f"{p}+1=", "answer": str(p + 1)}}
        for p in range(prompts) for s in range(samples)
    ]  # fmt: skip
    return {"rows": {"path": str(toy_rows.written(folder / "answers.jsonl", rows))}}


def chain(folder, **score):
    """Score by a verifier, choose, mix."""
    settings = {"function": "builtin:gsm8k", "batch": 4} | score
    both = {"sources": [{"path": "", "from": {"stage": s, "run": ""}} for s in ("best", "good")]}
    return plan(
        job("score", clerk("score"), settings, answers(folder)),
        job("best", clerk("best_of_n"), {"keep": 1, "truncated": "keep"}, "score"),
        job("good", clerk("above"), {"threshold": 0.5}, "score"),
        job("both", clerk("mix"), {}, both, discards=("score", "best")),
    )


def done(file, *stages, **env):
    for stage in stages:
        ended = plain(file, stage, **env)
        assert ended.returncode == 0, ended.stderr


def refusal(file, stage, attempt="9"):
    ended = plain(file, stage, attempt)
    assert ended.returncode in (1, 3), ended.stdout
    [line] = ended.stderr.splitlines()
    return line


def test_a_chain_of_clerks_needs_no_torch(tmp_path, no_torch):
    file = toy_runs.written(tmp_path, chain(tmp_path))
    done(file, "score", "best", "good", **no_torch)
    scored = toy_rows.rows(tmp_path, "score")
    assert [row["reward"] for row in scored] == [
        float(r["sample"] == i // 3 % 3) for i, r in enumerate(scored)
    ]
    right = [row for row in scored if row["reward"] == 1.0]
    assert toy_rows.rows(tmp_path, "best") == toy_rows.rows(tmp_path, "good") == right
    done(file, "both", **no_torch)
    assert toy_rows.rows(tmp_path, "both") == right + right
    said = toy_rows.output(tmp_path, "both")
    assert (said["rows"], said["rows_of_1"], said["rows_of_2"]) == (10, 5, 5)


def test_what_is_discarded_is_gone_and_says_so(tmp_path):
    file = toy_runs.written(tmp_path, chain(tmp_path))
    done(file, "score", "best", "good")
    (tmp_path / "score" / "checkpoint" / "step-1").mkdir(parents=True)
    stored = tmp_path / "score" / "reference" / "0a1b"  # as a stage that learns has it
    stored.mkdir(parents=True)
    (stored / "000000.npy").write_bytes(b"numbers")
    done(file, "both")
    assert not stored.exists()
    for stage in ("score", "best"):
        left = {path.name for path in (tmp_path / stage).iterdir()}
        assert not left & {"rows.jsonl", "shards", "checkpoint"}
        assert {"output.json", "metrics.jsonl", "samples.jsonl", "identity.json"} <= left
        assert toy_rows.output(tmp_path, stage)["discarded"] is True
    assert (tmp_path / "good" / "rows.jsonl").exists()
    assert plain(file, "score").stdout.startswith("stage `score` is finished already")
    again = toy_runs.written(tmp_path, plan(job("late", clerk("above"), {}, "score")))
    assert "whose rows in" in (said := refusal(again, "late"))
    assert said.startswith("error[R024]: data.rows comes from stage `score`")
    assert said.endswith("make them again with --fresh score")


def test_a_kill_before_discarding_leaves_it_to_the_next_start(tmp_path):
    file = toy_runs.written(tmp_path, chain(tmp_path))
    done(file, "score", "best", "good", "both")
    kept = toy_rows.rows(tmp_path, "good")
    for stage in ("score", "best"):  # as it was when output.json of the last stage had just been written
        toy_rows.written(tmp_path / stage / "rows.jsonl", kept)
    (tmp_path / "both" / "shards").mkdir()
    going = [tmp_path / "score" / name for name in (".discarded-data", "actor/.discarded-checkpoint")]
    for folder in going:  # renamed, and not yet gone
        folder.mkdir(parents=True)
    done(file, "both")
    assert not (tmp_path / "score" / "rows.jsonl").exists()
    assert not (tmp_path / "both" / "shards").exists()
    assert not any(folder.exists() for folder in going)


def test_a_token_that_the_model_does_not_know_is_refused_by_its_line():
    check_vocabulary([0, 31], "rows.jsonl:3", 32)
    with pytest.raises(Problem) as found:
        check_vocabulary([0, 32], "rows.jsonl:3", 32)
    assert found.value.code == "R019"
    assert found.value.message == "rows.jsonl:3 holds token 32, but the model has a vocabulary of 32"


def test_rows_of_a_stage_that_has_not_finished_are_refused(tmp_path):
    file = toy_runs.written(tmp_path, chain(tmp_path))
    said = refusal(file, "best")
    where = tmp_path / "score"
    assert (
        said
        == f"error[R024]: data.rows comes from stage `score`, but `{where}` is not finished; run it first"
    )


def test_rows_that_were_changed_or_lost_are_refused(tmp_path):
    file = toy_runs.written(tmp_path, chain(tmp_path))
    done(file, "score")
    rows = tmp_path / "score" / "rows.jsonl"
    rows.write_text(rows.read_text().replace("1.0", "2.0"))
    assert f"but `{rows}` is not what that stage wrote" in refusal(file, "best")
    rows.unlink()
    assert f"but `{rows}` is gone" in refusal(file, "best")


def test_rows_come_from_another_run_too(tmp_path):
    file = toy_runs.written(tmp_path / "one", chain(tmp_path))
    done(file, "score")
    other = {"rows": {"path": "", "from": {"stage": "score", "run": str(tmp_path / "one")}}}
    file = toy_runs.written(tmp_path / "two", plan(job("good", clerk("above"), {"threshold": 0.5}, other)))
    done(file, "good")
    assert len(toy_rows.rows(tmp_path / "two", "good")) == 5


def test_training_data_comes_from_a_stage_too(tmp_path):
    """The same check before anything is loaded: nothing here needs a model."""
    found = toy_runs.plan(data={"path": "", "from": {"stage": "best", "run": ""}})
    said = refusal(toy_runs.written(tmp_path, found), "sft")
    assert said.startswith("error[R024]: data.train comes from stage `best`")


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 5])
def test_no_row_is_dropped_at_the_end(tmp_path, rows):
    data = {"rows": {"path": str(tmp_path / "x.jsonl")}}
    toy_rows.written(tmp_path / "x.jsonl", [{"reward": 1.0, "n": i} for i in range(rows)] or [])
    if not rows:
        (tmp_path / "x.jsonl").write_text("\n")
    file = toy_runs.written(tmp_path, plan(job("good", clerk("above"), {"batch": 2}, data)))
    done(file, "good")
    assert [row["n"] for row in toy_rows.rows(tmp_path, "good")] == list(range(rows))
    assert toy_rows.output(tmp_path, "good")["rows"] == rows
    assert toy_rows.output(tmp_path, "good")["step"] == -(-rows // 2)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"input": "a"}, "no field `reward`; the row has input"),
        ({"input": "a", "reward": "high"}, "`reward` is `'high'`, expected a number"),
        ({"input": "a", "reward": float("nan")}, "`reward` is `nan`, expected a number"),
        ({"input": ["a"], "reward": 1.0}, "`input` is a list, expected text"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, said):
    path = toy_rows.written(tmp_path / "x.jsonl", [{"input": "a", "reward": 1.0}, row])
    found = plan(job("best", clerk("best_of_n"), {}, {"rows": {"path": str(path)}}))
    assert refusal(toy_runs.written(tmp_path, found), "best") == f"error[R010]: {path}:2: {said}"


def test_a_function_that_fails_is_named_with_its_row(tmp_path):
    rows = [{"input": "1+1=", "output": "2", "source": {"answer": "none"}}]
    path = toy_rows.written(tmp_path / "x.jsonl", rows)
    found = plan(job("score", clerk("score"), {"function": "builtin:gsm8k"}, {"rows": {"path": str(path)}}))
    said = refusal(toy_runs.written(tmp_path, found), "score")
    assert said.startswith(f"error[R055]: the reward function failed: {path}:1, ValueError: the row's answer")


# ── going on ─────────────────────────────────────────────────────────────────────────────────────

SLOW = """
import os, pathlib, time

def slow(prompt, response, row):
    time.sleep(0.02)
    calls = pathlib.Path(os.environ["CALLS"])
    with calls.open("a") as file:
        file.write("x")
    return float(len(response))
"""


@pytest.fixture
def slow(tmp_path):
    """A plan that scores by a slow function, and the environment that knows it."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "slow.py").write_text(SLOW)
    settings = {"function": "slow:slow", "batch": 2, "standardise": "rows"}
    found = plan(job("score", clerk("score"), settings, answers(tmp_path, prompts=20)))
    return found, {"PYTHONPATH": str(tmp_path / "code"), "CALLS": str(tmp_path / "calls")}


def begun(file, env, attempt):
    env = os.environ | {"SPECC_ATTEMPT": attempt} | env
    command = [sys.executable, "-m", "runtime", str(file), "score", "model"]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=env, cwd=ROOT, text=True, **piped)


def shards(folder):
    return len(list((folder / "score" / "shards").glob("0*.jsonl")))


def until(happened):
    limit = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.slow
def test_told_to_stop_it_saves_and_goes_on_to_the_same_bytes(tmp_path, slow):
    found, env = slow
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ended = plain(toy_runs.written(whole, found), "score", **env)
    assert ended.returncode == 0, ended.stderr
    file = toy_runs.written(cut, found)
    run = begun(file, env, "1")
    until(lambda: shards(cut) >= 2)
    (cut / "score" / "stop").touch()
    assert (run.communicate(timeout=30)[1], run.returncode) == ("", 0)
    assert not (cut / "score" / "output.json").exists()
    (cut / "score" / "stop").unlink()
    run = begun(file, env, "2")
    before = shards(cut)
    until(lambda: shards(cut) > before)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=30)
    ended = plain(file, "score", "3", **env)
    assert ended.returncode == 0, ended.stderr
    assert "resuming after step" in ended.stdout
    assert (cut / "score" / "rows.jsonl").read_bytes() == (whole / "score" / "rows.jsonl").read_bytes()
    ours, theirs = toy_rows.output(cut, "score"), toy_rows.output(whole, "score")
    same = ("rows", "sha256", "reward_mean", "reward_std", "step", "source_rows")
    assert [ours[key] for key in same] == [theirs[key] for key in same]
    steps = [json.loads(line)["step"] for line in (cut / "score" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 31))
    calls = (tmp_path / "calls").stat().st_size
    assert 120 <= calls <= 120 + 2 * 2  # what was durable is not computed again, but for a killed batch


@pytest.mark.slow
def test_rows_that_changed_between_two_attempts_are_refused(tmp_path, slow):
    found, env = slow
    file = toy_runs.written(tmp_path, found)
    run = begun(file, env, "1")
    until(lambda: shards(tmp_path) >= 1)
    run.kill()
    run.communicate(timeout=30)
    path = tmp_path / "answers.jsonl"
    kept = path.read_text()
    path.write_text(kept.replace("19+1", "19+2"))
    said = plain(file, "score", "2", **env)
    assert said.returncode == 1
    assert said.stderr.startswith("error[R014]: the rows that `score` reads are not what it began with")
    path.write_text(kept)  # another time of change, the same rows
    assert plain(file, "score", "3", **env).returncode == 0


@pytest.mark.slow
def test_another_batch_goes_on_where_the_first_stopped(tmp_path, slow):
    found, env = slow
    file = toy_runs.written(tmp_path, found)
    run = begun(file, env, "1")
    until(lambda: shards(tmp_path) >= 1)
    run.kill()
    run.communicate(timeout=30)
    [own] = found.jobs
    own = dataclasses.replace(own, settings={"score": own.settings["score"] | {"batch": 7}})
    file = toy_runs.written(tmp_path, dataclasses.replace(found, jobs=(own,)))
    assert plain(file, "score", "2", **env).returncode == 0
    assert [row["source"] for row in toy_rows.rows(tmp_path, "score")] == [
        json.loads(line)["source"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()
    ]


@pytest.mark.slow
def test_a_second_start_waits_for_the_first_and_makes_nothing_twice(tmp_path, slow):
    found, env = slow
    file = toy_runs.written(tmp_path, found)
    run = begun(file, env, "1")
    until(lambda: shards(tmp_path) >= 1)
    second = plain(file, "score", "2", **env)
    assert run.wait(30) == second.returncode == 0
    run.communicate()
    assert "finished already" in second.stdout
    assert (tmp_path / "calls").stat().st_size == 60


def test_a_full_disk_is_said_and_not_a_traceback():
    import errno

    from runtime.agreement import said
    from runtime.problem import Problem

    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "shards/000003.jsonl")

    with pytest.raises(
        Problem, match=r"R007: the disk is full \(`shards/000003.jsonl`\); make room"
    ) as caught:
        said(full)
    assert caught.value.outside


# ── standardising ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_rewards_are_standardised_by_all_rows_with_n_minus_one(tmp_path):
    import statistics

    raw = toy_runs.written(tmp_path / "raw", chain(tmp_path))
    done(raw, "score")
    file = toy_runs.written(tmp_path / "all", chain(tmp_path, standardise="rows", clip=1.0))
    done(file, "score")
    before = [row["reward"] for row in toy_rows.rows(tmp_path / "raw", "score")]
    mean, spread = statistics.fmean(before), statistics.stdev(before)
    wanted = [max(-1.0, min(1.0, (reward - mean) / spread)) for reward in before]
    assert [r["reward"] for r in toy_rows.rows(tmp_path / "all", "score")] == pytest.approx(wanted, rel=1e-12)
    said = toy_rows.output(tmp_path / "all", "score")
    assert (said["reward_mean"], said["reward_std"]) == pytest.approx((mean, spread), rel=1e-15)


def test_rewards_are_standardised_by_numbers_that_are_given(tmp_path):
    file = toy_runs.written(tmp_path, chain(tmp_path, standardise="given", mean=0.5, std=0.25))
    done(file, "score")
    assert {row["reward"] for row in toy_rows.rows(tmp_path, "score")} == {2.0, -2.0}
