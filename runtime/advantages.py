"""From scores to advantages: KL, shaped rewards, GAE, whitening, and baselines without a critic.

Pure functions of any floating dtype, on padded tensors: `_B` rollouts, `_T` columns. Column t belongs to
the label t + 1, and `mask_BT` is 1 on the response's columns, which are contiguous in every row.

Sources: GAE is arXiv:1506.02438, eq. 16; shaping by KL is arXiv:1909.08593, eq. 2; the estimators k1, k2 and
k3 are J. Schulman's note "Approximating KL divergence" (2020); the adaptive coefficient is 1909.08593, 2.2;
leave-one-out is RLOO, arXiv:2402.14740, eq. 7; group advantages are GRPO, arXiv:2402.03300, 4.1.2.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3", "absolute"]

LARGEST_LOG_RATIO = 20.0
"""k3 takes exp of the log ratio; beyond this, which no sound run reaches, it is held."""


def kl_estimate(logprobs_BT: Tensor, reference_BT: Tensor, estimator: Estimator) -> Tensor:
    """KL(policy || reference) per token, estimated from one sample: of d = log p - log q,

    k1 = d (unbiased, may be negative), k2 = d^2 / 2, k3 = exp(-d) - 1 + d (unbiased, never negative),
    absolute = |d| (biased; the tutorials' default).
    """
    difference = logprobs_BT - reference_BT
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    if estimator == "k3":
        return torch.expm1((-difference).clamp(max=LARGEST_LOG_RATIO)) + difference
    return difference.abs()


def shaped_rewards(scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, coefficient: float) -> Tensor:
    """-coefficient * KL on every response column, plus the score on the last one; 0 elsewhere.

    A row without response columns has no place for its score and gets none.
    """
    rewards_BT = (-coefficient * kl_BT).masked_fill(mask_BT == 0, 0.0)
    return rewards_BT + scores_B[:, None] * last_columns(mask_BT)


def last_columns(mask_BT: Tensor) -> Tensor:
    """1 on the last column of each row whose mask is 1, of the mask's dtype."""
    later = mask_BT.flip(-1).cumsum(-1).flip(-1)
    return ((mask_BT == 1) & (later == 1)).to(mask_BT.dtype)


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns [B, T], both 0 outside the mask.

        delta_t = r_t + discount V_{t+1} - V_t;   A_t = delta_t + discount lambda A_{t+1};   R_t = A_t + V_t

    The value after the last response column is 0: nothing is bootstrapped, ended or not.
    """
    rewards_BT = rewards_BT.masked_fill(mask_BT == 0, 0.0)
    values_BT = values_BT.masked_fill(mask_BT == 0, 0.0)
    following_BT = torch.nn.functional.pad(values_BT[:, 1:], (0, 1))
    deltas_BT = rewards_BT + discount * following_BT - values_BT
    advantages_BT = torch.zeros_like(deltas_BT)
    running_B = torch.zeros_like(deltas_BT[:, 0])
    for t in reversed(range(deltas_BT.size(1))):
        # outside the response delta is minus nothing, so only the mask keeps earlier columns at 0
        running_B = (deltas_BT[:, t] + discount * gae_lambda * running_B) * mask_BT[:, t]
        advantages_BT[:, t] = running_B
    return advantages_BT, advantages_BT + values_BT


def whitened(values_BT: Tensor, mask_BT: Tensor, keep_mean: bool = False) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-8) over all columns of the mask, 0 outside it.

    Mean and variance (divided by the count) are those of the whole batch, so pass all ranks' rollouts.
    With `keep_mean` the mean is put back, as rewards want it. A batch of one column becomes 0, not NaN.
    """
    count = mask_BT.sum().clamp(min=1)
    inside_BT = values_BT.masked_fill(mask_BT == 0, 0.0)
    mean = inside_BT.sum() / count
    centred_BT = (inside_BT - mean) * mask_BT
    white_BT = centred_BT / (centred_BT.square().sum() / count + 1e-8).sqrt()
    return white_BT + mean * mask_BT if keep_mean else white_BT


def adapted_coefficient(coefficient: float, kl: float, target: float, horizon: int, rollouts: int) -> float:
    """The next KL coefficient: raised where `kl` is above `target`, by 20 % of rollouts / horizon at most."""
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return coefficient * (1.0 + error * rollouts / horizon)


def leave_one_out(scores_PG: Tensor) -> Tensor:
    """Each score less the mean of the other scores of its group (RLOO); groups hold two or more."""
    group = scores_PG.size(1)
    return (scores_PG - scores_PG.mean(1, keepdim=True)) * group / (group - 1)


def group_advantages(scores_PG: Tensor, divide: bool = True) -> Tensor:
    """Each score less its group's mean, over the group's standard deviation (GRPO) unless not `divide`.

    The deviation is the sample's (G - 1), and 1e-6 is added; a group of equal scores becomes 0.
    """
    centred_PG = scores_PG - scores_PG.mean(1, keepdim=True)
    if not divide or scores_PG.size(1) < 2:
        return centred_PG
    return centred_PG / (scores_PG.std(1, keepdim=True) + 1e-6)
