"""`specc run` with the real runtime: to the end, stopped and resumed, twice in one folder, and tiny."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.torch

SPEC = """\
name: small
cluster: local-cpu
algorithm: sft
model: tiny-llama
data: {train: "builtin:arithmetic"}
train: {steps: 6, global_batch: 4, micro_batch: 4, seq_length: 32, lr: 3e-3, warmup_steps: 1, save_every: 3}
parallel: {tp: 2}
precision: fp32
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    return path


def begun(spec, *words):
    """`specc run SPEC WORDS`, not waited for."""
    code = "from specc.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "run", spec, "--dir", spec.parent / "run", *words],
        cwd=spec.parent,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ran(spec, *words):
    """(exit code, stdout, stderr) of `specc run SPEC WORDS`."""
    process = begun(spec, *words)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def steps(spec):
    path = spec.parent / "run/sft/metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def test_a_run_ends_with_an_exported_model_and_a_second_one_has_nothing_to_do(spec):
    code, out, err = ran(spec)
    assert code == 0, err
    assert out == f"{spec.parent}/run/sft/hf\n"
    assert "sft  step 6/6  loss" in err
    assert (spec.parent / "run/sft/hf/model.safetensors").exists()
    assert steps(spec) == [1, 2, 3, 4, 5, 6]

    code, _, err = ran(spec)
    assert (code, err) == (0, "sft: finished already\n")

    code, _, err = ran(spec, "--set", "train.lr=1e-3")
    assert code == 3
    assert "train.lr: 0.003 -> 0.001" in err
    assert "--fresh sft" in err


def test_ctrl_c_saves_and_the_same_command_continues(spec):
    longer = ("--set", "train.steps=40", "--set", "train.save_every=0")
    process = begun(spec, *longer)
    until = time.monotonic() + 120
    while len(steps(spec)) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "to continue: specc run" in err
    (saved,) = (spec.parent / "run/sft/checkpoint").glob("step-*")
    assert not (spec.parent / "run/sft/output.json").exists()

    code, _, err = ran(spec, *longer)
    assert code == 0, err
    assert steps(spec) == list(range(1, 41))
    log = (spec.parent / "run/sft/attempts/2/model.log").read_text()
    assert f"resuming after step {saved.name.removeprefix('step-')} of 40" in log


def test_a_bad_row_is_told_in_one_line_with_the_place_of_the_logs(spec):
    rows = spec.parent / "rows.jsonl"
    rows.write_text('{"input": "a", "output": "b"}\n' * 300 + '{"input": "a"}\n')
    code, _, err = ran(spec, "--set", "data.train=rows.jsonl")
    assert code == 1
    assert "error[R" in err
    assert "rows.jsonl" in err
    assert "logs in " in err
    assert "Traceback" not in err


def test_a_rank_that_is_killed_ends_the_run_and_leaves_no_process(spec):
    process = begun(spec, "--set", "train.steps=5000")
    until = time.monotonic() + 120
    while len(steps(spec)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    ranks = [
        child
        for child in family
        if "runtime" in child.cmdline() and "torch.distributed.run" not in child.cmdline()
    ]
    ranks[-1].kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_the_tiny_twin_of_a_large_spec_trains_here(spec):
    spec.write_text(SPEC.replace("local-cpu", "example-h100").replace("tiny-llama", "llama3-70b"))
    code, _, err = ran(spec, "--tiny", "--set", "train.steps=2", "--set", "train.save_every=0")
    assert code == 0, err
    config = json.loads((spec.parent / "run/sft/hf/config.json").read_text())
    assert config["num_hidden_layers"] == 2
