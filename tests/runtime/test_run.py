"""The real thing: torchrun in a subprocess, as a launcher starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_runs

from specc.plan import Layout

pytestmark = pytest.mark.torch


def test_a_tiny_llama_learns_to_add_under_tensor_parallelism(tmp_path):
    found = toy_runs.plan(
        Layout(tp=2),
        train={"steps": 60, "warmup_steps": 5, "save_every": 30, "validate_every": 30},
        data={"path": "builtin:arithmetic"},
        validation={"path": "builtin:arithmetic", "limit": 64},
        global_batch=16,
    )
    ended = toy_runs.torchrun(toy_runs.written(tmp_path, found), 2)
    assert ended.returncode == 0, ended.stderr
    losses = [line["loss"] for line in toy_runs.metrics(tmp_path)]
    assert len(losses) == 60
    assert losses[0] > 5
    assert sum(losses[-5:]) / 5 < 2.0
    assert "data.train: 2048 rows: 2048 kept of builtin:arithmetic" in ended.stdout
    assert "step 60/60 loss " in ended.stdout
    assert json.loads((tmp_path / "sft" / "output.json").read_text())["metrics"]["validation_loss"] < 2.0


def started(plan_file: Path, processes: int, **env: str) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    ports = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    own = {"OMP_NUM_THREADS": "1", "SPECC_ATTEMPT": "1", "SPECC_DIE_WITH_PARENT": "1"}
    return subprocess.Popen(
        [*launcher, *ports, "-m", "runtime", str(plan_file), "sft", "model"],
        env=os.environ | own | env,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition, seconds=60):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)


def ranks(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children]


def lines(folder):
    path = folder / "sft" / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux who is whose child")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM], ids=["USR1", "TERM"])
def test_a_signal_to_one_rank_makes_all_of_them_save_and_leave(tmp_path, number):
    file = toy_runs.written(tmp_path, toy_runs.plan(Layout(tp=2), train={"steps": 100_000, "save_every": 0}))
    with started(file, 2) as run:
        until(lambda: lines(tmp_path) >= 3)
        os.kill(ranks(run.pid)[1], number)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert not (tmp_path / "sft" / "output.json").exists()
    [saved] = (tmp_path / "sft" / "checkpoint").glob("step-*")
    assert lines(tmp_path) == int(saved.name.removeprefix("step-"))
    assert "told to stop: saving after step" in out


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux who is whose child")
def test_ranks_do_not_outlive_a_launcher_that_is_killed(tmp_path):
    file = toy_runs.written(tmp_path, toy_runs.plan(Layout(tp=2), train={"steps": 100_000, "save_every": 0}))
    with started(file, 2) as run:
        until(lambda: lines(tmp_path) >= 3)
        children = ranks(run.pid)
        run.kill()
        run.communicate(timeout=60)
    assert len(children) == 2
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 20)


FAILING = """
import sys
from runtime.engine import Engine
from runtime.__main__ import main
import os

step = Engine.optim_step
def fails(self, lr):
    if self.steps == 2 and os.environ["RANK"] == "1":
        raise KeyError("a defect")
    return step(self, lr)
Engine.optim_step = fails
code = main(sys.argv[1:])
sys.stderr.flush()
os._exit(code)
"""


def test_a_rank_that_fails_says_one_line_keeps_its_traceback_and_ends_the_others(tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    file = toy_runs.written(tmp_path, toy_runs.plan(Layout(tp=2)))
    began = time.monotonic()
    ended = toy_runs.torchrun(file, 2, script=script, PYTHONPATH=str(Path(__file__).parents[2]))
    assert ended.returncode != 0
    assert time.monotonic() - began < 40
    said = [line for line in ended.stderr.splitlines() if line.startswith("error[")]
    attempt = tmp_path / "sft" / "attempts" / "1"
    assert said == [f"error[R099]: KeyError: 'a defect' (traceback in {attempt}/traceback-1.txt)"]
    error = json.loads((attempt / "error-1.json").read_text())
    assert (error["code"], error["rank"], error["step"], error["echo"]) == ("R099", 1, 2, False)
    assert 'raise KeyError("a defect")' in (attempt / "traceback-1.txt").read_text()
    assert "Traceback" not in "".join(line for line in ended.stderr.splitlines() if "runtime/" in line)


def test_a_bad_row_is_said_once_by_all_ranks_together(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "output": "b"}\n{"input": "a"}\n')
    found = toy_runs.plan(Layout(tp=2), data={"path": str(tmp_path / "rows.jsonl")})
    ended = toy_runs.torchrun(toy_runs.written(tmp_path, found), 2)
    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if line.startswith("error[")]
    assert said == [f"error[R010]: {tmp_path}/rows.jsonl:2: no field `output`; the row has input"]
