"""Rows that are learnt: conversations, prompts with responses, or the chosen answers of Anthropic-HH."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runtime.data import conversations, hh, prompt_response
from runtime.data.prompt_response import Encoded, Form
from runtime.data.rows import Rows


class Learnt:
    """The rows of a data set as tokens; one sample each."""

    group = 1

    def __init__(self, rows: Rows, tokenizer: Any, template: str, form: Form, format: str = "auto"):
        self.rows, self.tokenizer, self.template, self.form = rows, tokenizer, template, form
        self.format = format
        first_is = format == "auto" and len(rows) > 0 and conversations.is_conversation(rows[0])
        self.is_chat = format == "chat" or first_is

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> list[Encoded]:
        """One row; R010 names a bad one."""
        row, where = self.rows[index], self.rows.where(index)
        if self.is_chat:
            return [conversations.encode(row, where, self.tokenizer, self.template, self.form)]
        if self.format != "hh":
            return [prompt_response.encode(row, where, self.tokenizer, self.form)]
        found = hh.answered(row, where)
        if found is None:
            return [Encoded(dropped=hh.UNLIKE)]
        fields: dict[str, Any] = dict(zip(("prompt", "answer"), found, strict=True))
        form = replace(self.form, prompt="{prompt}", response=" {answer}", strip=True)
        return [prompt_response.encode(fields, where, self.tokenizer, form)]
