"""A language model as a judge: what it is asked about a response, and the score that its words come to.

arXiv:2401.10020, 2.1. The template and the pattern are the plan's. A judgement's score is the last match of
the pattern: the template asks for it at the end, and a judge that thinks aloud names others before. What is
read as a number, and what is not:

    Score: 4      Score:4       **Score:** 4     score : <4>      4
    Points: 3.5.  the full stop does not count                    3.5
    Score: 4/5    a fraction of the highest score                 4
    Score: 8/10   a fraction of anything else; 4-5, 4,5, 4.5.6    no score
    Score: -1     where the range begins below 0                  -1
    Score: -1     elsewhere, Score: 9: outside of the range       no score

A conversation is shown to the judge without its system text and without the marks of a chat template, so
nothing of a template has to be undone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.sandbox

from runtime.conversation import Conversation, conversation_of
from runtime.problem import Problem

Tokens = list[int]


@dataclass(frozen=True)
class Judgement:
    """What a judge said of a response, and what it comes to; None: nothing that counts."""

    tokens: tuple[int, ...]
    text: str
    ended: bool
    score: float | None


@dataclass(frozen=True)
class Scale:
    """How a score is read."""

    pattern: str
    low: float = 0.0
    high: float = 5.0

    def read(self, text: str) -> float | None:
        """The score that a judgement ends with, within the range; None when there is none."""
        found = list(re.finditer(self.pattern, text))
        score = number(found[-1].group(1) or "", self.high) if found else None
        return score if score is not None and self.low <= score <= self.high else None

    def without(self, text: str) -> str:
        """The text without anything that reads as a score."""
        return re.sub(self.pattern, "", text)

    def part(self, fraction: float) -> float:
        """The score of something that is right to this part; ValueError for what is no number."""
        if not math.isfinite(fraction):
            raise ValueError(f"it gave {fraction}")
        return self.low + (self.high - self.low) * min(max(fraction, 0.0), 1.0)


def number(text: str, high: float) -> float | None:
    """`4`, `4.5`, `4.5.`, or `4/5` where 5 is the highest score; None for anything else."""
    top, slash, bottom = text.replace("\u2212", "-").partition("/")
    try:
        found, of = float(top.strip().rstrip(".")), float(bottom.strip().rstrip(".")) if slash else high
    except ValueError:
        return None
    return found if math.isfinite(found) and of == high else None


def mean_and_variance(scores: Sequence[float | None]) -> tuple[float, float] | None:
    """Of the scores that are there; the population's variance. None when none is."""
    valid = [score for score in scores if score is not None]
    if not valid:
        return None
    mean = math.fsum(valid) / len(valid)
    return mean, math.fsum((score - mean) ** 2 for score in valid) / len(valid)


# --- what a judge is asked -------------------------------------------------------------------------


class Question:
    """A jinja2 template of a question to a judge; Problem R035 when it is none."""

    def __init__(self, source: str, **fixed: Any) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
        self.fixed = fixed
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise Problem("R035", f"the judge's template is no jinja2: {error}") from None

    def ask(self, **given: str) -> str:
        """The question about these texts, which stand in it as they are."""
        try:
            return self._template.render(**self.fixed, **given).strip()
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise Problem("R035", f"the judge's template cannot be filled in: {error}") from None


def shown(row: Mapping[str, Any], text: str) -> tuple[str, ...]:
    """What a judge sees of a row's prompt, the longest first: all turns, then the last question alone.

    `row` is a conversation without its last answer, or anything else, and then `text` is the prompt.
    """
    if not any(isinstance(row.get(key), list) for key in ("messages", "conversations")):
        return (text.strip(),)
    talk = conversation_of(row)
    questions = [turn.value for turn in talk.turns if turn.speaker == talk.masked]
    last = (questions or [talk.turns[-1].value])[-1]
    if len(talk.turns) == 1:
        return (last.strip(),)
    return (_dialogue(talk), last.strip())


def _dialogue(talk: Conversation) -> str:
    return "\n\n".join(f"{turn.speaker}: {turn.value}".strip() for turn in talk.turns)


def fitted(
    ask: Callable[[str, str], Tokens],
    prompts: Sequence[str],
    response: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    room: int,
) -> Tokens | None:
    """The question's tokens within `room`: the first of `prompts` that fits, then with less and less of the
    response, from its end. None when not one token of the response has room.
    """
    for prompt in prompts:
        tokens = ask(prompt, decode(response))
        if len(tokens) <= room:
            return tokens
    keep = len(response)
    while keep > 0:
        tokens = ask(prompts[-1], decode(response[:keep]))
        if len(tokens) <= room:
            return tokens
        keep = min(keep - 1, max(1, keep - (len(tokens) - room)))
    return None
