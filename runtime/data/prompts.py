"""Prompts that a model is to answer: rows as tokens up to where it speaks.

A row is a conversation (`messages`, `conversations`, or a list in `prompt`; an answer at its end is
left out), a text in `prompt` or `text`, whatever the template says, or a dialogue of Anthropic-HH. A
prompt that is too long is dropped and counted, never replaced by another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime import chat
from runtime.data import conversations, hh, prompt_response
from runtime.data.judged import with_asker
from runtime.data.prompt_response import Encoded
from runtime.data.rows import Rows, of_row
from runtime.problem import Problem

TEMPLATE = "{input}"
"""The template when none was said: rows with `prompt` or `text` need none."""


@dataclass(frozen=True)
class PromptForm:
    """How rows become prompts."""

    format: str = "auto"  # auto | chat | prompt_response | hh
    prompt: str = TEMPLATE
    seq_length: int = 2048  # tokens of a prompt at most
    add_bos: bool = False


class Prompts:
    """The prompts of a data set as tokens, none of them to be learnt."""

    group = 1

    def __init__(self, rows: Rows, tokenizer: Any, template: str, form: PromptForm):
        self.rows, self.tokenizer, self.template, self.form = rows, tokenizer, template, form

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> list[Encoded]:
        """One prompt; R010 names the row of a bad one."""
        row, where = self.rows[index], self.rows.where(index)
        tokens = self._tokens(row, where)
        if tokens is None:
            return [Encoded(dropped=hh.UNLIKE)]
        if not tokens:
            raise Problem("R010", f"{where}: the prompt is empty")
        if len(tokens) > self.form.seq_length:
            return [Encoded(dropped=f"longer than {self.form.seq_length} tokens")]
        return [Encoded(tokens, [0] * len(tokens))]

    def _tokens(self, row: Mapping[str, Any], where: str) -> list[int] | None:
        form = self.form
        if form.format == "hh":
            text = hh.prompt(row, where)
            return None if text is None else self._text(text)
        talk = conversation(row) if form.format in ("auto", "chat") else None
        if talk is not None:
            return of_row(where, lambda: list(chat.prompt(self.tokenizer, talk, self.template)))
        if form.format == "chat":
            keys = ", ".join(map(str, row)) or "nothing"
            raise Problem("R010", f"{where}: expected a list `messages` or `conversations`; it has {keys}")
        template = form.prompt
        if template == TEMPLATE and "input" not in row:
            own = next((key for key in ("prompt", "text") if key in row), "input")
            if isinstance(row.get(own), str):  # as it is, with its spaces
                return self._text(row[own])
            template = f"{{{own}}}"
        start = [self.tokenizer.bos_id] if form.add_bos and self.tokenizer.bos_id is not None else []
        return start + prompt_response.ids(template, row, where, self.tokenizer)

    def _text(self, text: str) -> list[int]:
        start = [self.tokenizer.bos_id] if self.form.add_bos and self.tokenizer.bos_id is not None else []
        return start + list(self.tokenizer.encode(text))


def conversation(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row's conversation without the answer that ends it; None when the row holds none."""
    if not conversations.is_conversation(row):
        if not isinstance(row.get("prompt"), list):
            return None
        row = {"messages": row["prompt"]}
    key = next(key for key in conversations.KEYS if isinstance(row.get(key), list))
    row = with_asker(row)
    turns = row[key]
    last = turns[-1] if turns and isinstance(turns[-1], Mapping) else {}
    masked = row.get("mask") or "User"
    answers = last.get("role") == "assistant" if key == "messages" else last.get("from") not in (None, masked)
    rest = {name: row[name] for name in ("system", "mask", "type", "label") if name in row}
    return {key: turns[:-1] if answers else turns, **rest}
