"""Sums in the forms of published data sets, for demos and tests without files: see `builtin`.

An answer is right or wrong, and short, longer or long: `7`, `It is 7.`, `3 and 4 make 7.` So marks can be
learnt and steered by: helpfulness, correctness and quality say whether it is right, verbosity how long it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from runtime.data import steerlm

SAYINGS = ("{answer}", "It is {answer}.", "{a} and {b} make {answer}.")
"""By verbosity: 0, 2, 4."""

RESPONSES = 4
"""Responses of a row of several, where nobody says how many."""


def phrased(question: str, answer: str, length: int) -> str:
    """The answer to `3+4=` in words; `length` 0, 1 or 2."""
    a, _, b = question.removesuffix("=").partition("+")
    return SAYINGS[length].format(a=a, b=b, answer=answer)


def oasst(draw: random.Random, question: str, right: str, wrong: str) -> dict[str, Any]:
    """A tree: a right answer that is asked about again, and a wrong one."""

    def message(text: str, role: str, replies: list[Any], **values: float) -> dict[str, Any]:
        labels = {name: {"value": value, "count": 1} for name, value in values.items()}
        return {"text": text, "role": role, "labels": labels, "replies": replies}

    def answer(said: str, worth: float, replies: list[Any]) -> dict[str, Any]:
        length = draw.randrange(3)
        values = {"quality": worth, "toxicity": 0.0, "humor": 0.0, "creativity": length / 2}
        return message(phrased(question, said, length), "assistant", replies, **values)

    again = message("Are you sure?", "prompter", [answer(right, 1.0, [])])
    replies = [answer(right, 1.0, [again]), answer(wrong, 0.0, [])]
    draw.shuffle(replies)
    return {"message_tree_id": question, "prompt": message(question, "prompter", replies)}


def helpsteer(draw: random.Random, question: str, right: str, wrong: str) -> dict[str, Any]:
    """An answer with five marks."""
    is_right, length = draw.random() < 0.5, draw.randrange(3)
    worth = 4 if is_right else 0
    marks = {"helpfulness": worth, "correctness": worth, "coherence": 4, "complexity": 0}
    text = phrased(question, right if is_right else wrong, length)
    return {"prompt": question, "response": text, **marks, "verbosity": 2 * length}


def preference(draw: random.Random, question: str, right: str, wrong: str) -> dict[str, Any]:
    """Two answers and how clearly one is better."""
    strength = draw.choice([-3, -2, -1, 1, 2, 3])
    first, second = (right, wrong) if strength < 0 else (wrong, right)
    split = "val" if draw.random() < 0.1 else "train"
    responses = {"response_1": first, "response_2": second}
    return {"prompt": question, **responses, "preference_strength": strength, "split": split}


def conversation(draw: random.Random, question: str, right: str, wrong: str) -> dict[str, Any]:
    """The same answer as HelpSteer's, as a conversation with marks."""
    row = helpsteer(draw, question, right, wrong)
    line = steerlm.line_of({name: row[name] for name in steerlm.HELPSTEER})
    asked = steerlm.turn(steerlm.USER, row["prompt"])
    return steerlm.record([asked, steerlm.turn(steerlm.ASSISTANT, row["response"], line)])


def responses(
    draw: random.Random, question: str, right: str, wrong: str, count: int = RESPONSES
) -> dict[str, Any]:
    """Several answers of which the right ones have the asked mark, with three log-probabilities."""
    said = []
    for number in range(count):
        is_right = number == 0 or draw.random() < 0.3
        numbers = {
            "log(P(a|x,y))": -0.1 if is_right else -3.0,
            "log(P(y|x))": -2.0 - draw.random(),
            "log(Q(y|a,x))": -2.0 - draw.random(),
        }
        text = phrased(question, right if is_right else wrong, draw.randrange(3))
        said.append({"from": steerlm.ASSISTANT, "value": text, **numbers})
    draw.shuffle(said)
    asked = [{"from": steerlm.USER, "value": question}]
    label = steerlm.line_of({"helpfulness": 4})
    return {"system": steerlm.SYSTEM, "prompt_turns": asked, "label": label, "responses": said}


FORMS: dict[str, Callable[[random.Random, str, str, str], dict[str, Any]]] = {
    "oasst": oasst,
    "helpsteer": helpsteer,
    "helpsteer2": helpsteer,
    "helpsteer2_preference": preference,
    "steerlm": conversation,
    "steerlm2": responses,
}
"""By the word that a section's `subset` or `format` has."""
