"""The best responses to each prompt, by their rewards: what rejection sampling learns.

What goes out is one stage of a clerk. Settings of the job:
    best_of_n  keep        rows of each prompt, those of the highest reward; of equal ones the first
               truncated   keep | drop: whether a response that was cut at its limit takes part
Data: `rows` with `input` and `reward`. Rows of one `input` belong together wherever they stand.
Rows: as they were, prompts in the order of their first row, of each prompt the best first. With `drop`, a
prompt whose responses were all cut is left out.
Paper: arXiv:2307.09288, 3.2.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from specc.graph import Stage
from specc.makers import clerk_stage
from specc.spec.making import ClerkSpec
from specc.spec.section import Section, maths


class BestOfN(Section):
    """Which rows are kept."""

    keep: int = maths(1, ge=1, le=10**6)
    """Responses of each prompt to keep, those of the highest reward; of equal ones the first."""

    truncated: Literal["keep", "drop"] = maths("keep")
    """Whether a response that was cut at its limit takes part; how it is learnt, `sft.cut_answers` says."""


class Spec(ClerkSpec):
    """The best responses to each prompt."""

    algorithm: Literal["best_of_n"] = maths()
    """`best_of_n`."""

    best_of_n: BestOfN = maths(BestOfN())
    """Which rows are kept."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage of a clerk."""
    return [clerk_stage(spec, name, spec.best_of_n.model_dump(mode="json"))]


def smaller(stage: Mapping[str, Any], section: str = "best_of_n") -> dict[str, Any]:
    """What a tiny twin has instead: a model that has not learnt to end is cut each time."""
    return {f"{section}.truncated": "keep"}
