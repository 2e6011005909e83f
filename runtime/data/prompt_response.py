"""Prompt/response rows as tokens: a template for each half, the loss on the response only.

The prompt's template is cut before every placeholder, with the spaces that precede it; every piece is
tokenised by itself, so the tokens of the response do not depend on the prompt. Values are stripped, but
those of rows that a stage made are learnt as they are: a space between them is what the model was asked with.
An answer that was cut at its limit (`finish: length`) gets no end token, nor the template's words behind it,
unless `cut_answers: closed` wants that: it would teach to stop there.
An over-long row loses part of its prompt's *fields*, never of the template's own words, and never of
the response: a row whose response alone is too long is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runtime.data.rows import is_unfinished
from runtime.problem import Problem

CUT_AND_EMPTY = "cut at the limit with nothing said"
PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")


class Tokenizer(Protocol):
    """What is asked of a tokenizer here."""

    bos_id: Any
    eos_id: Any

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class Encoded:
    """A row's tokens and mask; `dropped` says why there are none, `cut` that some were left out."""

    tokens: Sequence[int] = ()
    mask: Sequence[int] = ()
    dropped: str = ""
    cut: bool = False
    labels: Sequence[float] = ()  # what somebody said of it, where the format has that


@dataclass(frozen=True)
class Piece:
    """Part of a template: its words and, at most, one field at its end."""

    words: str
    field: str = ""


def pieces(template: str) -> list[Piece]:
    """`Q: {question} A: {answer}` as `Q:| {question}| A:| {answer}`: cut before each placeholder."""
    found, start = [], 0
    for match in PLACEHOLDER.finditer(template):
        words = template[start : match.start()]
        kept = words.rstrip(" ")
        if kept:
            found.append(Piece(kept))
        found.append(Piece(words[len(kept) :], match[1]))
        start = match.end()
    if template[start:]:
        found.append(Piece(template[start:]))
    return found


@dataclass(frozen=True)
class Form:
    """How rows become tokens: templates, ends and what happens to long ones."""

    prompt: str = "{input}"
    response: str = "{output}"
    seq_length: int = 2048
    truncation: str = "right"  # right | left: what is cut off the prompt's fields; drop; error
    answer_only: bool = True
    add_bos: bool = False
    add_eos: bool = True
    strip: bool = True  # spaces around values
    turns: str = "all"  # of a conversation: all its answers are learnt | last: the last one
    cut_answers: str = "open"  # one that was cut at its limit has no end | closed: it ends like any other


def encode(row: Mapping[str, Any], where: str, tokenizer: Tokenizer, form: Form) -> Encoded:
    """The row's tokens and mask; Problem R010 names file and line of a bad row."""
    prompt = [_ids(piece, row, where, tokenizer, form.strip) for piece in pieces(form.prompt)]
    is_open = form.cut_answers == "open" and is_unfinished(row)
    template = unclosed(form.response) if is_open else form.response
    response = ids(template, row, where, tokenizer, form.strip)
    start = [tokenizer.bos_id] if form.add_bos and tokenizer.bos_id is not None else []
    end = [tokenizer.eos_id] if form.add_eos and tokenizer.eos_id is not None and not is_open else []
    if not response and is_open:
        return Encoded(dropped=CUT_AND_EMPTY)
    if not response and not end:
        raise Problem("R010", f"{where}: the response is empty and no end token is added")
    excess = len(start) + sum(map(len, prompt)) + len(response) + len(end) - form.seq_length
    if excess > 0:
        if form.truncation == "error":
            got = excess + form.seq_length
            raise Problem(
                "R010", f"{where}: {got} tokens, but seq_length is {form.seq_length}; use truncation"
            )
        if form.truncation == "drop":
            return Encoded(dropped=f"longer than {form.seq_length} tokens")
        is_field = [bool(piece.field) for piece in pieces(form.prompt)]
        prompt = shortened(prompt, is_field, excess, keep_head=form.truncation == "right")
        if prompt is None:
            return Encoded(dropped=f"response does not fit in {form.seq_length} tokens")
    context = start + [i for ids in prompt for i in ids]
    answer = response + end
    untrained = (
        [0] * len(context) if form.answer_only else [0] * len(start) + [1] * (len(context) - len(start))
    )
    return Encoded(context + answer, untrained + [1] * len(answer), cut=excess > 0)


def unclosed(template: str) -> str:
    """The template without its words behind the last field."""
    ends = [match.end() for match in PLACEHOLDER.finditer(template)]
    return template[: ends[-1]] if ends else template


def ids(
    template: str, row: Mapping[str, Any], where: str, tokenizer: Tokenizer, strip: bool = True
) -> list[int]:
    """The tokens of a template with the row's fields in it, piece by piece."""
    return [i for piece in pieces(template) for i in _ids(piece, row, where, tokenizer, strip)]


def shortened(
    prompt: list[list[int]], is_field: Sequence[bool], excess: int, *, keep_head: bool
) -> list[list[int]] | None:
    """The prompt less `excess` tokens, taken from its fields in proportion; None when they have too few."""
    room = sum(len(ids) for ids, field in zip(prompt, is_field, strict=True) if field)
    if room < excess:
        return None
    kept, left_room, left_excess = [], room, excess
    for ids, field in zip(prompt, is_field, strict=True):
        if not field:
            kept.append(ids)
            continue
        loss = -(-left_excess * len(ids) // left_room) if left_room else 0
        left_room, left_excess = left_room - len(ids), left_excess - loss
        kept.append(ids[: len(ids) - loss] if keep_head else ids[loss:])
    return kept


def _ids(piece: Piece, row: Mapping[str, Any], where: str, tokenizer: Tokenizer, strip: bool) -> list[int]:
    words = piece.words
    if piece.field:
        found = value(row, piece.field, where)
        words += found.strip(" ") if strip else found
    if words.startswith(" ") and getattr(tokenizer, "adds_leading_space", False):
        words = words[1:]
    return list(tokenizer.encode(words)) if words else []


def value(row: Mapping[str, Any], field: str, where: str) -> str:
    """A field of the row as text; dots go into objects. R010 when it is missing or no text."""
    found: Any = row
    for part in [field] if field in row else field.split("."):
        if not isinstance(found, Mapping) or part not in found:
            keys = ", ".join(map(str, row)) or "nothing"
            raise Problem("R010", f"{where}: no field `{field}`; the row has {keys}")
        found = found[part]
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        raise Problem("R010", f"{where}: field `{field}` is {kind(found)}; expected text")
    return str(found)


def kind(found: Any) -> str:
    """What a value of a row is, in plain words."""
    names = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null", str: "text"}
    return names.get(type(found), f"a {type(found).__name__}")
