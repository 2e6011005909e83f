"""Odds ratio preference optimisation (arXiv:2403.07691): fine-tuning and preference in one, no reference.

With p(y) the mean log-probability of a response's tokens and odds(y) = e^p / (1 - e^p), equations 6 and 7:

    L = mean of -p(chosen)  +  weight * mean of -log sigmoid(log odds(chosen) - log odds(rejected))

Both means run over the pairs of the whole global batch. The rewards that are logged are weight * p.

Left out: learning the prompt too, which the authors' code does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.algorithms.dpo import compared, compared_means, pairs, summed, tokens
from runtime.batch import Batch, data_hash
from runtime.tensors import text_sums

if TYPE_CHECKING:
    from runtime.run import Run


@dataclass(frozen=True)
class Settings:
    """The section of the plan."""

    weight: float = 0.1


def odds_ratio(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """-log sigmoid of the difference of two responses' log odds, from their mean log-probabilities."""
    return -F.logsigmoid(log_odds(chosen_P) - log_odds(rejected_P))


def log_odds(p: Tensor) -> Tensor:
    """p - log(1 - e^p), exact also where e^p is nearly 0 or 1."""
    p = p.clamp(max=-torch.finfo(p.dtype).eps)
    return p - torch.log(-torch.expm1(p))


def step(run: Run) -> dict[str, Any]:
    """One update on the next global batch."""
    with run.part("data"):
        bins = run.data.bins(run.step)
        microbatches = run.dealt(bins)

    with run.part("forward_backward"):
        share = partial(loss, settings=run.program_settings(Settings), denominator=pairs(bins))
        sums = run.model.forward_backward(microbatches, share)

    with run.part("optimizer"):
        rate = run.learning_rate()
        update = run.model.optim_step(rate)

    counts = {"tokens": tokens(bins), "pairs": pairs(bins)}
    return {**means(sums), **update, "lr": rate, **counts, "data_hash": data_hash(bins)}


def loss(
    logprobs_BT: Tensor, batch: Batch, *, settings: Settings, denominator: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """This microbatch's share of the step's loss, and sums of what is logged; `denominator` counts the pairs
    of the whole step. A pair's two texts follow one another, the chosen one first.
    """
    counts_N = text_sums(torch.ones_like(logprobs_BT), batch.mask_BT, batch.segments)
    p_N = text_sums(logprobs_BT, batch.mask_BT, batch.segments) / counts_N
    nll, preference = -p_N[0::2].sum(), odds_ratio(p_N[0::2], p_N[1::2]).sum()
    sums = {"preference_loss": preference, "sft_loss": nll, **compared(settings.weight * p_N, counts_N)}
    return (nll + settings.weight * preference) / denominator, {k: v.detach() for k, v in sums.items()}


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """What is logged of a whole batch, from its sums; `loss` is a mean already."""
    count = max(sums["pairs"], 1.0)
    parts = {name: sums[name] / count for name in ("preference_loss", "sft_loss")}
    return {"loss": sums["loss"], **parts, **compared_means(sums)}


def evaluate(run: Run) -> dict[str, float]:
    """The same over all pairs of the validation set."""
    assert run.validation is not None
    share = partial(loss, settings=run.program_settings(Settings), denominator=1.0)
    totals = summed(run, map(run.dealt, run.validation.batches()), share)
    found = means(totals | {"loss": totals["loss"] / max(totals["pairs"], 1.0)})
    return {f"validation_{name}": value for name, value in found.items()}
