"""What lies ahead of a plan: runs under the time limit, money, room for checkpoints."""

import math

import pytest

from specc.cli import tables
from specc.planner.outlook import outlook, size

SPEC = """\
name: ahead
cluster: priced
algorithm: sft
model: llama3-8b
data: {train: "builtin:arithmetic"}
train: {steps: 5000, global_batch: 128, seq_length: 4096, warmup_steps: 1, save_every: 100}
nodes: 1
"""

PROFILE = """\
gpus: {type: h100-80gb, per_node: 8}
slurm: {account: toy, partition: batch, time: 2h, signal: 10m}
price: 2.5
results: {path: /runs, quota: QUOTA}
"""


def compiled(compile_text, *overrides: str, quota: str = "10TB", text: str = SPEC):
    return compile_text(text, overrides, {"clusters/priced.yaml": PROFILE.replace("QUOTA", quota)})


def ahead(compile_text, *overrides: str):
    done = compiled(compile_text, *overrides)
    assert done.plan is not None, done.diagnostics
    return outlook(done.plan.jobs, done.profile)[0]


def test_runs_are_counted_up_to_the_moment_they_are_told_to_save(compile_text):
    one = ahead(compile_text)
    assert one.wall_seconds == pytest.approx(5000 * one.step_seconds)
    assert one.runs == math.ceil(one.wall_seconds / (2 * 3600 - 600))
    assert one.runs > 1


ROWS = '{"input": "1 + 1 =", "output": "2"}\n'


def test_steps_of_epochs_follow_from_the_rows_of_a_small_file(compile_text, tmp_path):
    text = SPEC.replace("steps: 5000", "epochs: 3").replace('"builtin:arithmetic"', "rows.jsonl")
    text = text.replace(", save_every: 100", "")
    files = {"clusters/priced.yaml": PROFILE.replace("QUOTA", "10TB"), "rows.jsonl": ROWS * 1000}
    done = compile_text(text, (), files)
    assert done.plan is not None, done.diagnostics
    one = outlook(done.plan.jobs, done.profile, tmp_path)[0]
    assert (one.epochs, one.rows, one.steps) == (3, 1000, 3000 // 128)
    assert one.wall_seconds == pytest.approx(one.steps * one.step_seconds, abs=0.1)
    assert done.plan.totals.wall_seconds == 0  # the plan does not depend on files of this machine


def test_without_the_rows_the_steps_of_epochs_are_not_known(compile_text, tmp_path):
    text = SPEC.replace("steps: 5000", "epochs: 1").replace('"builtin:arithmetic"', "elsewhere.jsonl")
    done = compiled(compile_text, text=text.replace(", save_every: 100", ""))
    one = outlook(done.plan.jobs, done.profile, tmp_path)[0]
    assert (one.epochs, one.rows, one.steps, one.wall_seconds) == (1, 0, 0, 0)
    assert "time and cost are not known" in tables.plan_text(done.plan, [one])


def test_a_short_stage_is_one_run(compile_text):
    assert ahead(compile_text, "train.steps=10").runs == 1


def test_the_cost_is_gpu_hours_times_the_price(compile_text):
    one = ahead(compile_text)
    assert one.gpu_hours == pytest.approx(one.wall_seconds / 3600 * 8, abs=0.001)
    assert one.cost == pytest.approx(one.gpu_hours * 2.5, abs=0.01)


def test_steps_that_follow_from_the_data_leave_time_unknown(compile_text):
    one = ahead(compile_text, "train.steps=null", "train.epochs=1")
    assert (one.wall_seconds, one.runs, one.gpu_hours, one.cost) == (0, 0, 0, 0)


def test_a_checkpoint_of_8b_holds_14_bytes_a_parameter(compile_text):
    """8,030,261,248 parameters: bf16 weights, fp32 master and two fp32 moments."""
    assert ahead(compile_text).checkpoint_bytes == 8_030_261_248 * 14


def test_no_more_checkpoints_lie_there_than_are_written(compile_text):
    kept = ["train.keep_last=6", "train.keep_best=2"]
    assert ahead(compile_text, *kept).checkpoints == 9
    assert ahead(compile_text, *kept, "train.steps=250").checkpoints == 3
    assert ahead(compile_text, *kept, "train.save_every=0").checkpoints == 1


def test_checkpoints_beyond_the_quota_are_a_warning_at_what_keeps_them(compile_text):
    done = compiled(compile_text, "train.keep_last=20", quota="2TB")
    assert done.fine
    (said,) = [d for d in done.diagnostics if d.code == "P036"]
    assert (said.severity, said.path) == ("warning", "train.keep_last")
    assert said.message == "checkpoints take up to 2.473 TB, but the quota of the results folder is 2 TB"


def test_checkpoints_within_the_quota_are_not_mentioned(compile_text):
    assert "P036" not in [d.code for d in compiled(compile_text).diagnostics]


def test_a_price_of_nothing_is_refused(compile_text):
    files = {"clusters/priced.yaml": PROFILE.replace("2.5", "0").replace("QUOTA", "1TB")}
    done = compile_text(SPEC, [], files)
    assert not done.fine


@pytest.mark.parametrize(
    ("count", "said"),
    [(999, "999 B"), (20e12, "20 TB"), (112.4e9, "112 GB"), (3.951e12, "3.951 TB"), (5e15, "5,000 TB")],
)
def test_sizes_are_said_as_quotas_are(count, said):
    assert size(count) == said


def test_the_outlook_does_not_change_the_plan(compile_text):
    plans = [compiled(compile_text, quota=quota).plan for quota in ("1TB", "20TB")]
    assert plans[0] == plans[1]
