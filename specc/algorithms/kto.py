"""Kahneman-Tversky optimisation: a model learns from responses that were liked or not, near a reference.

Defaults are NeMo-Aligner's; the formula stands in `runtime/algorithms/kto.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from specc.graph import Stage
from specc.preferences import preference_stage, with_reference
from specc.spec.preferences import ReferenceSpec, Responses, VerdictData
from specc.spec.section import maths
from specc.spec.units import conflict


class Kto(Responses):
    """The loss."""

    beta: float = maths(0.2, gt=0, le=10**3)
    """How much the policy may differ from the reference: less of it, further away."""

    desirable_weight: float = maths(1.0, ge=0, le=10**6)
    """Weight of responses that were liked; where they are few, more."""

    undesirable_weight: float = maths(1.0, ge=0, le=10**6)
    """Weight of the others."""


class Spec(ReferenceSpec):
    """Kahneman-Tversky optimisation."""

    algorithm: Literal["kto"] = maths()
    """`kto`."""

    data: VerdictData = maths()  # type: ignore[assignment]  # other rows than those that are learnt
    """Responses with verdicts to learn from, and to validate on."""

    kto: Kto = maths(Kto())
    """The loss."""

    @model_validator(mode="after")
    def _prompts_meet_other_responses(self) -> Spec:
        if self.train.global_batch < 2:
            message = "with one row a step no prompt meets another's response, so the KL cannot be estimated"
            raise conflict(message, "train.global_batch", "use global_batch: 64")
        if not self.kto.desirable_weight and not self.kto.undesirable_weight:
            message = "with both weights 0 nothing would be learnt"
            raise conflict(message, "kto.desirable_weight", "use desirable_weight: 1")
        return self


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage: the model, and its reference in the same processes, asked about mismatched texts too."""
    own: dict[str, Any] = spec.kto.model_dump(mode="json")
    stage = preference_stage(spec, name, "kto", own, kind="verdicts", texts=1)
    return [with_reference(stage, spec.reference, passes=3, without=1)]
