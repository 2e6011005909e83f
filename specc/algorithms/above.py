"""Rows whose reward lies above a threshold: what reinforced self-training learns.

What goes out is one stage of a clerk. Settings of the job:
    above      threshold   rows of a higher reward stay, not those of this very reward
               truncated   keep | drop: whether a response that was cut at its limit may stay
Data: `rows` with `reward`. Rows: those that stay, as they were and in their order.
Paper: arXiv:2308.08998.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from specc.graph import Stage
from specc.makers import clerk_stage
from specc.spec.making import ClerkSpec
from specc.spec.section import Section, maths


class Above(Section):
    """Which rows stay."""

    threshold: float = maths(0.0, ge=-(10**9), le=10**9)
    """Rows of a higher reward stay."""

    truncated: Literal["keep", "drop"] = maths("keep")
    """Whether a response that was cut at its limit may stay; how it is learnt, `sft.cut_answers` says."""


class Spec(ClerkSpec):
    """Rows whose reward lies above a threshold."""

    algorithm: Literal["above"] = maths()
    """`above`."""

    above: Above = maths(Above())
    """Which rows stay."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage of a clerk."""
    return [clerk_stage(spec, name, spec.above.model_dump(mode="json"))]


def smaller(stage: Mapping[str, Any], section: str = "above") -> dict[str, Any]:
    """What a tiny twin has instead: rewards of a random model say nothing, and some rows have to stay."""
    return {f"{section}.threshold": -1e9, f"{section}.truncated": "keep"}
