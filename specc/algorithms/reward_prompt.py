"""The reward of a response, written into its prompt: what a decision transformer learns.

Asked with a high reward, the model that learnt such rows answers as it did where the reward was high. What
goes out is one stage of a clerk. Settings of the job:
    reward_prompt  template   the new `input`, with {input} and {reward}
                   decimals   of the reward
Data: `rows` with `input` and `reward`. Rows: all of them, in order, each with its `input` replaced.
Paper: arXiv:2308.12050.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from specc.graph import Stage
from specc.makers import clerk_stage
from specc.spec.data import FIELD
from specc.spec.making import ClerkSpec
from specc.spec.section import Section, maths
from specc.spec.units import conflict


class RewardPrompt(Section):
    """How a reward is written into a prompt."""

    template: str = maths("{input} <rm_score>: {reward} ")
    """The new prompt, with `{input}` for the old one and `{reward}` for the reward."""

    decimals: int = maths(1, ge=0, le=12)
    """Digits of the reward behind the point."""

    @model_validator(mode="after")
    def _template_names_both(self) -> RewardPrompt:
        found = FIELD.findall(self.template)
        for name in ("reward", "input"):
            if name not in found:
                message = f"the template does not say where the {name} goes"
                raise conflict(message, "template", f"put {{{name}}} into it")
        return self


class Spec(ClerkSpec):
    """The reward of a response, written into its prompt."""

    algorithm: Literal["reward_prompt"] = maths()
    """`reward_prompt`."""

    reward_prompt: RewardPrompt = maths(RewardPrompt())
    """How a reward is written into a prompt."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage of a clerk."""
    return [clerk_stage(spec, name, spec.reward_prompt.model_dump(mode="json"))]
