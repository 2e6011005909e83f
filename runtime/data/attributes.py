"""Texts with a number for each of several attributes, such as helpfulness and verbosity.

A row is `{"text": ..., "label": [3, -100, ...]}` or a conversation with a `label`: one number for each
attribute of the head, in its order, -100 where nobody gave one. A row may also name its attributes:
`{"text": ..., "helpfulness": 3}`. A row without any number is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.data import conversations
from runtime.data.judged import MISSING, JudgedForm, as_number, judged_conversation, judged_text
from runtime.data.prompt_response import Encoded, kind
from runtime.data.rows import Rows
from runtime.problem import Problem


class Attributes:
    """The labelled texts of a data set as tokens."""

    group = 1

    def __init__(self, rows: Rows, tokenizer: Any, template: str, form: JudgedForm):
        self.rows, self.tokenizer, self.template, self.form = rows, tokenizer, template, form

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> list[Encoded]:
        """One text; R010 names the row of a bad one."""
        row, where = self.rows[index], self.rows.where(index)
        labels = labels_of(row, where, self.form.attributes)
        if all(label == MISSING for label in labels):
            return [Encoded(dropped="without a label")]
        if conversations.is_conversation(row):
            talk = {key: value for key, value in row.items() if key not in ("label", "type")}
            return [judged_conversation(talk, where, self.tokenizer, self.template, self.form, labels)]
        text = row.get("text")
        if not isinstance(text, str):
            said = kind(text) if "text" in row else "missing"
            raise Problem("R010", f"{where}: `text` is {said}; expected text, or a conversation")
        return [judged_text(text, where, self.tokenizer, self.form, labels)]


def labels_of(row: Mapping[str, Any], where: str, attributes: tuple[str, ...]) -> tuple[float, ...]:
    """A number for each attribute, MISSING where there is none."""
    if "label" not in row:
        if not any(name in row for name in attributes):
            wanted = f"expected a list `label` of {len(attributes)} numbers, or {', '.join(attributes)}"
            raise Problem("R010", f"{where}: {wanted}; the row has {', '.join(map(str, row)) or 'nothing'}")
        return tuple(_label(row.get(name), f"`{name}`", where) for name in attributes)
    label = row["label"]
    if not isinstance(label, list) or len(label) != len(attributes):
        found = f"a list of {len(label)}" if isinstance(label, list) else kind(label)
        names = ", ".join(attributes)
        message = f"`label` is {found}, expected a number for each of {len(attributes)}: {names}"
        raise Problem("R010", f"{where}: {message}")
    return tuple(_label(found, f"label {i + 1}", where) for i, found in enumerate(label))


def _label(found: Any, what: str, where: str) -> float:
    return MISSING if found is None else as_number(found, what, where)
