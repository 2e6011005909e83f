"""The best responses to each prompt: rejection sampling as in Llama 2 (arXiv:2307.09288, 3.2.3).

Rows with the same `input`, letter by letter, answer the same prompt, wherever they stand. Of them those with
the largest `reward` stay, the best first, of equal ones the first; prompts stay in the order in which they
came first. With `truncated: drop`, responses that were cut at their limit do not take part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.algorithms.above import checked, ended
from runtime.making import means
from runtime.problem import Problem

if TYPE_CHECKING:
    from runtime.making import Making

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The section `best_of_n` of the plan."""

    keep: int = 1
    truncated: str = "keep"  # keep | drop


def step(run: Making) -> dict[str, float]:
    """The best of the next rows; prompts that go on in later rows are settled at the end."""
    settings = run.program_settings(Settings)
    rows = checked(run, "input")
    run.put(best_of_n(ended(rows, settings.truncated), settings.keep))
    return means({"reward": [row["reward"] for row in rows]})


def closing(run: Making, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """The best of all: the best of what is best in each batch."""
    chosen = best_of_n(rows(), run.program_settings(Settings).keep)
    if len(run.source) and not chosen:  # rows that were not all cut have a best one
        message = f"all {len(run.source)} responses were cut at their limit and left out (truncated: drop)"
        raise Problem("R011", f"{message}; use truncated: keep, or a larger generate.max_tokens")
    run.facts |= means({"reward_mean": [row["reward"] for row in chosen]})
    yield from chosen


def best_of_n(rows: Iterable[Row], keep: int = 1) -> list[Row]:
    """At most `keep` rows of each prompt."""
    best: dict[str, list[Row]] = {}
    for row in rows:
        own = best.setdefault(row["input"], [])
        # behind all that are as good or better, so that of equal ones the first stays
        place = next((i for i, other in enumerate(own) if row["reward"] > other["reward"]), len(own))
        own.insert(place, row)
        del own[keep:]
    return [row for own in best.values() for row in own]
