"""Group relative policy optimisation (arXiv:2402.03300): several responses to a prompt, and what a response
is worth is how much better than its siblings it is. No critic.

    A_i = (score_i - mean of the group) / (standard deviation of the group + 1e-6)
    L   = mean_t max(-A ratio, -A clip(ratio)) + coefficient * k3(new || reference)

The KL stands in the loss; everything else is PPO's. `divide: false` leaves the deviation out, as
arXiv:2503.20783 does, since it favours prompts that are nearly always or nearly never solved. A group whose
scores are all equal teaches nothing and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from runtime.advantages import Estimator, group_advantages
from runtime.algorithms import ppo
from runtime.algorithms.ppo import BEST, Experience, evaluate
from runtime.dealing import padded
from runtime.judges import Answers
from runtime.rollouts import Rollout

if TYPE_CHECKING:
    from runtime.run import Run

__all__ = ["BEST", "Settings", "evaluate", "step"]


@dataclass(frozen=True)
class Settings(ppo.Settings):
    """The section `grpo` of the plan."""

    responses: int = 8  # to each prompt
    kl: float = 0.04
    kl_estimator: Estimator = "k3"
    kl_in: str = "loss"
    divide: bool = True
    truncated: str = "keep"


def step(run: Run) -> dict[str, Any]:
    """One step: a group of responses to each prompt, then the actor learns."""
    settings = run.program_settings(Settings)
    experience = ppo.experienced(run, settings, settings.kl, draw=run.step, judging=judged)
    with run.part("actor"):
        learnt = ppo.improved(run, settings, experience, settings.kl)
    run.show(ppo.rows_of(run, experience))
    scores_PG = experience.scores_N.view(-1, settings.responses)
    alike = float((scores_PG.max(1).values == scores_PG.min(1).values).double().mean())
    return {**learnt, **ppo.said_of(experience), "alike_groups": alike}


def judged(
    rollouts: list[Rollout],
    answers: Answers,
    old: Mapping[int, np.ndarray],
    reference: Mapping[int, np.ndarray],
    settings: Settings,
    coefficient: float,
) -> Experience:
    """The same advantage on every token of a response."""
    scores_N = torch.tensor([answers.scores[r.id] for r in rollouts], dtype=torch.float64)
    advantages_PG = group_advantages(scores_N.view(-1, settings.responses), settings.divide)
    return levelled(rollouts, answers, old, reference, settings, advantages_PG.reshape(-1))


def levelled(
    rollouts: list[Rollout],
    answers: Answers,
    old: Mapping[int, np.ndarray],
    reference: Mapping[int, np.ndarray],
    settings: ppo.Settings,
    advantages_N: Tensor,
) -> Experience:
    """An experience whose responses have one advantage each."""
    mask_NT = padded([[0] * (len(r.prompt) - 1) + [1] * len(r.response) for r in rollouts])
    width = mask_NT.size(1)
    old_NT = padded([old[r.id] for r in rollouts], width)
    reference_NT = padded([reference[r.id] for r in rollouts], width)
    ended_N1 = torch.tensor([[float(r.ended)] for r in rollouts], dtype=torch.float64)
    advantages_NT = advantages_N[:, None] * mask_NT
    counts_NT = mask_NT if settings.truncated == "keep" else mask_NT * ended_N1
    nothing = torch.zeros_like(mask_NT)
    return Experience(
        rollouts, answers, mask_NT, old_NT, reference_NT, advantages_NT, nothing, nothing, counts_NT
    )
