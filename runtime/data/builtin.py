"""Rows that ship as code, so that a demo needs no files and no network.

`builtin:arithmetic` asks for one-digit sums, as `{"input": "3+4=", "output": "7"}`, or with the fields that
the section's templates name instead; with the subset or format `chat` the same as `messages`. As
comparisons it has a wrong answer beside the right one, as `hh` both as dialogues; as verdicts one of them; as
attributes either of them with a mark between 0 and 4 for each attribute (a text's first is whether it is
right, the others its length), some of them missing; and in the forms of published data sets (`sums`). The
rows depend on the seed and on nothing else.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.data import sums
from runtime.data.judged import MISSING
from runtime.problem import Problem

ROWS = 2048
"""Rows of a generated data set when `limit` does not say."""

FIELD = re.compile(r"\{([^{}]+)\}")
TEMPLATES = {
    "prompt": "{input}",
    "response": "{output}",
    "chosen": "{chosen}",
    "rejected": "{rejected}",
}
"""Templates of a section of data, and the fields that they name when nobody says."""


class ArithmeticRows:
    """Sums of two numbers; row i is a function of (seed, i)."""

    def __init__(
        self,
        seed: int,
        split: str,
        form: str,
        count: int = ROWS,
        largest: int = 9,
        attributes: Sequence[str] = (),
        templates: Mapping[str, str] | None = None,
        responses: int = sums.RESPONSES,
    ):
        self.seed, self.split, self.form = seed, split, form
        self.count, self.largest, self.attributes = count, largest, tuple(attributes) or ("reward",)
        self.templates, self.responses = dict(templates or {}), responses

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = random.Random(f"{self.seed}/{self.split}/{index}")
        a, b = draw.randint(0, self.largest), draw.randint(0, self.largest)
        question, answer = f"{a}+{b}=", str(a + b)
        if self.form == "steerlm2":
            return sums.responses(draw, question, answer, self._wrong(draw, a + b), self.responses)
        if self.form in sums.FORMS:
            return sums.FORMS[self.form](draw, question, answer, self._wrong(draw, a + b))
        if self.form == "attributes":
            return self._marked(draw, question, answer, self._wrong(draw, a + b))
        if self.form in ("comparisons", "hh"):
            wrong = self._wrong(draw, a + b)
            if self.form == "hh":
                return {
                    name: dialogue(question, said) for name, said in zip(BOTH, (answer, wrong), strict=True)
                }
            row = self._row(prompt=question, chosen=answer, rejected=wrong)
            return row | {"strength": draw.randint(1, 3)}
        if self.form == "verdicts":
            liked = draw.random() < 0.5
            row = self._row(prompt=question, response=answer if liked else self._wrong(draw, a + b))
            return row | {"preference": "chosen" if liked else "rejected"}
        if self.form != "chat":
            return self._row(prompt=question, response=answer)
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"messages": said}

    def _row(self, **parts: str) -> dict[str, Any]:
        """Each part in the fields that its template names; a field of two templates holds the later part."""
        row: dict[str, Any] = {}
        for part, text in parts.items():
            default = "{prompt}" if part == "prompt" and "chosen" in parts else TEMPLATES[part]
            for path in FIELD.findall(self.templates.get(part) or default):
                *folders, name = path.split(".")
                place = row
                for folder in folders:
                    place = place.setdefault(folder, {})
                place[name] = text
        return row

    def _wrong(self, draw: random.Random, right: int) -> str:
        """Another number: one or two off, one of as many digits, the right one with a digit more or less, or
        any. A model that has not seen some kind of mistake may take it for right.
        """
        others = [n for n in range(2 * self.largest + 1) if n != right]
        near = [n for n in others if abs(n - right) <= 2]
        alike = [n for n in others if len(str(n)) == len(str(right))]
        slips = [10 * right + digit for digit in range(1, 10)] + ([right // 10] if right > 9 else [])
        return str(draw.choice(draw.choice([near, alike, slips, others])))

    def _marked(self, draw: random.Random, question: str, right: str, wrong: str) -> dict[str, Any]:
        is_right = draw.random() < 0.5
        text = question + (right if is_right else wrong)
        marks = [4.0 if is_right else 0.0] + [float(len(text) - 5)] * (len(self.attributes) - 1)
        label = [mark if i == 0 or draw.random() < 0.8 else MISSING for i, mark in enumerate(marks)]
        return {"text": text, "label": label}

    def where(self, index: int) -> str:
        return f"builtin:arithmetic: row {index + 1}"

    def fingerprint(self) -> str:
        form = f"{self.form}/{self.responses}/{len(self.attributes)}/{sorted(self.templates.items())}"
        return f"arithmetic/{self.seed}/{self.split}/{form}/{self.count}/{self.largest}"


BOTH = ("chosen", "rejected")


def dialogue(question: str, answer: str) -> str:
    """Question and answer as Anthropic's data sets have them."""
    return f"\n\nHuman: {question}\n\nAssistant: {answer}"


def generated(name: str, settings: Mapping[str, Any], seed: int) -> ArithmeticRows:
    """The generated rows of that name; `split` gives other rows, `subset: chat` gives messages."""
    if name != "arithmetic":
        raise Problem("R005", f"there is no generated data `builtin:{name}`; there is `builtin:arithmetic`")
    form = str(settings.get("subset") or settings.get("format") or "")
    kinds = {"pairs": "hh" if form == "hh" else "comparisons", "verdicts": "verdicts"}
    form = kinds.get(str(settings.get("kind")), form)
    count = int(settings.get("limit") or ROWS)
    split, attributes = str(settings.get("split") or "train"), settings.get("attributes") or ()
    templates = {part: str(settings[part]) for part in TEMPLATES if settings.get(part)}
    several = int(settings.get("responses") or sums.RESPONSES)
    return ArithmeticRows(
        seed, split, form, count, attributes=attributes, templates=templates, responses=several
    )
