"""Rejection sampling: the policy learns its best answer to each prompt, in one round or, online, in several.

What goes out are the stages of `specc.rounds`, with `best_of_n` as what selects: generate n answers, score
them, keep the best, learn them. Paper: arXiv:2307.09288, 3.2.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from specc import rounds
from specc.algorithms import best_of_n
from specc.graph import Stage
from specc.rounds import RoundsSpec, Selector, unrolled
from specc.spec.section import maths


class Rejection(best_of_n.BestOfN):
    """Which answers are learnt."""


class Spec(RoundsSpec):
    """Rejection sampling."""

    algorithm: Literal["rejection"] = maths()
    """`rejection`."""

    rejection: Rejection = maths(Rejection())
    """Which answers are learnt."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """Four stages a round."""
    return unrolled(spec, name, Selector(best_of_n.Spec, spec.rejection, path="rejection"))


def smaller(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What a tiny twin has instead."""
    return rounds.smaller(stage) | best_of_n.smaller(stage, "rejection")
