"""Odds ratio preference optimisation: a base model learns to answer and what is better at once, by itself.

The weight is the paper's, arXiv:2403.07691; the formula stands in `runtime/algorithms/orpo.py`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from specc.graph import Stage
from specc.preferences import preference_stage
from specc.spec.preferences import ComparedData, PreferenceTrain, Responses, check_whole_texts
from specc.spec.section import maths
from specc.spec.stage import TrainingSpec


class Orpo(Responses):
    """The loss."""

    weight: float = maths(0.1, gt=0, le=10**3)
    """Weight of the odds ratio beside the likelihood of the chosen response."""


class Spec(TrainingSpec):
    """Odds ratio preference optimisation."""

    algorithm: Literal["orpo"] = maths()
    """`orpo`."""

    data: ComparedData = maths()  # type: ignore[assignment]  # other rows than those that are learnt
    """Pairs to learn from, and pairs to validate on."""

    train: PreferenceTrain = maths(PreferenceTrain())  # type: ignore[assignment]  # with other defaults
    """Batches, optimizer, schedule, checkpoints."""

    orpo: Orpo = maths(Orpo())
    """The loss."""

    @model_validator(mode="after")
    def _whole_texts(self) -> Spec:
        check_whole_texts(self)
        return self


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage, one role: there is no reference."""
    own = spec.orpo.model_dump(mode="json")
    return [preference_stage(spec, name, "orpo", own, kind="pairs", texts=2)]
