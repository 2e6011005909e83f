"""Decision transformer: the policy learns its answers together with their rewards, which stand in the prompt.

What goes out are the stages of `specc.rounds`, with `reward_prompt` in place of a selection: nothing is left
out. Other rows may be blended with the answers before they are scored, as the tutorial does with those of the
fine-tuning and of the comparisons. Paper: arXiv:2308.12050.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from specc import rounds
from specc.algorithms import reward_prompt
from specc.algorithms.mix import Part
from specc.graph import Stage
from specc.rounds import RoundData, RoundsSpec, Selector, unrolled
from specc.spec.making import agreeing_weights
from specc.spec.section import Many, maths
from specc.spec.units import conflict


class BlendedData(RoundData):
    """Prompts to answer, and other rows to learn."""

    others: Many[Part] = maths(())
    """Rows of `input` and `output` that are scored and learnt beside the answers."""

    @model_validator(mode="after")
    def _weights_of_others_agree(self) -> BlendedData:
        agreeing_weights(self.others, "others")
        return self


class DecisionTransformer(reward_prompt.RewardPrompt):
    """How a reward is written into a prompt, and what share the answers have."""

    weight: float | None = maths(None, gt=0, le=10**6)
    """Share of the answers among all rows, relative to the weights of `data.others`; left out in all, one
    follows the other."""


class Spec(RoundsSpec):
    """Decision transformer."""

    algorithm: Literal["decision_transformer"] = maths()
    """`decision_transformer`."""

    data: BlendedData = maths()  # type: ignore[assignment]  # the same and other rows
    """Prompts to answer, and other rows to learn."""

    decision_transformer: DecisionTransformer = maths(DecisionTransformer())
    """How a reward is written into a prompt, and what share the answers have."""

    @model_validator(mode="after")
    def _all_have_weights_or_none(self) -> Spec:
        own, others = self.decision_transformer.weight, self.data.others
        if own is not None and not others:
            message = "a `weight` of the answers is relative to other rows, and there are none"
            raise conflict(message, "decision_transformer.weight", "remove it, or give data.others")
        if others and (own is None) != (others[0].weight is None):
            which = "the answers" if own is None else "the other rows"
            key = "decision_transformer.weight" if own is None else "data.others"
            raise conflict(f"{which} have no weight beside those that have one", key, "give all one, or none")
        return self


def lower(spec: Spec, name: str) -> list[Stage]:
    """Four stages a round, or five where rows are blended."""
    own = spec.decision_transformer
    said = {key: getattr(own, key) for key in reward_prompt.RewardPrompt.model_fields}
    selector = Selector(
        reward_prompt.Spec,
        reward_prompt.RewardPrompt(**said),
        format="prompt_response",  # a conversation's own turns do not have the reward
        path="decision_transformer",
        others=spec.data.others,
        weight=own.weight,
    )
    return unrolled(spec, name, selector)


def smaller(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What a tiny twin has instead."""
    return rounds.smaller(stage)
