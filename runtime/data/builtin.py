"""Rows that ship as code, so that a demo needs no files and no network.

`builtin:arithmetic` asks for one-digit sums, as `{"input": "3+4=", "output": "7"}`; with the subset
`chat` the same as `messages`. As comparisons it has a wrong answer beside the right one; as attributes
either of them with a mark between 0 and 4 for each attribute (a text's first is whether it is right, the
others its length), some of them missing. The rows depend on the seed and on nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.data.judged import MISSING
from runtime.problem import Problem

ROWS = 2048
"""Rows of a generated data set when `limit` does not say."""


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
    ):
        self.seed, self.split, self.form = seed, split, form
        self.count, self.largest, self.attributes = count, largest, tuple(attributes) or ("reward",)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = random.Random(f"{self.seed}/{self.split}/{index}")
        a, b = draw.randint(0, self.largest), draw.randint(0, self.largest)
        question, answer = f"{a}+{b}=", str(a + b)
        if self.form == "comparisons":
            wrong, clear = self._wrong(draw, a + b), draw.randint(1, 3)
            return {"prompt": question, "chosen": answer, "rejected": wrong, "strength": clear}
        if self.form == "attributes":
            return self._marked(draw, question, answer, self._wrong(draw, a + b))
        if self.form != "chat":
            return {"input": question, "output": answer}
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"messages": said}

    def _wrong(self, draw: random.Random, right: int) -> str:
        """Another number of as many digits, so that it is not its length that tells."""
        alike = [n for n in range(2 * self.largest + 1) if n != right and len(str(n)) == len(str(right))]
        return str(draw.choice(alike))

    def _marked(self, draw: random.Random, question: str, right: str, wrong: str) -> dict[str, Any]:
        is_right = draw.random() < 0.5
        text = question + (right if is_right else wrong)
        marks = [4.0 if is_right else 0.0] + [float(len(text) - 5)] * (len(self.attributes) - 1)
        label = [mark if i == 0 or draw.random() < 0.8 else MISSING for i, mark in enumerate(marks)]
        return {"text": text, "label": label}

    def where(self, index: int) -> str:
        return f"builtin:arithmetic: row {index + 1}"

    def fingerprint(self) -> str:
        form = f"{self.form}/{len(self.attributes)}"
        return f"arithmetic/{self.seed}/{self.split}/{form}/{self.count}/{self.largest}"


def generated(name: str, settings: Mapping[str, Any], seed: int) -> ArithmeticRows:
    """The generated rows of that name; `split` gives other rows, `subset: chat` gives messages."""
    if name != "arithmetic":
        raise Problem("R005", f"there is no generated data `builtin:{name}`; there is `builtin:arithmetic`")
    form = str(settings.get("subset") or settings.get("format") or "")
    count = int(settings.get("limit") or ROWS)
    split, attributes = str(settings.get("split") or "train"), settings.get("attributes") or ()
    return ArithmeticRows(seed, split, form, count, attributes=attributes)
