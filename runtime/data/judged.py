"""A text that is judged as a whole: its tokens, and the one place where its score is read.

The score of a text is what the head says at its last token, whatever that token is. In a batch that
place is where the mask is 1, so padding, packing and the cut over ranks need no lengths beside it. A
column holds an input and the token after it; one token is repeated at the end, so that the last input
has a column too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime import chat
from runtime.data.prompt_response import Encoded, Tokenizer
from runtime.data.rows import of_row
from runtime.problem import Problem

MISSING = -100.0
"""A label that nobody gave."""


@dataclass(frozen=True)
class JudgedForm:
    """How rows that are compared or labelled become tokens."""

    format: str = "comparisons"  # comparisons | attributes | hh
    prompt: str = "{prompt}"  # templates of a comparison whose row holds three texts
    chosen: str = "{chosen}"
    rejected: str = "{rejected}"
    attributes: tuple[str, ...] = ()
    strength: bool = False  # every comparison has to say how clear it is
    seq_length: int = 2048
    truncation: str = "drop"  # drop | left | right: what is cut off; error
    add_bos: bool = False
    add_eos: bool = True


def judged_text(
    text: str, where: str, tokenizer: Tokenizer, form: JudgedForm, labels: Sequence[float] = ()
) -> Encoded:
    """A text's tokens between the begin and end tokens that the form adds."""
    start = [tokenizer.bos_id] if form.add_bos and tokenizer.bos_id is not None else []
    end = [tokenizer.eos_id] if form.add_eos and tokenizer.eos_id is not None else []
    return read_at_end(start, list(tokenizer.encode(text)), end, where, form, labels)


def judged_conversation(
    row: Mapping[str, Any],
    where: str,
    tokenizer: Any,
    template: str,
    form: JudgedForm,
    labels: Sequence[float] = (),
) -> Encoded:
    """A conversation's tokens; its chat template says how it ends, so no end token is added."""
    tokens, _ = of_row(where, lambda: chat.encode(tokenizer, with_asker(row), template))
    return read_at_end([], list(tokens), [], where, form, labels)


def with_asker(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with the one who speaks first as the one who asks, where neither it nor `User` says so."""
    turns = row.get("conversations")
    if row.get("mask") or not isinstance(turns, list):
        return row
    speakers = [turn.get("from") for turn in turns if isinstance(turn, Mapping)]
    return row if "User" in speakers or not speakers else {**row, "mask": speakers[0]}


def read_at_end(
    start: list[int],
    tokens: list[int],
    end: list[int],
    where: str,
    form: JudgedForm,
    labels: Sequence[float] = (),
) -> Encoded:
    """The text within `seq_length`, with the mask on its last token; begin and end are never cut."""
    if not start and not tokens and not end:
        raise Problem("R010", f"{where}: the text is empty")
    excess = len(start) + len(tokens) + len(end) - form.seq_length
    if excess > 0:
        if form.truncation == "error":
            got = excess + form.seq_length
            raise Problem(
                "R010", f"{where}: {got} tokens, but seq_length is {form.seq_length}; use truncation"
            )
        if form.truncation == "drop" or excess >= len(tokens):
            return Encoded(dropped=f"longer than {form.seq_length} tokens")
        tokens = tokens[excess:] if form.truncation == "left" else tokens[:-excess]
    whole = [*start, *tokens, *end]
    mask = [0] * len(whole) + [1]
    return Encoded([*whole, whole[-1]], mask, cut=excess > 0, labels=tuple(labels))


def number(row: Mapping[str, Any], field: str, where: str) -> float:
    """A field of the row as a finite number; R010 when it is none."""
    return as_number(row[field], f"`{field}`", where)


def as_number(found: Any, what: str, where: str) -> float:
    """A finite number; R010 says what stands in its place."""
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if not is_number or not abs(float(found)) < float("inf"):
        raise Problem("R010", f"{where}: {what} is {_shown(found)}, expected a number")
    return float(found)


def _shown(found: Any) -> str:
    text = repr(found)
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"
