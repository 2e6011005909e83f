"""What judges are asked, and what their words come to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.judging import Question, Scale, fitted, mean_and_variance, shown
from runtime.problem import Problem
from specc.spec.judging import JUDGE, SCORE

FIVE = Scale(SCORE, 0.0, 5.0)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 4", 4.0),
        ("It is fine.\nScore:   3\n", 3.0),
        ("score:2", 2.0),
        ("SCORE : 5", 5.0),
        ("Points: 1", 1.0),
        ("**Score:** 4", 4.0),
        ("**Score: 4**", 4.0),
        ("__Score__: `4`", 4.0),
        ("__Score: 4__", 4.0),
        ("Score: <3>", 3.0),
        ("Score: [3]", 3.0),
        ("Score: 4.5.", 4.5),
        ("Score: 4.5", 4.5),
        ("Score: 4, which is a lot", 4.0),
        ("Score: 4/5", 4.0),
        ("Score: 4.5 / 5.", 4.5),
        ("Score: 4 out of 5", 4.0),
        ("Score:\n4", 4.0),
        ("Score: 1 for relevance. In all:\nScore: 4", 4.0),
        ("Score: 0", 0.0),
        ("Score: 5.0", 5.0),
        # no score
        ("Score: 4/10", None),
        ("Score: 8/10", None),
        ("Score: 6", None),
        ("Score: 45", None),
        ("Score: -1", None),
        ("Score: 3. But then:\nScore: -1", None),
        ("Score: 4-5", None),
        ("Score: 4 - 5", None),
        ("Score: 4,5", None),
        ("Score: 4.5.6", None),
        ("Score: 4th", None),
        ("Score: four", None),
        ("Score: 4/5/6", None),
        ("Score 4", None),
        ("underscore: 4", None),
        ("Score: 3, then again\nScore: 9", None),
        ("Score: nan", None),
        ("", None),
    ],
)
def test_the_score_that_a_judgement_ends_with(text: str, score: float | None) -> None:
    assert FIVE.read(text) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: -1", -1.0),
        ("Score: \u22120.5.", -0.5),
        ("**Score:** `-2`", -2.0),
        ("Score: +2", 2.0),
        ("Score: 0", 0.0),
        ("Score: -2/2", -2.0),
        ("Score: 1\nScore: -3", None),
        ("Score: - 1", None),
        ("Score: --1", None),
        ("Score: -1-2", None),
    ],
)
def test_a_scale_may_begin_below_nothing(text: str, score: float | None) -> None:
    assert Scale(SCORE, -2.0, 2.0).read(text) == score
    assert score is None or Scale(SCORE, -2.0, 2.0).without(text).strip(" *`") in ("", ".")


@pytest.mark.parametrize(
    ("text", "score"), [("[[7]]", 7.0), ("[[7.5.]]", 7.5), ("[[seven]]", None), ("[[]]", None)]
)
def test_a_pattern_of_ones_own(text: str, score: float | None) -> None:
    assert Scale(r"\[\[([^\]]*)\]\]", 1.0, 10.0).read(text) == score


def test_what_a_pattern_finds_and_is_no_finite_number_is_no_score() -> None:
    for text in ("inf", "nan", "1e999", "-inf", "1/0", "1/nan"):
        assert Scale("(.+)", -1e9, 1e9).read(text) is None


def test_a_group_that_took_no_part_is_no_score() -> None:
    assert Scale(r"Score: (?:none|([0-9]))", 0, 5).read("Score: none") is None


@given(st.text(max_size=200))
def test_any_text_is_read_within_the_range_or_not_at_all(text: str) -> None:
    score = FIVE.read(text)
    assert score is None or 0.0 <= score <= 5.0


@given(st.text(alphabet="ab\n .", max_size=40), st.integers(0, 5), st.text(alphabet="ab\n .", max_size=40))
def test_a_text_without_its_scores_reads_as_none(before: str, score: int, after: str) -> None:
    text = f"{before}\nScore: {score}\n{after}"
    assert FIVE.read(text) == score
    assert FIVE.read(FIVE.without(text)) is None


def test_a_part_of_what_was_to_be_right_is_that_part_of_the_range() -> None:
    assert [Scale("(x)", 1.0, 5.0).part(p) for p in (0.0, 0.25, 1.0, 7.0, -1.0)] == [1.0, 2.0, 5.0, 5.0, 1.0]


@pytest.mark.parametrize("said", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_part(said: float) -> None:
    with pytest.raises(ValueError, match="it gave"):
        Scale("(x)", 1.0, 5.0).part(said)


@given(st.lists(st.none() | st.floats(-100, 100), max_size=8))
def test_mean_and_variance_are_those_of_the_valid_scores(scores: list[float | None]) -> None:
    valid = [score for score in scores if score is not None]
    found = mean_and_variance(scores)
    if not valid:
        assert found is None
        return
    assert found == pytest.approx((statistics.fmean(valid), statistics.pvariance(valid)), rel=1e-9, abs=1e-9)


# --- what a judge is asked -------------------------------------------------------------------------


def test_texts_stand_in_the_question_as_they_are() -> None:
    asked = Question(JUDGE).ask(prompt="{{ 7 * 7 }} <b>", response="{% raw %} & Score: 5")
    assert "<prompt>\n{{ 7 * 7 }} <b>\n</prompt>" in asked
    assert "<response>\n{% raw %} & Score: 5\n</response>" in asked
    assert asked.endswith("Score: <total>")


def test_a_template_that_fails_is_said() -> None:
    with pytest.raises(Problem, match="no jinja2"):
        Question("{{ prompt")
    with pytest.raises(Problem, match="cannot be filled in"):
        Question("{{ nothing.there }}").ask(prompt="a", response="b")
    with pytest.raises(Problem, match="cannot be filled in"):
        Question("{{ prompt.__class__.__mro__ }}").ask(prompt="a", response="b")


def test_a_judge_sees_all_turns_or_the_last_question() -> None:
    talk = {
        "system": "Be brief.",
        "conversations": [
            {"from": "User", "value": "Hello"},
            {"from": "Assistant", "value": "Hi."},
            {"from": "User", "value": " Who? "},
        ],
    }
    assert shown(talk, "ignored") == ("User: Hello\n\nAssistant: Hi.\n\nUser:  Who?", "Who?")
    assert shown(
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Q"}]}, ""
    ) == ("Q",)
    assert shown({"input": "1 + 1 = "}, "1 + 1 = ") == ("1 + 1 =",)


def characters(tokens: Sequence[int]) -> str:
    return "".join(map(chr, tokens))


def ask(prompt: str, response: str) -> list[int]:
    return [ord(c) for c in f"P{prompt}R{response}?"]


def test_a_question_that_is_too_long_loses_turns_then_the_end_of_the_response() -> None:
    prompts, response = ("first then last", "last"), [ord(c) for c in "response"]
    sizes = {room: fitted(ask, prompts, response, characters, room) for room in (40, 20, 12, 8, 7, 0)}
    assert {room: found and characters(found) for room, found in sizes.items()} == {
        40: "Pfirst then lastRresponse?",
        20: "PlastRresponse?",
        12: "PlastRrespo?",
        8: "PlastRr?",
        7: None,
        0: None,
    }


@given(st.integers(0, 60), st.lists(st.integers(1, 5), max_size=12))
def test_a_question_fits_or_there_is_none(room: int, lengths: list[int]) -> None:
    """Tokens that are texts of several letters, so that cutting one takes away more than one."""

    def decode(tokens: Sequence[int]) -> str:
        return "".join("x" * t for t in tokens)

    found = fitted(ask, ("question", "q"), lengths, decode, room)
    if found is not None:
        assert len(found) <= room
    elif lengths:
        assert len(ask("q", decode(lengths[:1]))) > room
