"""Rounds that are alike, as one line: what is printed of a chain of a hundred stages stays a page.

Round k of a section NAME is the stages NAME-k-PART, and waits for those of the round before. Stages that are
only named so are no rounds, and stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from specc.plan import Plan

T = TypeVar("T")

PART = re.compile(r"(.+?)-([1-9]\d*)-.+")


class Round(NamedTuple):
    """Which round of which section."""

    section: str
    number: int

    @property
    def before(self) -> Round:
        return Round(self.section, self.number - 1)


Rounds = Mapping[str, Round]
"""The round of each stage that belongs to one."""

NO_ROUNDS: Rounds = MappingProxyType({})


def rounds_of(plan: Plan) -> dict[str, Round]:
    """The rounds of a plan's stages, where one waits for the other."""
    named = {job.stage: Round(m[1], int(m[2])) for job in plan.jobs if (m := PART.fullmatch(job.stage))}
    later = {
        of
        for job in plan.jobs
        if (of := named.get(job.stage)) and any(of.before == named.get(name) for name in job.depends_on)
    }
    kept = later | {of.before for of in later}
    return {stage: of for stage, of in named.items() if of in kept}


def folded(
    items: Iterable[T], rounds: Rounds, stage: Callable[[T], str], text: Callable[[T], str]
) -> list[T | str]:
    """The items in order; in place of those of rounds whose texts are the ones of the round before, one line
    for all these rounds.
    """
    found: list[T | str] = []
    alike: list[int] = []
    last: tuple[Round | None, list[str]] = (None, [])
    for of, several in groupby(items, key=lambda item: rounds.get(stage(item))):
        own = list(several)
        told = [masked(text(item), of) for item in own] if of else []
        if of and last == (of.before, told):
            alike.append(of.number)
        else:
            found += [*_line(alike), *own]
            alike.clear()
        last = (of, told)
    return [*found, *_line(alike)]


def ends(items: Iterable[T], rounds: Rounds, stage: Callable[[T], str]) -> list[T | str]:
    """The items of the first and the last round of each section; a line in place of the rounds between."""
    own = [(item, rounds.get(stage(item))) for item in items]
    of_section: dict[str, list[int]] = {}
    for _, of in own:
        if of:
            of_section.setdefault(of.section, []).append(of.number)
    found: list[T | str] = []
    for item, of in own:
        first, last = (min(of_section[of.section]), max(of_section[of.section])) if of else (0, 0)
        if of is None or of.number in (first, last) or last - first < 3:
            found.append(item)
        elif (line := f"... rounds {first + 1} to {last - 1} between") not in found[-1:]:
            found.append(line)
    return found


def masked(text: str, of: Round) -> str:
    """The text with the stages of the section's rounds named by how many rounds away they are."""
    own = re.compile(rf"\b{re.escape(of.section)}-(\d+)-")
    return own.sub(lambda match: f"{of.section}-[{int(match[1]) - of.number:+d}]-", text)


def _line(numbers: list[int]) -> list[str]:
    if not numbers:
        return []
    return [
        f"... round {numbers[0]} alike"
        if len(numbers) == 1
        else f"... rounds {numbers[0]} to {numbers[-1]} alike"
    ]
