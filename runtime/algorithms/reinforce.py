"""REINFORCE with a baseline from the other responses to the same prompt (RLOO, arXiv:2402.14740).

    A_i = r_i - mean of the other r_j of the group,   r = score - coefficient * sum_t KL_t
    L   = - mean_t A log p

The KL is part of the reward of the whole response, which is the unit of action. One pass over the
rollouts: nothing is clipped, since nothing is old. `baseline: false` leaves the baseline out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from runtime.advantages import kl_estimate, leave_one_out
from runtime.algorithms import ppo
from runtime.algorithms.grpo import levelled
from runtime.algorithms.ppo import BEST, Experience, evaluate
from runtime.batch import Batch
from runtime.dealing import padded
from runtime.judges import Answers
from runtime.rollouts import Rollout
from runtime.tensors import masked_sum

if TYPE_CHECKING:
    from runtime.run import Run

__all__ = ["BEST", "Settings", "evaluate", "step"]


@dataclass(frozen=True)
class Settings(ppo.Settings):
    """The section `reinforce` of the plan."""

    responses: int = 4  # to each prompt
    baseline: bool = True
    truncated: str = "keep"


def step(run: Run) -> dict[str, Any]:
    """One step: responses, their rewards above the baseline, and the gradient of their log-probability."""
    settings = run.program_settings(Settings)
    experience = ppo.experienced(run, settings, settings.kl, draw=run.step, judging=judged)
    with run.part("actor"):
        learnt = ppo.improved(run, settings, experience, settings.kl, of=loss)
    run.show(ppo.rows_of(run, experience))
    return {**learnt, **ppo.said_of(experience)}


def judged(
    rollouts: list[Rollout],
    answers: Answers,
    old: Mapping[int, np.ndarray],
    reference: Mapping[int, np.ndarray],
    settings: Settings,
    coefficient: float,
) -> Experience:
    """Rewards of whole responses less their baseline."""
    first = [len(r.prompt) - 1 for r in rollouts]
    old_NT = padded([old[r.id][start:] for r, start in zip(rollouts, first, strict=True)])
    reference_NT = padded([reference[r.id][start:] for r, start in zip(rollouts, first, strict=True)])
    kl_N = kl_estimate(old_NT, reference_NT, settings.kl_estimator).sum(1)
    scores_N = torch.tensor([answers.scores[r.id] for r in rollouts], dtype=torch.float64)
    rewards_N = scores_N - coefficient * kl_N
    if settings.baseline and settings.responses > 1:
        rewards_N = leave_one_out(rewards_N.view(-1, settings.responses)).reshape(-1)
    return levelled(rollouts, answers, old, reference, settings, rewards_N)


def loss(
    output: Tensor,
    batch: Batch,
    *,
    settings: Settings,
    coefficient: float,
    denominator: float,
    means_of: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """This microbatch's share of -mean A log p."""
    logprobs_BT = output[..., 0] if output.dim() == 3 else output
    counts_BT = batch.extra["counts"]
    losses_BT = -batch.extra["advantages"] * logprobs_BT
    if output.dim() == 3:
        losses_BT = losses_BT - settings.entropy * output[..., 1]
    if means_of:
        denominator = max(float(counts_BT.sum()), 1.0) * means_of
    change_BT = (logprobs_BT - batch.extra["old"]).masked_fill(counts_BT == 0, 0.0)
    named = {"policy_kl": -masked_sum(change_BT, counts_BT)}
    if output.dim() == 3:
        named["entropy"] = masked_sum(output[..., 1], counts_BT)
    return masked_sum(losses_BT, counts_BT) / denominator, {k: v.detach() for k, v in named.items()}
