"""Rows that are chosen by their rewards: laws, and a plain second reading of each rule."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.algorithms.above import above, ended
from runtime.algorithms.best_of_n import best_of_n
from runtime.algorithms.reward_prompt import prompted

REWARDS = st.sampled_from([-1.5, 0.0, 0.5, 0.5000001, 2.0])


@st.composite
def answers(draw):
    """Rows of a few prompts; `id` tells them apart."""
    said = draw(st.lists(st.tuples(st.sampled_from("abc"), REWARDS, st.sampled_from(["stop", "length"]))))
    return [{"input": p, "reward": r, "finish": f, "id": i} for i, (p, r, f) in enumerate(said)]


def best_by_sorting(rows, keep):
    """Another way: for each prompt in order of its first row, sort by reward, then by place."""
    prompts = list(dict.fromkeys(row["input"] for row in rows))
    found = []
    for prompt in prompts:
        own = [row for row in rows if row["input"] == prompt]
        found += sorted(own, key=lambda row: (-row["reward"], row["id"]))[:keep]
    return found


@given(answers(), st.integers(1, 4))
def test_the_best_are_those_that_sorting_finds(rows, keep):
    assert best_of_n(rows, keep) == best_by_sorting(rows, keep)


@given(answers())
def test_one_row_of_each_prompt_stays_and_it_has_the_largest_reward(rows):
    found = best_of_n(rows)
    assert [row["input"] for row in found] == list(dict.fromkeys(row["input"] for row in rows))
    for row in found:
        others = [other for other in rows if other["input"] == row["input"]]
        assert row in rows
        assert row["reward"] == max(other["reward"] for other in others)
        assert row["id"] == min(other["id"] for other in others if other["reward"] == row["reward"])


@given(answers(), st.integers(1, 3), st.integers(1, 4))
def test_choosing_batch_by_batch_and_then_again_is_choosing_of_all(rows, keep, size):
    batches = [best_of_n(rows[i : i + size], keep) for i in range(0, len(rows), size)]
    assert best_of_n([row for batch in batches for row in batch], keep) == best_of_n(rows, keep)
    assert best_of_n(best_of_n(rows, keep), keep) == best_of_n(rows, keep)


@given(answers(), REWARDS)
def test_what_is_above_is_a_part_in_order_and_nothing_else_is_left_out(rows, threshold):
    found = above(rows, threshold)
    assert [row["id"] for row in found] == [row["id"] for row in rows if row["reward"] > threshold]
    assert above(found, threshold) == found
    assert all(row["reward"] <= threshold for row in rows if row not in found)


@given(answers())
def test_cut_responses_take_no_part_when_they_are_dropped(rows):
    assert ended(rows, "keep") == rows
    assert [row["id"] for row in ended(rows, "drop")] == [r["id"] for r in rows if r["finish"] == "stop"]


def test_of_equal_rewards_the_first_wins():
    rows = [{"input": "a", "reward": 1.0, "id": i} for i in range(3)]
    assert best_of_n(rows) == rows[:1]
    assert best_of_n([*rows, {"input": "a", "reward": 1.0000001, "id": 9}])[0]["id"] == 9


def test_a_reward_stands_in_the_prompt_with_one_decimal():
    row = {"input": "Hi", "output": "Ho", "reward": 4.96, "source": {"x": 1}}
    wanted = {**row, "input": "Hi <rm_score>: 5.0 "}
    assert prompted(row, "{input} <rm_score>: {reward} ") == wanted
    assert prompted(row, "[{reward}] {input}", decimals=2)["input"] == "[4.96] Hi"


@given(st.text(), REWARDS)
def test_braces_of_a_prompt_stay_as_they_are(text, reward):
    found = prompted({"input": text, "reward": reward}, "{reward}|{input}")["input"]
    assert found == f"{reward:.1f}|" + text


def test_a_conversation_becomes_the_text_that_has_the_reward_in_it():
    row = {"input": "<user> Hi", "output": "Ho", "reward": 1.0, "messages": [{"role": "user"}]}
    assert "messages" not in prompted(row, "{input}{reward}")
