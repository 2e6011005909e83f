"""The catalogue of diagnostics: for each code its title, why it matters, an example and the way out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """One entry; `specc explain CODE` prints it."""

    code: str
    title: str
    why: str
    example: str
    fix: str


CODES: dict[str, Code] = {}
