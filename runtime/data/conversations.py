"""Chat rows as tokens: `messages` (role, content) or the tutorials' `conversations` (from, value).

The template itself, its labels and its loss mask belong to `runtime.chat`; here a conversation that is
too long is cut on the right, and one that loses all its trained tokens by that is dropped and counted. With
`turns: last` only the last answer is learnt, and those before it are part of what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtime import chat
from runtime.data.prompt_response import CUT_AND_EMPTY, Encoded, Form
from runtime.data.rows import is_unfinished, of_row
from runtime.problem import Problem

KEYS = ("messages", "conversations")
"""The field that makes a row a conversation."""


def is_conversation(row: Mapping[str, Any]) -> bool:
    """Does the row hold a conversation in either form?"""
    return any(isinstance(row.get(key), list) for key in KEYS)


def encode(row: Mapping[str, Any], where: str, tokenizer: Any, template: str, form: Form) -> Encoded:
    """The conversation's tokens and mask; Problem R010 names file and line of a bad one."""
    if not is_conversation(row):
        keys = ", ".join(map(str, row)) or "nothing"
        raise Problem("R010", f"{where}: expected a list `messages` or `conversations`; the row has {keys}")
    is_open = form.cut_answers == "open" and is_unfinished(row)
    tokens, mask = of_row(where, lambda: chat.encode(tokenizer, row, template, is_open=is_open))
    if is_open and not any(mask[1:]):
        return Encoded(dropped=CUT_AND_EMPTY)
    if not form.answer_only:
        mask = [1] * len(tokens)
    elif form.turns == "last":
        mask = last_run(mask)
    if not any(mask[1:]):
        raise Problem("R010", f"{where}: no turn of the conversation is to be learnt; expected an answer")
    return cut(list(tokens), list(mask), where, form)


def last_run(mask: Sequence[int]) -> list[int]:
    """The mask with its last run of ones only: the last answer, and not earlier ones."""
    end = max((i for i, bit in enumerate(mask) if bit), default=-1) + 1
    first = end
    while first > 0 and mask[first - 1]:
        first -= 1
    return [0] * first + [1] * (end - first) + [0] * (len(mask) - end)


def cut(tokens: list[int], mask: list[int], where: str, form: Form) -> Encoded:
    """The row within `seq_length`: cut on the right, dropped, or refused."""
    if len(tokens) <= form.seq_length:
        return Encoded(tokens, mask)
    if form.truncation == "error":
        raise Problem(
            "R010", f"{where}: {len(tokens)} tokens, but seq_length is {form.seq_length}; use truncation"
        )
    if form.truncation == "drop":
        return Encoded(dropped=f"longer than {form.seq_length} tokens")
    tokens, mask = tokens[: form.seq_length], mask[: form.seq_length]
    if not any(mask[1:]):
        return Encoded(dropped=f"no answer within {form.seq_length} tokens")
    return Encoded(tokens, mask, cut=True)
