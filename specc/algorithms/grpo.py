"""Group relative policy optimisation: several responses to a prompt, each judged by its siblings; no critic.

What goes out is one stage of an actor, its reference, and a reward model unless a function scores. Roles,
groups and settings cross as PPO's do (`specc.algorithms.ppo`), with the section `grpo` instead of `ppo`. A
step takes `rollouts` / `responses` prompts.

Defaults are the paper's, arXiv:2402.03300, but for the length of a response and the rollouts of a step.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from specc.algorithms.ppo import online_stages
from specc.graph import Stage
from specc.spec.online import OnlineSpec
from specc.spec.roles import Actor, Reference, Scorer
from specc.spec.section import Section, maths
from specc.spec.units import conflict


class Kl(Section):
    """What it costs the actor to move away from the reference; a part of its loss."""

    coefficient: float = maths(0.04, ge=0, le=10**3)
    """Weight of the KL divergence; 0 needs no reference."""

    estimator: Literal["k1", "k2", "k3", "absolute"] = maths("k3")
    """Of the log ratio d to the reference at a token: k1 = d, k2 = d^2 / 2, k3 = e^-d - 1 + d, absolute =
    |d|; in a loss k2 and k3 have the right gradient."""


class Group(Section):
    """What every algorithm has that compares the responses to one prompt."""

    rollouts: int = maths(512, ge=1, le=10**7)
    """Responses of one step, to all of its prompts."""

    responses: int = maths(8, ge=1, le=10**5)
    """Responses to each prompt."""

    entropy: float = maths(0.0, ge=0, le=10**3)
    """Bonus for the entropy of the next token."""

    average: Literal["global", "micro_batch"] = maths("global")
    """What a loss is the mean over: all response tokens of the optimizer step, or first each micro-batch by
    itself, as older implementations do; then tokens of short responses weigh more."""

    truncated: Literal["mask", "keep"] = maths("keep")
    """What a response that was cut at `max_tokens` teaches: nothing, or as much as any other."""

    truncated_score: float | None = maths(None, ge=-(10**6), le=10**6)
    """Score of a response that was cut, instead of the reward's; left out, the reward's."""

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Group:
        if self.rollouts % self.responses:
            message = (
                f"rollouts {self.rollouts} are no multiple of the {self.responses} responses to a prompt"
            )
            near = max(1, round(self.rollouts / self.responses)) * self.responses
            raise conflict(message, "rollouts", f"use rollouts: {near}, or another number of responses")
        return self


class Grpo(Group):
    """One step: groups of responses, what each is worth beside its siblings, then passes over them."""

    epochs: int = maths(1, ge=1, le=1000)
    """Passes over the rollouts of a step."""

    kl: Kl = maths(Kl())
    """What it costs to move away from the reference."""

    clip: float = maths(0.2, gt=0, le=10)
    """Change of a token's probability, as a ratio, beyond which nothing more is gained."""

    divide: bool = maths(True)
    """Divide by the deviation of a group's scores; without it prompts that are nearly always or never solved
    weigh no more than others (arXiv:2503.20783)."""

    max_kl: float = maths(0.0, ge=0, le=10**3)
    """KL from the old to the new policy, per token, above which the rest of a step's passes is left out; 0
    for no limit."""

    @model_validator(mode="after")
    def _groups_say_something(self) -> Grpo:
        if self.responses < 2:
            message = "one response has no siblings to be compared with, so nothing would be learnt"
            raise conflict(message, "responses", "use responses: 8")
        return self


class Roles(Section):
    """The models; there is no critic."""

    actor: Actor = maths()
    """The model that learns to answer."""

    reward: Scorer = maths()
    """What scores an answer."""

    reference: Reference = maths(Reference())
    """The policy that the actor shall not move far away from."""


class Spec(OnlineSpec):
    """Group relative policy optimisation."""

    algorithm: Literal["grpo"] = maths()
    """`grpo`."""

    roles: Roles = maths()
    """The models, where they run, and how the actor learns."""

    grpo: Grpo = maths(Grpo())
    """Groups of responses, and what is learnt of them."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage: the actor, and what of reward model and reference there is."""
    return online_stages(spec, name, {"kl_in": "loss"})
