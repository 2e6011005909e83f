"""Responses as rows: their order, their texts, and that neither layout, batch nor a kill shows in them."""

import json
import os
import signal

import pytest
import toy_rows
import toy_runs
from toy_rows import attempt, job, plan, role

from runtime.problem import Problem
from specc.plan import Layout

pytestmark = pytest.mark.torch

PROMPTS = 7


def asked(folder, layout=None, batch=2, data=None, **settings):
    """A plan that asks for two drawn responses to each of seven sums, written to the folder."""
    settings = {"samples": 2, "batch": batch, "max_tokens": 6, "temperature": 1.0, "rows": 5} | settings
    prompts = data or {"prompts": {"path": "builtin:arithmetic", "limit": PROMPTS}}
    return toy_runs.written(folder, plan(job("ask", role("generate", layout), settings, prompts)))


def bytes_of(folder):
    return (folder / "ask" / "rows.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """What one process makes, undisturbed; and the same greedily."""
    drawn, greedy = tmp_path_factory.mktemp("drawn"), tmp_path_factory.mktemp("greedy")
    assert world(1, attempt, str(asked(drawn)), "ask") == [0]
    assert world(1, attempt, str(asked(greedy, temperature=0.0)), "ask") == [0]
    return drawn, greedy


def test_all_samples_of_a_prompt_come_before_the_next_prompt(whole):
    found = toy_rows.rows(whole[0], "ask")
    assert [row["sample"] for row in found] == [0, 1] * PROMPTS
    assert [row["source"] for row in found[::2]] == [row["source"] for row in found[1::2]]
    assert all(row["input"] == row["source"]["input"] for row in found)
    assert all(list(row) == ["input", "output", "finish", "sample", "source"] for row in found)
    assert any(row["output"] != other["output"] for row, other in zip(found[::2], found[1::2], strict=True))
    assert toy_rows.output(whole[0], "ask")["rows"] == 2 * PROMPTS


def test_the_metrics_say_how_fast_and_how_long(whole):
    lines = [json.loads(line) for line in (whole[0] / "ask" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["rows"] for line in lines] == [4, 4, 4, 2]
    assert all(line["rows_per_second"] > 0 and 1 <= line["response_length"] <= 6 for line in lines)
    shown = [json.loads(line) for line in (whole[0] / "ask" / "samples.jsonl").read_text().splitlines()]
    assert {row["step"] for row in shown} == {1, 2, 3, 4}


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_batch_does_not_show(world, tmp_path, whole, batch):
    assert world(1, attempt, str(asked(tmp_path, batch=batch)), "ask") == [0]
    assert bytes_of(tmp_path) == bytes_of(whole[0])


LAYOUTS = [Layout(tp=2), Layout(pp=2), Layout(dp=2), Layout(tp=2, pp=2), Layout(tp=2, dp=2), Layout(dp=4)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_layout_does_not_show(world, tmp_path, whole, layout):
    n = layout.world_size
    assert world(n, attempt, str(asked(tmp_path, layout, temperature=0.0)), "ask") == [0] * n
    assert bytes_of(tmp_path) == bytes_of(whole[1])


def test_slices_are_the_whole(world, tmp_path):
    """Each row keeps its own random stream, whatever slice it is in."""
    for name, cut in {"all": None, "0": {"size": 4, "index": 0}, "1": {"size": 4, "index": 1}}.items():
        assert world(1, attempt, str(asked(tmp_path / name, slice=cut)), "ask") == [0]
    assert bytes_of(tmp_path / "0") + bytes_of(tmp_path / "1") == bytes_of(tmp_path / "all")


def test_a_slice_behind_the_prompts_is_refused(world, tmp_path):
    assert world(1, attempt, str(asked(tmp_path, slice={"size": 4, "index": 2})), "ask") == [1]
    assert toy_rows.error(tmp_path, "ask").startswith("R011: slice 2 of 4 rows would begin at row 8")


def died(plan_file, stage, step):
    """An attempt whose rank 0 is killed when that many steps are done, before they are saved."""
    from runtime.making import Making

    saving = Making.save

    def dying(run):
        if run.step == step and run.place.is_first:
            os.kill(os.getpid(), signal.SIGKILL)
        saving(run)

    Making.save = dying
    return attempt(plan_file, stage)


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2)], ids=str)
def test_a_kill_does_not_show(world, tmp_path, whole, layout):
    from worlds import WorldFailed

    n = layout.world_size
    file = asked(tmp_path, layout, temperature=0.0)
    with pytest.raises(WorldFailed):
        world(n, died, str(file), "ask", 3)
    assert len(list((tmp_path / "ask" / "shards").glob("0*.jsonl"))) == 2
    assert world(n, attempt, str(file), "ask", "2") == [0] * n
    assert bytes_of(tmp_path) == bytes_of(whole[1])
    assert not (tmp_path / "ask" / "shards").exists()


def test_long_prompts_are_left_out_and_counted_and_the_others_keep_their_streams(world, tmp_path, whole):
    rows = [row["source"] for row in toy_rows.rows(whole[0], "ask")[::2]]
    long = {"input": "9" * 100 + "="}
    with_long = [rows[0], *[long] * 3, *rows[4:]]  # one batch has no prompt at all
    data = {"prompts": {"path": str(toy_rows.written(tmp_path / "p.jsonl", with_long))}}
    assert world(1, attempt, str(asked(tmp_path, data=data, max_prompt_tokens=10)), "ask") == [0]
    expected = toy_rows.rows(whole[0], "ask")
    assert toy_rows.rows(tmp_path, "ask") == expected[:2] + expected[8:]
    assert toy_rows.output(tmp_path, "ask")["prompts_left_out"] == 3


def test_conversations_are_asked_and_answered(world, tmp_path):
    talks = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "left out"}]},
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "So?"}]},
    ]
    data = {"prompts": [{"path": str(toy_rows.written(tmp_path / "talks.jsonl", talks))}]}
    assert world(1, attempt, str(asked(tmp_path, data=data)), "ask") == [0]
    found = toy_rows.rows(tmp_path, "ask")
    assert len(found) == 4
    for row in found:
        asked_of, said = row["messages"][:-1], row["messages"][-1]
        assert said == {"role": "assistant", "content": row["output"]}
        assert asked_of == [turn for turn in row["source"]["messages"] if turn["content"] != "left out"]
        assert row["input"].startswith("<")  # the template's marks: what the model read
        assert asked_of[-1]["content"] in row["input"]


def test_a_text_that_ended_a_response_is_not_in_its_turn(world, tmp_path):
    """Every printable letter ends one here; the chat template ends the turn when it is read again."""
    talk = {"messages": [{"role": "user", "content": "Hi"}]}
    data = {"prompts": [{"path": str(toy_rows.written(tmp_path / "talks.jsonl", [talk] * 8))}]}
    stop = [chr(i) for i in range(33, 127)]
    assert world(1, attempt, str(asked(tmp_path, data=data, stop=stop)), "ask") == [0]
    ended = [row for row in toy_rows.rows(tmp_path, "ask") if set(row["output"]) & set(stop)]
    assert ended
    for row in ended:
        first = next(i for i, letter in enumerate(row["output"]) if letter in stop)
        assert (row["finish"], row["messages"][-1]["content"]) == ("stop", row["output"][:first])


def test_a_bad_prompt_is_named_before_the_first_response(world, tmp_path):
    path = toy_rows.written(tmp_path / "p.jsonl", [{"input": "1+1="}] * 9 + [{"question": "?"}])
    assert world(1, attempt, str(asked(tmp_path, data={"prompts": {"path": str(path)}})), "ask") == [1]
    assert toy_rows.error(tmp_path, "ask") == f"R010: {path}:10: no field `input`; the row has question"
    assert not list((tmp_path / "ask" / "shards").glob("0*.jsonl"))


def test_the_end_token_is_not_part_of_the_output(world, tmp_path):
    """Every token that is no ASCII ends a response here: none may be left in the text."""
    assert world(1, attempt, str(asked(tmp_path, stop_token_ids=list(range(128, 259)))), "ask") == [0]
    found = toy_rows.rows(tmp_path, "ask")
    assert all(row["output"].isascii() for row in found)
    assert {row["finish"] for row in found} == {"stop", "length"}
    assert all((len(row["output"]) == 6) == (row["finish"] == "length") for row in found)
    cut = sum(row["finish"] == "length" for row in found)
    assert toy_rows.output(tmp_path, "ask")["cut_at_max_tokens"] == cut


def test_a_prompt_leaves_the_longest_response_its_positions():
    """Else a long prompt would shorten its response in silence, or be refused hours later."""
    from runtime.algorithms.generate import Settings, longest_prompt

    said = [(0, 24), (10, 10), (24, 24), (25, 24), (2048, 24)]
    assert [longest_prompt(Settings(max_tokens=8, max_prompt_tokens=most), 32) for most, _ in said] == [
        longest for _, longest in said
    ]
    with pytest.raises(Problem, match="leave no room for a prompt in 8 positions"):
        longest_prompt(Settings(max_tokens=8), 8)
