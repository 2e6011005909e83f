"""The rows whose `reward` is above a threshold: ReST (arXiv:2308.08998). Order stays; equal is not above.

With `truncated: drop`, responses that were cut at their limit (`finish: length`) go too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.data.judged import as_number
from runtime.data.prompt_response import kind
from runtime.data.rows import is_unfinished
from runtime.making import means
from runtime.problem import Problem

if TYPE_CHECKING:
    from runtime.making import Making

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The section `above` of the plan."""

    threshold: float = 0.0
    truncated: str = "keep"  # keep | drop


def step(run: Making) -> dict[str, float]:
    """What stays of the next rows."""
    settings = run.program_settings(Settings)
    rows = checked(run)
    kept = above(ended(rows, settings.truncated), settings.threshold)
    run.put(kept)
    return means({"reward": [row["reward"] for row in rows]}) | {"kept": len(kept) / max(len(rows), 1)}


def closing(run: Making, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """What stayed; Problem R011 when nothing did, here and not in a stage that learns from it."""
    if len(run.source) and next(rows(), None) is None:
        threshold = run.program_settings(Settings).threshold
        message = f"none of the {len(run.source)} rows has a reward above the threshold of {threshold:g}"
        raise Problem("R011", f"{message}; lower it, or look at the rewards of the stage before")
    return rows()


def above(rows: Iterable[Row], threshold: float) -> list[Row]:
    """The rows above the threshold."""
    return [row for row in rows if row["reward"] > threshold]


def ended(rows: list[Row], truncated: str) -> list[Row]:
    """All rows, or with `drop` those that were not cut."""
    return rows if truncated != "drop" else [row for row in rows if not is_unfinished(row)]


def checked(run: Making, *texts: str) -> list[Row]:
    """The next rows, each with a finite `reward` and text in these fields; Problem R010 names a bad one."""
    rows = run.batch()
    for index, row in zip(run.indices(), rows, strict=True):
        where = run.source.where(index)
        missing = [name for name in ("reward", *texts) if name not in row]
        if missing:
            keys = ", ".join(map(str, row)) or "nothing"
            raise Problem("R010", f"{where}: no field `{missing[0]}`; the row has {keys}")
        as_number(row["reward"], "`reward`", where)
        for name in texts:
            if not isinstance(row[name], str):
                raise Problem("R010", f"{where}: `{name}` is {kind(row[name])}, expected text")
    return rows
