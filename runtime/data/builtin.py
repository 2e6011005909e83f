"""Rows that ship as code, so that a demo needs no files and no network.

`builtin:arithmetic` asks for one-digit sums, as `{"input": "3+4=", "output": "7"}`; with the subset
`chat` the same as `messages`. The rows depend on the seed and on nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from runtime.problem import Problem

ROWS = 2048
"""Rows of a generated data set when `limit` does not say."""


class ArithmeticRows:
    """Sums of two numbers; row i is a function of (seed, i)."""

    def __init__(self, seed: int, split: str, chat: bool, count: int = ROWS, largest: int = 9):
        self.seed, self.split, self.chat = seed, split, chat
        self.count, self.largest = count, largest

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = random.Random(f"{self.seed}/{self.split}/{index}")
        a, b = draw.randint(0, self.largest), draw.randint(0, self.largest)
        question, answer = f"{a}+{b}=", str(a + b)
        if not self.chat:
            return {"input": question, "output": answer}
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"messages": said}

    def where(self, index: int) -> str:
        return f"builtin:arithmetic: row {index + 1}"

    def fingerprint(self) -> str:
        return f"arithmetic/{self.seed}/{self.split}/{self.chat}/{self.count}/{self.largest}"


def generated(name: str, settings: Mapping[str, Any], seed: int) -> ArithmeticRows:
    """The generated rows of that name; `split` gives other rows, `subset: chat` gives messages."""
    if name != "arithmetic":
        raise Problem("R005", f"there is no generated data `builtin:{name}`; there is `builtin:arithmetic`")
    chat = settings.get("subset") == "chat" or settings.get("format") == "chat"
    count = int(settings.get("limit") or ROWS)
    return ArithmeticRows(seed, str(settings.get("split") or "train"), chat, count)
