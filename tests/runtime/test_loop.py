"""The loop, end to end on tiny models: layouts, packing, resuming, stopping, finishing."""

import json

import pytest
import toy_runs

from specc.plan import Layout

pytestmark = pytest.mark.torch


def run(world, folder, found, name="1"):
    """All ranks of the plan's role; their exit codes must be 0. The run's series."""
    file = toy_runs.written(folder, found)
    processes = found.jobs[0].roles[0].layout.world_size
    assert set(world(processes, toy_runs.attempt, str(file), name)) == {0}
    return toy_runs.series(folder)


def close(a, b, relative=1e-5):
    return [(x[0], x[3], x[4]) for x in a] == [(x[0], x[3], x[4]) for x in b] and all(
        x[1] == pytest.approx(y[1], rel=relative) and x[2] == pytest.approx(y[2], rel=relative)
        for x, y in zip(a, b, strict=True)
    )


PLAIN = []
"""The series of one process, unpacked, microbatch 4, once it is known."""


@pytest.fixture
def plain(world, tmp_path_factory):
    if not PLAIN:
        PLAIN.extend(run(world, tmp_path_factory.mktemp("plain"), toy_runs.plan()))
    return PLAIN


def test_a_run_finishes_with_output_json_and_a_checkpoint_for_every_promise(world, tmp_path):
    validation = {"path": "builtin:arithmetic", "limit": 9}
    found = toy_runs.plan(train={"validate_every": 3, "keep_best": 1}, validation=validation)
    series = run(world, tmp_path, found)
    assert [line[0] for line in series] == [1, 2, 3, 4, 5, 6]
    assert series[-1][1] < series[0][1]
    output = json.loads((tmp_path / "sft" / "output.json").read_text())
    assert output["hash"] == "toy"
    assert (output["step"], output["family"], output["head"]) == (6, "llama", "language")
    assert output["metrics"]["validation_loss"] < series[0][1]
    assert (tmp_path / "sft" / "checkpoint" / output["checkpoint"] / "MANIFEST.json").exists()
    assert (tmp_path / "sft" / "heartbeat").exists()
    assert json.loads((tmp_path / "sft" / "identity.json").read_text())["hash"] == "toy"


def test_a_line_of_metrics_holds_what_was_promised(world, tmp_path):
    run(world, tmp_path, toy_runs.plan(train={"steps": 1}))
    [line] = toy_runs.metrics(tmp_path)
    names = "step loss grad_norm lr tokens trained_tokens tokens_per_second step_seconds data_seconds"
    more = "forward_backward_seconds optimizer_seconds memory_gib tflops_per_gpu data_hash"
    assert set(f"{names} {more}".split()) == set(line)


@pytest.mark.parametrize(
    ("layout", "micro_batch"),
    [(Layout(), 1), (Layout(tp=2), 4), (Layout(pp=2), 2), (Layout(dp=2), 2), (Layout(tp=2, pp=2), 1)],
    ids=str,
)
def test_loss_and_gradient_norm_do_not_depend_on_the_layout(world, tmp_path, plain, layout, micro_batch):
    series = run(world, tmp_path, toy_runs.plan(layout, micro_batch=micro_batch))
    assert close(series[:1], plain[:1])
    assert close(series, plain, relative=1e-4)


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2), Layout(dp=2)], ids=str)
def test_packing_does_not_change_the_loss(world, tmp_path, plain, layout):
    series = run(world, tmp_path, toy_runs.plan(layout, micro_batch=2, train={"packing": True}))
    assert close(series[:1], plain[:1])
    assert close(series, plain, relative=1e-4)


def test_a_finished_stage_is_left_alone(world, tmp_path):
    first = run(world, tmp_path, toy_runs.plan(train={"steps": 2}))
    before = (tmp_path / "sft" / "output.json").stat().st_mtime_ns
    assert run(world, tmp_path, toy_runs.plan(train={"steps": 2})) == first
    assert (tmp_path / "sft" / "output.json").stat().st_mtime_ns == before


def stopped_at(plan_file, step):
    """A run that finds the stop file after `step` steps."""
    from pathlib import Path

    from runtime.run import Run

    log = Run.log

    def logged(self, values):
        log(self, values)
        if self.step == step and self.place.is_first:
            (Path(plan_file).parent / "sft" / "stop").touch()

    Run.log = logged
    return toy_runs.attempt(plan_file)


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2)], ids=str)
def test_a_stop_file_saves_and_the_next_attempt_goes_on_exactly(world, tmp_path, layout):
    whole = run(world, tmp_path / "whole", toy_runs.plan(layout))
    file = toy_runs.written(tmp_path / "parts", toy_runs.plan(layout))
    assert set(world(layout.world_size, stopped_at, str(file), 3)) == {0}
    assert not (tmp_path / "parts" / "sft" / "output.json").exists()
    assert (tmp_path / "parts" / "sft" / "checkpoint" / "step-3" / "MANIFEST.json").exists()
    (tmp_path / "parts" / "sft" / "stop").unlink()
    assert run(world, tmp_path / "parts", toy_runs.plan(layout), "2") == whole


def test_a_run_that_resumes_refuses_other_data(world, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"input": f"{i}", "output": f"{i}"}) + "\n" for i in range(10)))
    found = toy_runs.plan(data={"path": str(rows)})
    file = toy_runs.written(tmp_path / "run", found)
    assert world(1, stopped_at, str(file), 2) == [0]
    (tmp_path / "run" / "sft" / "stop").unlink()
    rows.write_text('{"input": "other", "output": "rows"}\n')
    assert world(1, toy_runs.attempt, str(file), "2") == [1]
    error = json.loads((tmp_path / "run" / "sft" / "attempts" / "2" / "error-0.json").read_text())
    assert error["code"] == "R014"
    assert error["message"].startswith(
        "the training data is not what steps 1 to 2 were trained on; restore it"
    )


def test_a_zero_learning_rate_changes_no_weight(world, tmp_path):
    series = run(
        world, tmp_path, toy_runs.plan(train={"lr": 0.0, "steps": 9}, global_batch=64, micro_batch=16)
    )
    losses = [line[1] for line in series]  # every step sees all 64 rows
    assert losses == pytest.approx([losses[0]] * 9, rel=1e-6)
