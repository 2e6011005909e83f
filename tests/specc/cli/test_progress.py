"""Reading what a run writes while it writes it."""

import json
import os

from specc.cli.progress import Clock, Growing, Plain, Progress
from specc.plan import Job


def job(steps=40):
    return Job("sft", "sft", 1, (), (), {"train": {"steps": steps}}, {})


def test_only_whole_new_lines_are_given(tmp_path):
    file = tmp_path / "metrics.jsonl"
    growing = Growing(file)
    assert growing.lines() == []
    file.write_text("one\ntw")
    assert growing.lines() == ["one"]
    with file.open("a") as more:
        more.write("o\n")
    assert growing.lines() == ["two"]


def test_lines_of_an_earlier_attempt_are_not_news(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("old\n")
    growing = Growing(file)
    with file.open("a") as more:
        more.write("new\n")
    assert growing.lines() == ["new"]


def test_a_file_that_was_cut_and_replaced_is_read_again(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("1\n2\n3\n")
    growing = Growing(file)
    (tmp_path / "cut").write_text("1\n")
    os.replace(tmp_path / "cut", file)
    assert growing.lines() == ["1"]


def test_a_pipe_gets_about_ten_lines_a_stage(capsys):
    view = Plain(job(steps=40))
    for step in range(1, 41):
        view.step({"step": step, "loss": 1.0, "tokens_per_second": 12345.6})
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 11
    assert said[0].startswith("sft  step  1/40  loss 1.0000  12,346 tokens/s")
    assert said[-1] == "sft  step 40/40  loss 1.0000  12,346 tokens/s"


def test_where_there_is_a_reward_it_is_shown_instead_of_the_loss(capsys):
    view = Plain(job(steps=1))
    view.step({"step": 1, "loss": 1.0, "reward": 0.25, "tokens_per_second": 900})
    assert capsys.readouterr().err == "sft  step 1/1  reward 0.250  900 tokens/s\n"


def test_after_a_resume_the_steps_that_were_kept_are_not_shown_again(tmp_path, capsys):
    attempt = tmp_path / "sft/attempts/2"
    attempt.mkdir(parents=True)
    metrics = tmp_path / "sft/metrics.jsonl"
    metrics.write_text("".join(json.dumps({"step": s, "loss": 1.0}) + "\n" for s in (1, 2, 3)))
    progress = Progress()
    tick = progress.begin(one_role(), attempt)
    (attempt / "metrics-after-step-2.jsonl").write_text('{"step": 3, "loss": 1.0}\n')
    (tmp_path / "new").write_text("".join(json.dumps({"step": s, "loss": 0.5}) + "\n" for s in (1, 2, 3)))
    os.replace(tmp_path / "new", metrics)
    tick()
    assert progress.first["step"] == progress.last["step"] == 3


def test_warnings_of_the_ranks_reach_the_user(tmp_path, capsys):
    attempt = tmp_path / "sft/attempts/1"
    attempt.mkdir(parents=True)
    tick = Progress().begin(one_role(), attempt)
    (attempt / "model.log").write_text("loading\nwarning: checkpoint step-4 is torn and left out\n")
    tick()
    assert capsys.readouterr().err == "warning: checkpoint step-4 is torn and left out\n"


def test_the_time_that_is_left_follows_from_the_pace(monkeypatch):
    now = iter([100.0, 110.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    clock = Clock(total=65)
    clock.note(4)
    assert clock.left() == ""
    clock.note(5)
    assert clock.left() == "10:00"


def one_role():
    from specc.plan import Layout, Model, Role, Shape, Weights

    shape = Shape("llama", 2, 64, 128, 4, 4, 16, 256, 128)
    role = Role("model", "sft", 1, 1, Layout(), 1, 1, Model("tiny", shape, Weights()))
    return Job("sft", "sft", 1, (), (role,), {"train": {"steps": 3}}, {})
