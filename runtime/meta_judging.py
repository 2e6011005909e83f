"""A judge of judgements: which of several judgements of one response is the best, and which the worst.

arXiv:2407.19594, 2.2. Judgements of the response that was judged most unevenly meet two by two, each pair in
both orders; a verdict that changes with the order is a tie. Battles become ratings (`runtime.ratings`), and
the best and the worst judgement a pair to learn from, whose prompt is the question to the judge.

A battle carries who fights, by index, so that one that was skipped or answered with nothing leaves the others
as they are; the older implementation paired verdicts with battles by their place in a list, and a skipped one
gave all that followed to the wrong judgements.

Left out: the paper weighs battles by how often each position wins.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from runtime.judging import Judgement, Scale, Tokens
from runtime.ratings import Ratings, bradley_terry, wins_of


@dataclass(frozen=True)
class Group:
    """The judgements of one response. `key` is its number in the run."""

    key: int
    question: tuple[int, ...]  # what the judge was asked
    prompts: tuple[str, ...]  # what was asked, the longest form first: all turns, the last question alone
    response: str
    judgements: tuple[Judgement, ...]

    def as_data(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def of(data: Mapping[str, Any]) -> Group:
        told = [Judgement(**{**j, "tokens": tuple(j["tokens"])}) for j in data["judgements"]]
        lists = {name: tuple(data[name]) for name in ("question", "prompts")}
        return Group(**{**data, **lists, "judgements": tuple(told)})


@dataclass(frozen=True)
class Battle:
    """Judgements `one` and `other` of a group, `one` shown first, or `other` where it is turned."""

    group: int  # its key
    one: int
    other: int
    turned: bool
    question: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """Two judgements to learn from; `score` is the better one's."""

    question: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    score: float

    def as_data(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def of(data: Mapping[str, Any]) -> Pair:
        lists = {name: tuple(data[name]) for name in ("question", "chosen", "rejected")}
        return Pair(**lists, score=float(data["score"]))


def uneven(judged: Sequence[tuple[bool, Sequence[Judgement], float]]) -> int | None:
    """Which response's judgements differ most, the first on ties. Each response: whether it ended, its
    judgements, their variance. None where no response has two valid judgements that differ.
    """
    fit = [
        i
        for i, (ended, told, variance) in enumerate(judged)
        if ended and variance > 0 and sum(j.score is not None for j in told) >= 2
    ]
    return max(fit, key=lambda i: judged[i][2], default=None)


def battles_of(group: Group, scale: Scale, ask: Callable[..., Tokens], room: int) -> list[Battle]:
    """Every pair of judgements that can be told apart, in both orders, without their scores. Like a judge,
    who compares them sees the whole conversation where that takes `room` tokens at most, else the last
    question alone; a pair that has no room even so is left out.
    """
    texts = {i: scale.without(j.text).strip() for i, j in enumerate(group.judgements) if j.score is not None}
    found = []
    for one, other in combinations(texts, 2):
        if texts[one] == texts[other]:
            continue
        asked = _in_both_orders(group, texts[one], texts[other], ask, room)
        found += [Battle(group.key, one, other, bool(turn), tokens) for turn, tokens in enumerate(asked)]
    return found


def _in_both_orders(
    group: Group, one: str, other: str, ask: Callable[..., Tokens], room: int
) -> list[tuple[int, ...]]:
    """The two questions about two judgements, with one form of the prompt; nothing where none has room."""
    for prompt in group.prompts:
        given = {"prompt": prompt, "response": group.response}
        orders = [(one, other), (other, one)]
        asked = [tuple(ask(**given, judgement_a=a, judgement_b=b)) for a, b in orders]
        if max(map(len, asked)) <= room:
            return asked
    return []


def verdict(text: str, pattern: str) -> str:
    """`A`, `B`, or nothing: the last match of the pattern, when it is exactly one of the two."""
    found = list(re.finditer(pattern, text))
    said = (found[-1].group(1) or "").strip().rstrip(".").upper() if found else ""
    return said if said in ("A", "B") else ""


def outcomes(told: Iterable[tuple[Battle, str]]) -> list[tuple[int, int, float]]:
    """(one, other, outcome) of a group's battles: 1 when `one` won in both orders, 0 when it lost in both,
    1/2 when the orders disagree. A pair without both verdicts does not count.
    """
    by_pair: dict[tuple[int, int], dict[bool, str]] = {}
    for battle, said in told:
        by_pair.setdefault((battle.one, battle.other), {})[battle.turned] = said
    found = []
    for (one, other), said in by_pair.items():
        straight, turned = said.get(False, ""), said.get(True, "")
        if straight and turned:
            found.append((one, other, 0.5 if straight == turned else float(straight == "A")))
    return found


def rated(group: Group, found: Iterable[tuple[int, int, float]]) -> tuple[list[int], Ratings]:
    """The judgements that have a score, by index, and their ratings."""
    valid = [i for i, j in enumerate(group.judgements) if j.score is not None]
    place = {i: n for n, i in enumerate(valid)}
    return valid, bradley_terry(wins_of(len(valid), [(place[i], place[j], won) for i, j, won in found]))


def pair_of(group: Group, valid: Sequence[int], ratings: Ratings) -> Pair | None:
    """The best against the worst judgement; None unless all ratings differ, both came to an end, and neither
    their texts nor their scores are the same.
    """
    if len(valid) < 2 or not ratings.distinct():
        return None
    order = sorted(range(len(valid)), key=lambda n: ratings.theta[n])
    worst, best = group.judgements[valid[order[0]]], group.judgements[valid[order[-1]]]
    if not (best.ended and worst.ended) or best.text == worst.text or best.score == worst.score:
        return None
    assert best.score is not None
    return Pair(group.question, best.tokens, worst.tokens, best.score)


@dataclass(frozen=True)
class Share:
    """How many pairs of one score there may be, so that the judge does not learn to give one score only."""

    low: float
    high: float
    most: float  # of all pairs so far, a part
    limit: int  # and a number

    def fresh(self) -> list[int]:
        """Counts by whole score before the first pair: one of each."""
        return [1] * (int(self.high - self.low) + 1)

    def takes(self, pair: Pair, counts: list[int]) -> bool:
        """Whether the pair is taken; then it is counted."""
        place = min(max(int(pair.score - self.low), 0), len(counts) - 1)
        if counts[place] / sum(counts) >= self.most or counts[place] >= self.limit:
            return False
        counts[place] += 1
        return True


def limit_of(steps: int, global_batch: int, part: float, low: float, high: float) -> int:
    """Pairs of one score in an iteration: a part of all its rows, dealt to the scores."""
    return int(steps * global_batch * part / (high - low))


def replaces(poor: bool, draw: float, fraction: float, replaced: int, seen: int) -> bool:
    """Whether a pair of judgements takes the place of a pair of responses: of a poor one always, of another
    as long as fewer than `fraction` were, by the draw from [0, 1).
    """
    return poor or draw <= fraction - replaced / max(seen, 1)
