"""Direct preference optimisation and its kin: a model learns from pairs of responses, near a reference.

Defaults are NeMo-Aligner's. Its losses `ipo`, `rpo_*` and `scale` are here too; their formulas stand in
`runtime/algorithms/dpo.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from specc.graph import Stage
from specc.preferences import preference_stage, with_reference
from specc.spec.preferences import ComparedData, ReferenceSpec, Responses
from specc.spec.section import maths
from specc.spec.units import conflict

REWARDED = ("rpo_sq", "rpo_fwd_kl", "rpo_bwd_kl", "scale")
"""Losses that look at the rewards of a row's responses."""


class Dpo(Responses):
    """The loss."""

    loss: Literal["dpo", "ipo", "rpo_sq", "rpo_fwd_kl", "rpo_bwd_kl", "scale"] = maths("dpo")
    """`dpo` and `ipo` learn which response is better; the `rpo_*` how much, from `chosen_reward` (left out,
    1) and `rejected_reward` (0) of a row; `scale` is dpo with pairs weighed by the difference of the two."""

    beta: float = maths(0.2, gt=0, le=10**3)
    """How much the policy may differ from the reference: less of it, further away."""

    eta: float = maths(1.0, ge=0, le=10**6)
    """Scale of the rows' rewards beside the policy's, in the `rpo_*` losses."""

    preference_weight: float = maths(1.0, ge=0, le=10**6)
    """Weight of the preference loss."""

    sft_weight: float = maths(0.0, ge=0, le=10**6)
    """Weight of the chosen response's negative log-likelihood, beside it."""

    average_log_probs: bool = maths(False)
    """Divide a response's log-probability by its tokens, so that longer ones do not weigh more."""

    sft_average_log_probs: bool = maths(False)
    """The same in the likelihood of the chosen response."""

    @model_validator(mode="after")
    def _learns_something(self) -> Dpo:
        if not self.preference_weight and not self.sft_weight:
            message = "with both weights 0 nothing would be learnt"
            raise conflict(message, "preference_weight", "use preference_weight: 1")
        if self.eta != 1.0 and not self.loss.startswith("rpo"):
            message = f"`eta` scales rewards, which the loss {self.loss} does not compare"
            raise conflict(message, "eta", "remove `eta`, or use loss: rpo_sq")
        return self


class Spec(ReferenceSpec):
    """Direct preference optimisation."""

    algorithm: Literal["dpo"] = maths()
    """`dpo`."""

    data: ComparedData = maths()  # type: ignore[assignment]  # other rows than those that are learnt
    """Pairs to learn from, and pairs to validate on."""

    dpo: Dpo = maths(Dpo())
    """The loss."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage: the model, and its reference in the same processes."""
    own: dict[str, Any] = spec.dpo.model_dump(mode="json")
    stage = preference_stage(spec, name, "dpo", own, kind="pairs", texts=2)
    return [with_reference(stage, spec.reference, passes=1)]
