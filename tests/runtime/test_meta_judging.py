"""Judgements that are judged: who fights whom, what verdicts mean, and which pairs come of it."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.judging import Judgement, Question, Scale
from runtime.meta_judging import (
    Battle,
    Group,
    Pair,
    Share,
    battles_of,
    limit_of,
    outcomes,
    pair_of,
    rated,
    replaces,
    uneven,
    verdict,
)
from specc.spec.judging import META, SCORE, WINNER

FIVE = Scale(SCORE, 0.0, 5.0)


def said(text: str, ended: bool = True) -> Judgement:
    return Judgement(tuple(text.encode()), text, ended, FIVE.read(text))


def group(*texts: str) -> Group:
    return Group(7, (1, 2), ("Why?",), "Because.", tuple(said(text) for text in texts))


def ask(**given: str) -> list[int]:
    return list(Question(META).ask(**given).encode())


FOUR = ("good. Score: 4", "fair. Score: 3", "bad. Score: 1", "no score at all")


def test_every_pair_with_scores_meets_in_both_orders_without_them() -> None:
    found = battles_of(group(*FOUR), FIVE, ask, room=10**6)
    assert [(b.group, b.one, b.other, b.turned) for b in found] == [
        (7, one, other, turned) for one, other in ((0, 1), (0, 2), (1, 2)) for turned in (False, True)
    ]
    straight, turned = (bytes(b.question).decode() for b in found[:2])
    assert "<judgement_a>\ngood.\n</judgement_a>\n\n<judgement_b>\nfair.\n</judgement_b>" in straight
    assert "<judgement_a>\nfair.\n</judgement_a>\n\n<judgement_b>\ngood.\n</judgement_b>" in turned
    assert "Why?" in straight and "Because." in straight  # noqa: PT018
    assert "Score" not in straight


def test_judgements_that_differ_by_their_score_alone_do_not_meet() -> None:
    assert battles_of(group("fine. Score: 4", "fine. Score: 1"), FIVE, ask, room=10**6) == []


def test_a_pair_that_is_too_long_is_left_out_and_the_others_keep_their_names() -> None:
    long = group("good. Score: 4", "x" * 500 + " Score: 3", "bad. Score: 1")
    found = battles_of(
        long,
        FIVE,
        ask,
        room=len(ask(prompt="Why?", response="Because.", judgement_a="good.", judgement_b="bad.")),
    )
    assert {(b.one, b.other) for b in found} == {(0, 2)}


def test_who_compares_judgements_sees_the_whole_conversation_where_it_fits() -> None:
    whole, last = "User: Hello\n\nAssistant: Hi.\n\nUser: Why?", "Why?"
    one = dataclasses.replace(group("good. Score: 4", "bad. Score: 1"), prompts=(whole, last))
    given = {"response": "Because.", "judgement_a": "good.", "judgement_b": "bad."}
    long, short = (tuple(ask(prompt=prompt, **given)) for prompt in (whole, last))
    for room, question in ((len(long), long), (len(long) - 1, short), (len(short), short)):
        straight, turned = battles_of(one, FIVE, ask, room)
        assert straight.question == question
        assert len(turned.question) == len(question)
    assert battles_of(one, FIVE, ask, len(short) - 1) == []
    assert Group.of(json.loads(json.dumps(one.as_data()))) == one


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ("Winner: Judgement A", "A"),
        ("so\nwinner:  judgment b.", "B"),
        ("**Winner:** Judgement A", "A"),
        ("Winner: **Judgement B**", "B"),
        ("Winner: Judgement A? No.\nWinner: Judgement B", "B"),
        ("Winner: Judgement C", ""),
        ("Winner: Judgement AB", ""),
        ("Winner: A", ""),
        ("Judgement A", ""),
        ("", ""),
    ],
)
def test_the_verdict_that_a_text_ends_with(text: str, winner: str) -> None:
    assert verdict(text, WINNER) == winner


def test_a_verdict_that_turns_with_the_order_is_a_tie() -> None:
    def battle(turned: bool, one: int = 0, other: int = 1) -> Battle:
        return Battle(7, one, other, turned, ())

    def told(straight: str, turned: str) -> list[tuple[int, int, float]]:
        return outcomes([(battle(False), straight), (battle(True), turned)])

    assert told("A", "B") == [(0, 1, 1.0)]
    assert told("B", "A") == [(0, 1, 0.0)]
    assert told("A", "A") == told("B", "B") == [(0, 1, 0.5)]
    assert told("A", "") == told("", "B") == told("", "") == []
    assert outcomes([(battle(False), "A")]) == []
    # in any order, and whoever else fights
    mixed = [(battle(True, 1, 2), "A"), (battle(True), "B"), (battle(False, 1, 2), "B"), (battle(False), "A")]
    assert sorted(outcomes(mixed)) == [(0, 1, 1.0), (1, 2, 0.0)]


def outright(order: list[int]) -> list[tuple[int, int, float]]:
    """Battles in which each of `order` beats all that follow."""
    return [(min(i, j), max(i, j), float(i < j)) for n, i in enumerate(order) for j in order[n + 1 :]]


def test_the_best_and_the_worst_make_a_pair_of_the_question() -> None:
    one = group(*FOUR)
    valid, ratings = rated(one, outright([1, 2, 0]))
    assert valid == [0, 1, 2]
    pair = pair_of(one, valid, ratings)
    assert pair == Pair((1, 2), said(FOUR[1]).tokens, said(FOUR[0]).tokens, 3.0)


@given(st.permutations(range(4)))
def test_the_order_of_strength_alone_decides(order: list[int]) -> None:
    texts = [f"{'abcd'[i]} Score: {i}" for i in range(4)]
    one = group(*texts)
    valid, ratings = rated(one, outright(order))
    pair = pair_of(one, valid, ratings)
    assert pair is not None
    assert (bytes(pair.chosen).decode(), bytes(pair.rejected).decode()) == (texts[order[0]], texts[order[-1]])


def test_two_judgements_with_a_tie_and_a_win_have_finite_ratings() -> None:
    valid, ratings = rated(group(*FOUR[:2]), [(0, 1, 1.0), (0, 1, 0.5), (0, 1, 0.5)])
    assert valid == [0, 1]
    assert ratings.finite  # 3 wins to 2
    assert ratings.elo - 1000 == pytest.approx([200 * math.log(1.5), -200 * math.log(1.5)], abs=1e-6)


@pytest.mark.parametrize(
    ("one", "battles"),
    [
        (group(*FOUR), []),  # nobody fought: all alike
        (group(*FOUR), [(0, 1, 1.0), (0, 2, 1.0), (1, 2, 0.5)]),  # two alike
        (group("a Score: 3", "b Score: 3"), [(0, 1, 1.0)]),  # the same score
        (group("a Score: 3"), []),
        (group(), []),
        (Group(0, (), ("",), "", (said("a Score: 3"), said("b Score: 2", ended=False))), [(0, 1, 1.0)]),
        (Group(0, (), ("",), "", (said("a Score: 3", ended=False), said("b Score: 2"))), [(0, 1, 1.0)]),
    ],
)
def test_no_pair_where_the_best_or_the_worst_cannot_be_told(
    one: Group, battles: list[tuple[int, int, float]]
) -> None:
    assert pair_of(one, *rated(one, battles)) is None


def test_the_response_whose_judgements_differ_most() -> None:
    two = (said("a Score: 1"), said("b Score: 5"))
    half = (said("a Score: 1"), said("nothing"))
    assert uneven([(True, two, 1.0), (True, two, 4.0), (True, two, 4.0), (False, two, 9.0)]) == 1
    assert uneven([(True, two, 0.0), (True, half, 3.0), (True, (), 2.0)]) is None
    assert uneven([]) is None


def test_no_score_takes_more_than_its_share() -> None:
    """Counts begin at one: with six scores the fourth of a kind would be 4 of 9."""
    share = Share(0.0, 5.0, most=0.4, limit=100)
    counts = share.fresh()
    assert counts == [1] * 6

    def taken(score: float) -> bool:
        return share.takes(Pair((), (), (), score), counts)

    assert [taken(4.0) for _ in range(5)] == [True, True, True, False, False]
    assert counts == [1, 1, 1, 1, 4, 1]
    assert taken(2.5)  # a half counts with the whole below it
    assert counts == [1, 1, 2, 1, 4, 1]
    assert not taken(4.0)  # 4 of 10 is not below 0.4
    assert taken(5.0)
    assert taken(4.0)  # 4 of 11 is


def test_nor_more_than_a_number() -> None:
    share = Share(0.0, 5.0, most=1.0, limit=3)
    counts = share.fresh()
    assert [share.takes(Pair((), (), (), 0.0), counts) for _ in range(4)] == [True, True, False, False]
    assert limit_of(100, 64, 0.2, 0.0, 5.0) == 256
    assert limit_of(3, 4, 0.2, 0.0, 5.0) == 0


@pytest.mark.parametrize(
    ("poor", "draw", "replaced", "seen", "answer"),
    [
        (True, 0.99, 50, 50, True),
        (False, 0.15, 0, 1, True),
        (False, 0.16, 0, 1, False),
        (False, 0.04, 1, 10, True),
        (False, 0.06, 1, 10, False),
        (False, 0.0, 2, 10, False),
        (False, 0.1, 0, 0, True),
    ],
)
def test_good_pairs_are_replaced_up_to_a_part(
    poor: bool, draw: float, replaced: int, seen: int, answer: bool
) -> None:
    assert replaces(poor, draw, 0.15, replaced, seen) == answer


def test_what_waits_survives_as_json() -> None:
    one = group(*FOUR)
    assert Group.of(json.loads(json.dumps(one.as_data()))) == one
    pair = Pair((1,), (2, 3), (4,), 3.5)
    assert Pair.of(json.loads(json.dumps(pair.as_data()))) == pair
