"""Rewards that can be checked: functions of a prompt, a response and the data's answer, no model behind.

`runtime.verifiers:gsm8k` is 1 when the last number of a response is the answer's, else 0, as for the grade
school problems of arXiv:2110.14168, whose answers end in `#### 42`, and those of SVAMP (arXiv:2103.07191),
whose `Answer` is a number. A response that marks its answer the same way, or as \\boxed{42}, is judged by
that mark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+")
MARKED = re.compile(r"####\s*([^\n]*)|\\boxed\{([^{}]*)\}")


ANSWERS = ("answer", "solution", "response", "output", "target")
"""Fields of a row that hold its answer, in capitals or not; the first one there counts."""


def gsm8k(prompt: str, response: str, row: Mapping[str, Any]) -> float:
    """1.0 when the response comes to the same number as the row's answer, else 0.0.

    ValueError when the row has no answer with a number in it.
    """
    given = {str(name).lower(): value for name, value in row.items() if value is not None}
    answer = next((str(given[name]) for name in ANSWERS if name in given), "")
    right = final_number(answer)
    if right is None:
        raise ValueError(
            f"the row's answer holds no number: {answer[:80]!r}; it is one of {', '.join(ANSWERS)}"
        )
    return float(final_number(response) == right)


def final_number(text: str) -> Decimal | None:
    """The number a text comes to: the last one behind its last mark, or without a mark the last of all."""
    marks = [a or b for a, b in MARKED.findall(text)]
    found = NUMBER.findall(marks[-1] if marks else text)
    if not found:
        return None
    try:
        return Decimal(found[-1].replace(",", "").replace("$", "")).normalize()
    except InvalidOperation:
        return None
