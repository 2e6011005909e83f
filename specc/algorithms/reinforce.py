"""REINFORCE with a baseline from the other responses to the same prompt (RLOO); no critic, nothing clipped.

What goes out is one stage of an actor, its reference, and a reward model unless a function scores. Roles,
groups and settings cross as PPO's do (`specc.algorithms.ppo`), with the section `reinforce` instead of
`ppo`. A step takes `rollouts` / `responses` prompts and passes once over their rollouts.

Defaults are the paper's, arXiv:2402.14740, but for the length of a response and the rollouts of a step.
"""

from __future__ import annotations

from typing import Literal

from specc.algorithms.grpo import Group, Roles
from specc.algorithms.ppo import online_stages
from specc.graph import Stage
from specc.spec.online import OnlineSpec
from specc.spec.section import Section, maths


class Kl(Section):
    """What it costs the actor to move away from the reference; taken from the reward of a whole response."""

    coefficient: float = maths(0.05, ge=0, le=10**3)
    """Weight of the KL divergence; 0 needs no reference."""

    estimator: Literal["k1", "k2", "k3", "absolute"] = maths("k1")
    """Of the log ratio d to the reference at a token: k1 = d (unbiased), k2 = d^2 / 2, k3 = e^-d - 1 + d,
    absolute = |d|."""


class Reinforce(Group):
    """One step: responses, their rewards above the baseline, and one pass over them."""

    responses: int = maths(4, ge=1, le=10**5)
    """Responses to each prompt; with one there is no baseline."""

    kl: Kl = maths(Kl())
    """What it costs to move away from the reference."""

    baseline: bool = maths(True)
    """Take the mean reward of a response's siblings out of its own."""


class Spec(OnlineSpec):
    """REINFORCE, with the responses to a prompt as each other's baseline."""

    algorithm: Literal["reinforce"] = maths()
    """`reinforce`."""

    roles: Roles = maths()
    """The models, where they run, and how the actor learns."""

    reinforce: Reinforce = maths(Reinforce())
    """Responses, and what is learnt of them."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage: the actor, and what of reward model and reference there is."""
    return online_stages(spec, name, {"kl_in": "reward", "epochs": 1})
