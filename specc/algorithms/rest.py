"""Reinforced self-training: the policy learns those of its answers whose reward lies above a threshold.

What goes out are the stages of `specc.rounds`, with `above` as what selects. A threshold means the more the
better rewards are standardised: `roles.reward.standardise`, by the reward model's or the round's own mean and
deviation. Paper: arXiv:2308.08998.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from specc import rounds
from specc.algorithms import above
from specc.graph import Stage
from specc.rounds import RoundsSpec, Selector, unrolled
from specc.spec.section import maths


class Rest(above.Above):
    """Which answers are learnt."""


class Spec(RoundsSpec):
    """Reinforced self-training."""

    algorithm: Literal["rest"] = maths()
    """`rest`."""

    rest: Rest = maths(Rest())
    """Which answers are learnt."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """Four stages a round."""
    return unrolled(spec, name, Selector(above.Spec, spec.rest, path="rest"))


def smaller(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What a tiny twin has instead."""
    return rounds.smaller(stage) | above.smaller(stage, "rest")
