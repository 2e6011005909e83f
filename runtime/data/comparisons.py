"""Pairs of texts of which one is preferred.

A row may hold a whole comparison: `chosen` and `rejected`, as texts after a `prompt` (templates rename
the fields), or as turns of a conversation that `messages`, `conversations` or a list in `prompt`
begins. Or two rows that follow one another make one: `{"text": ...}`, the better first, as in the
tutorials; where they have a `label`, its first number says by its sign which is better (below 0: the
first) and by its size how clearly, as in HelpSteer2-Preference.

`strength` or `margin` beside `chosen` says how clearly, too. Without a preference (strength 0, or two
equal texts) a pair teaches nothing: it is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.data import hh
from runtime.data.judged import JudgedForm, as_number, judged_conversation, judged_text, number
from runtime.data.prompt_response import PLACEHOLDER, Encoded, kind
from runtime.data.rows import Rows
from runtime.problem import Problem

STRENGTHS = ("strength", "margin")
HISTORIES = ("messages", "conversations")


@dataclass(frozen=True)
class Pair:
    """Two texts, or two rows that hold a conversation."""

    chosen: str | Mapping[str, Any]
    rejected: str | Mapping[str, Any]
    strength: float | None = None


class Comparisons:
    """The pairs of a data set as tokens; two samples each, the chosen one first."""

    group = 2

    def __init__(self, rows: Rows, tokenizer: Any, template: str, form: JudgedForm):
        self.rows, self.tokenizer, self.template, self.form = rows, tokenizer, template, form
        self.alternates = form.format == "comparisons" and len(rows) > 0 and is_half(rows[0])
        if self.alternates and len(rows) % 2:
            last = rows.where(len(rows) - 1)
            raise Problem("R010", f"{last}: its partner is missing; two rows `text` make a comparison")

    def __len__(self) -> int:
        return len(self.rows) // 2 if self.alternates else len(self.rows)

    def read(self, index: int) -> list[Encoded]:
        """The chosen and the rejected text of a pair; R010 names the row of a bad one."""
        where = self.rows.where(2 * index if self.alternates else index)
        pair = self._pair(index, where)
        if isinstance(pair, Encoded):
            return [pair, pair]
        if self.form.strength and pair.strength is None:
            wanted = "a signed `label`" if self.alternates else "`strength` or `margin`"
            raise Problem("R010", f"{where}: the loss wants to know how clear the preference is: {wanted}")
        if pair.strength == 0:
            return [Encoded(dropped="without a preference")] * 2
        if pair.chosen == pair.rejected:
            return [Encoded(dropped="of two equal texts")] * 2
        labels = () if pair.strength is None else (abs(pair.strength),)
        return [self._encoded(side, where, labels) for side in (pair.chosen, pair.rejected)]

    def _pair(self, index: int, where: str) -> Pair | Encoded:
        if self.alternates:
            return _of_two_rows(self.rows, 2 * index)
        if self.form.format == "hh":
            found = hh.pair(self.rows[index], where)
            return found if isinstance(found, Encoded) else Pair(*found)
        return pair_of(self.rows[index], where, self.form)

    def _encoded(self, side: str | Mapping[str, Any], where: str, labels: tuple[float, ...]) -> Encoded:
        if isinstance(side, str):
            return judged_text(side, where, self.tokenizer, self.form, labels)
        return judged_conversation(side, where, self.tokenizer, self.template, self.form, labels)


def is_half(row: Mapping[str, Any]) -> bool:
    """Is the row one text of a comparison, and the next row the other?"""
    return "chosen" not in row and "rejected" not in row


def pair_of(row: Mapping[str, Any], where: str, form: JudgedForm) -> Pair:
    """The comparison that one row holds."""
    named = [field for field in STRENGTHS if row.get(field) is not None]
    strength = number(row, named[0], where) if named else None
    if strength is not None and strength < 0:
        raise Problem("R010", f"{where}: `{named[0]}` is {strength:g}; of `chosen` it is 0 or more")
    sides = [row.get("chosen"), row.get("rejected")]
    if any(isinstance(side, list | Mapping) for side in sides):
        talks = [_conversation(row, side, where) for side in ("chosen", "rejected")]
        return Pair(talks[0], talks[1], strength)
    prompt = filled(form.prompt, row, where)
    return Pair(
        prompt + filled(form.chosen, row, where), prompt + filled(form.rejected, row, where), strength
    )


def filled(template: str, row: Mapping[str, Any], where: str) -> str:
    """The template with the row's fields in it, as they are."""

    def text(field: str) -> str:
        if field not in row:
            raise Problem("R010", f"{where}: no field `{field}`; the row has {', '.join(map(str, row))}")
        if not isinstance(row[field], str):
            raise Problem("R010", f"{where}: field `{field}` is {kind(row[field])}; expected text")
        return row[field]

    return PLACEHOLDER.sub(lambda match: text(match[1]), template)


def _of_two_rows(rows: Rows, first: int) -> Pair:
    """The comparison that row `first` and the next one make."""
    texts = [_half(rows[i], rows.where(i)) for i in (first, first + 1)]
    labels = [_signed(rows[i], rows.where(i)) for i in (first, first + 1)]
    if labels[0] != labels[1]:
        message = f"label {labels[1]} beside {labels[0]} of the row before; both rows of a pair have one"
        raise Problem("R010", f"{rows.where(first + 1)}: {message}")
    if labels[0] is None or labels[0] < 0:
        return Pair(texts[0], texts[1], labels[0])
    return Pair(texts[1], texts[0], labels[0])


def _half(row: Mapping[str, Any], where: str) -> str | Mapping[str, Any]:
    if any(isinstance(row.get(key), list) for key in HISTORIES):
        return {key: value for key, value in row.items() if key not in ("label", "type")}
    if "text" not in row:
        keys = ", ".join(map(str, row)) or "nothing"
        raise Problem("R010", f"{where}: expected `text`, or `chosen` and `rejected`; the row has {keys}")
    if not isinstance(row["text"], str):
        raise Problem("R010", f"{where}: `text` is {kind(row['text'])}; expected text")
    return row["text"]


def _signed(row: Mapping[str, Any], where: str) -> float | None:
    """Which of two rows is better, by the sign, and how clearly."""
    label = row.get("label")
    if label is None:
        return None
    first = label[0] if isinstance(label, list) and label else label
    return as_number(first, "`label`", where)


def _conversation(row: Mapping[str, Any], side: str, where: str) -> dict[str, Any]:
    """The row's history and then what `chosen` or `rejected` says, as a row of a conversation."""
    said = row.get(side)
    turns = said if isinstance(said, list) else [said]
    first = turns[0] if turns else None
    if not isinstance(first, Mapping) or not all(isinstance(turn, Mapping) for turn in turns):
        raise Problem("R010", f"{where}: `{side}` is {kind(said)}; expected turns like the other side's")
    key = "messages" if "role" in first else "conversations"
    before = row.get(key) if isinstance(row.get(key), list) else row.get("prompt")
    history = before if isinstance(before, list) else []
    if turns[: len(history)] == history:  # the side repeats it
        history = []
    rest = {name: row[name] for name in ("system", "mask") if isinstance(row.get(name), str)}
    return {key: [*history, *turns], **rest}
