"""Metrics: whole lines, a clean cut on resume, and operations counted by hand."""

import json
import sys

import pytest

from runtime import metrics
from runtime.problem import Problem
from specc.plan import Shape


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_on_the_disk_as_soon_as_it_is_written(tmp_path):
    log = metrics.JsonLines(tmp_path / "a" / "metrics.jsonl")
    log.write({"step": 1, "loss": 2.5})
    assert lines(tmp_path / "a" / "metrics.jsonl") == [{"step": 1, "loss": 2.5}]


def test_what_is_not_finite_is_null_so_that_every_line_is_json(tmp_path):
    log = metrics.JsonLines(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "loss": float("nan")})
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": None}]


def test_resuming_keeps_the_lines_of_the_checkpoint_and_puts_the_rest_aside(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written = [{"step": 1}, {"step": 2}, {"step": 2, "validation_loss": 1.0}, {"step": 3}]
    path.write_text("".join(json.dumps(line) + "\n" for line in written) + '{"step": 4, "lo')
    assert metrics.cut_to_step(path, 2, tmp_path / "attempts" / "2") == 2
    assert lines(path) == written[:3]
    tail = (tmp_path / "attempts" / "2" / "metrics-after-step-2.jsonl").read_text()
    assert tail == '{"step": 3}\n{"step": 4, "lo'


def test_nothing_is_put_aside_when_nothing_is_too_much(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    assert metrics.cut_to_step(path, 1, tmp_path / "attempts") == 0
    assert metrics.cut_to_step(tmp_path / "none.jsonl", 1, tmp_path / "attempts") == 0
    assert not (tmp_path / "attempts").exists()


def test_the_last_value_of_every_key(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 1, "validation_loss": 2}\n{"step": 2, "loss": 1}\n')
    assert metrics.last_values(path) == {"step": 2, "loss": 1, "validation_loss": 2}


def test_wandb_that_is_not_installed_is_one_clear_problem(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(Problem, match=r"R015: W&B was asked for but is not installed; pip install wandb"):
        metrics.WeightsAndBiases({}, tmp_path, "a", {})


@pytest.mark.slow
def test_wandb_offline_continues_the_run_of_the_same_folder(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="W&B is not installed")
    for name, value in {"MODE": "offline", "SILENT": "true", "CONFIG_DIR": str(tmp_path / "config")}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    for step in (3, 4):
        sink = metrics.WeightsAndBiases({"project": "p"}, tmp_path, "name", {"lr": 1})
        sink.write({"step": step, "loss": 1.0, "data_hash": "x"})
        sink.close()
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    written = b"".join(file.read_bytes() for run in runs for file in run.glob("*.wandb"))
    # offline-run-DATE_TIME-ID, and "-1" behind it for the second run of the same second
    assert {run.name.split("-")[3] for run in runs} == {metrics.stable_id(tmp_path)}
    assert b"loss" in written
    assert b"data_hash" not in written


@pytest.mark.torch
def test_tensorboard_files_hold_the_scalars(tmp_path):
    sink = metrics.TensorBoard(tmp_path, 0)
    sink.write({"step": 7, "loss": 0.5})
    sink.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(7, 0.5)]


def test_operations_of_a_step_by_hand():
    shape = Shape(
        "llama", layers=2, hidden=8, ffn=16, heads=2, kv_groups=1, head_dim=4, vocab=10, max_positions=8
    )
    # q 64, k and v 32 each, o 64, three matrices of 128; output layer 80
    assert metrics.matrix_parameters(shape) == 2 * (64 + 64 + 64 + 384) + 80
    # scores and values: 2 products of n x n x 8, causal, times 2 for multiply-add, times 3 for the backward
    assert metrics.training_flops(shape, [4]) == 6 * (1232 * 4) + 3 * 2 * 2 * (16 * 8 / 2) * 2
    # a head of three numbers: 24 in place of the 80
    less = metrics.training_flops(shape, [4]) - metrics.training_flops(shape, [4], outputs=3)
    assert less == 6 * (80 - 24) * 4


def test_memory_of_a_process_is_some_mib():
    assert 0.005 < metrics.memory_gib(None) < 100
