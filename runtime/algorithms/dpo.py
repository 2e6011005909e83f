"""Direct preference optimisation (arXiv:2305.18290): from two responses to a prompt, without a reward model.

With the log-ratio to the reference r(y) = log pi(y | x) - log ref(y | x), summed over the response's tokens,
d = r(chosen) - r(rejected), and g the difference of the rewards that the rows give:

    dpo          -log sigmoid(beta d)
    ipo          (d - 1 / (2 beta))^2                                  arXiv:2310.12036
    rpo_sq       (beta d - eta g)^2                                    arXiv:2406.11704
    rpo_bwd_kl   KL(Bern sigmoid(eta g) || Bern sigmoid(beta d))
    rpo_fwd_kl   KL(Bern sigmoid(beta d) || Bern sigmoid(eta g))
    scale        -|g| log sigmoid(beta d)

    L = preference_weight * mean of that + sft_weight * mean of -log pi(chosen)

Means run over the pairs of the whole global batch, over all microbatches and ranks; in NeMo-Aligner over
those of a microbatch, and its `scale` is right for microbatches of one pair alone. With `average_log_probs` a
response's sum is divided by its tokens.

The rewards that are logged are beta r, as its guide says; its code leaves beta out. The response's columns
are p - 1 to n - 2, of a prompt of p tokens in n; where its mask is shifted by one, ours is not. `kl` is the
mean over the responses' tokens of e^-k - 1 + k with k = log pi - log ref: 0 until something was learnt.

Left out: labels that are wrong with some probability, and other divergences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.batch import Batch, Bin, data_hash
from runtime.problem import Problem
from runtime.reference import Asked, Reference, reference_of
from runtime.tensors import text_sums

if TYPE_CHECKING:
    from runtime.run import Run

Share = Callable[[Tensor, Batch], tuple[Tensor, dict[str, Tensor]]]
"""Of a loss: what a microbatch adds to it, and to what is logged."""

MEASURED_AT_ONCE = 16
"""Batches of the validation set for which the reference is asked in one go."""


# ── the formulas ─────────────────────────────────────────────────────────────────────────────────


def dpo(d_P: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta d) of each pair."""
    return -F.logsigmoid(beta * d_P)


def ipo(d_P: Tensor, beta: float) -> Tensor:
    """(d - 1 / (2 beta))^2: d goes to a finite value, and beta does not multiply it."""
    return (d_P - 1 / (2 * beta)).square()


def rpo_sq(d_P: Tensor, g_P: Tensor, beta: float, eta: float) -> Tensor:
    """(beta d - eta g)^2: rewards that differ by g shall do so in the policy."""
    return (beta * d_P - eta * g_P).square()


def rpo_bwd_kl(d_P: Tensor, g_P: Tensor, beta: float, eta: float) -> Tensor:
    """KL(Bern sigmoid(eta g) || Bern sigmoid(beta d))."""
    return bernoulli_kl(eta * g_P, beta * d_P)


def rpo_fwd_kl(d_P: Tensor, g_P: Tensor, beta: float, eta: float) -> Tensor:
    """KL(Bern sigmoid(beta d) || Bern sigmoid(eta g))."""
    return bernoulli_kl(beta * d_P, eta * g_P)


def scale(d_P: Tensor, g_P: Tensor, beta: float) -> Tensor:
    """-|g| log sigmoid(beta d): clear preferences weigh more."""
    return g_P.abs() * dpo(d_P, beta)


def bernoulli_kl(one: Tensor, other: Tensor) -> Tensor:
    """KL(Bern sigmoid(one) || Bern sigmoid(other)), of logits."""
    yes = F.logsigmoid(one).exp() * (F.logsigmoid(one) - F.logsigmoid(other))
    no = F.logsigmoid(-one).exp() * (F.logsigmoid(-one) - F.logsigmoid(-other))
    return yes + no


LOSSES = ("dpo", "ipo", "rpo_sq", "rpo_bwd_kl", "rpo_fwd_kl", "scale")


def preference_losses(d_P: Tensor, g_P: Tensor, name: str, beta: float, eta: float) -> Tensor:
    """The loss of that name of each pair."""
    if name == "dpo":
        return dpo(d_P, beta)
    if name == "ipo":
        return ipo(d_P, beta)
    if name == "scale":
        return scale(d_P, g_P, beta)
    formula = {"rpo_sq": rpo_sq, "rpo_bwd_kl": rpo_bwd_kl, "rpo_fwd_kl": rpo_fwd_kl}[name]
    return formula(d_P, g_P, beta, eta)


# ── the step ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Settings:
    """The section of the plan."""

    loss: str = "dpo"  # one of LOSSES
    beta: float = 0.2
    eta: float = 1.0
    preference_weight: float = 1.0
    sft_weight: float = 0.0
    average_log_probs: bool = False
    sft_average_log_probs: bool = False


def opening(run: Run) -> None:
    """Before anything is trained: the reference."""
    name = run.program_settings(Settings).loss
    if name not in LOSSES:
        known = " or ".join(LOSSES)
        raise Problem("R001", f"the plan's `dpo.loss` is `{name}`, expected {known}; compile the spec again")
    run.reference = reference_of(run)


def step(run: Run) -> dict[str, Any]:
    """One update on the next global batch."""
    settings = run.program_settings(Settings)
    with run.part("data"):
        bins = run.data.bins(run.step)
    with run.part("reference"):
        [microbatches] = run.reference.answered(run, [(run.data, bins)])

    with run.part("forward_backward"):
        share = partial(loss, settings=settings, denominator=pairs(bins))
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
    ratios_BT = logprobs_BT.double() - batch.extra["reference"].double()
    ratios_N, counts_N = _of_texts(ratios_BT, batch), _of_texts(torch.ones_like(ratios_BT), batch)
    logprobs_N = _of_texts(logprobs_BT, batch)
    r_N = ratios_N / counts_N if settings.average_log_probs else ratios_N
    d_P, g_P = _differences(r_N), _differences(rewards_of(batch, r_N))
    losses_P = preference_losses(d_P, g_P, settings.loss, settings.beta, settings.eta)
    nll_P = -(logprobs_N / counts_N if settings.sft_average_log_probs else logprobs_N)[0::2]
    total = settings.preference_weight * losses_P.sum() + settings.sft_weight * nll_P.sum()
    with torch.no_grad():
        moved = _of_texts(ratios_BT.neg().expm1() + ratios_BT, batch).sum()
        sums = {"preference_loss": losses_P.sum(), "sft_loss": nll_P.sum(), "moved": moved}
        sums |= compared(settings.beta * r_N, counts_N)
    return total / denominator, {name: value.detach() for name, value in sums.items()}


def compared(rewards_N: Tensor, counts_N: Tensor) -> dict[str, Tensor]:
    """What of rewards and lengths of pairs adds up over microbatches and ranks."""
    chosen_P, rejected_P = rewards_N[0::2], rewards_N[1::2]
    return {
        "pairs": rewards_N.new_tensor(float(len(chosen_P))),
        "right": (chosen_P > rejected_P).sum(),  # a tie is no preference
        "chosen": chosen_P.sum(),
        "rejected": rejected_P.sum(),
        "squares": rewards_N.square().sum(),
        "chosen_tokens": counts_N[0::2].sum(),
        "rejected_tokens": counts_N[1::2].sum(),
    }


def rewards_of(batch: Batch, like: Tensor) -> Tensor:
    """What the rows say each text is worth; nothing in a microbatch that only fills up."""
    return like.new_zeros(len(like)) if batch.labels_NL is None else batch.labels_NL[:, 0].to(like.dtype)


def _differences(of_texts_N: Tensor) -> Tensor:
    return of_texts_N[0::2] - of_texts_N[1::2]


def _of_texts(values_BT: Tensor, batch: Batch) -> Tensor:
    return text_sums(values_BT, batch.mask_BT, batch.segments)


# ── over the whole batch ─────────────────────────────────────────────────────────────────────────


def pairs(bins: Iterable[Bin]) -> int:
    """Pairs of the bins."""
    return sum(len(line) for line in bins) // 2


def tokens(bins: Iterable[Bin]) -> int:
    """Columns that are computed, without padding."""
    return sum(sample.columns for line in bins for sample in line)


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """What is logged of a whole batch, from its sums; `loss` is a mean already."""
    count = max(sums["pairs"], 1.0)
    found = {"loss": sums["loss"]}
    for name in ("preference_loss", "sft_loss"):
        found[name] = sums[name] / count
    found |= compared_means(sums)
    return found | {"kl": sums["moved"] / max(sums["chosen_tokens"] + sums["rejected_tokens"], 1.0)}


def compared_means(sums: Mapping[str, float]) -> dict[str, float]:
    """Means of what `compared` adds up; the deviation is that of all texts, n - 1 in the denominator."""
    count = max(sums["pairs"], 1.0)
    texts = 2 * count
    mean = (sums["chosen"] + sums["rejected"]) / texts
    spread = max(sums["squares"] - texts * mean * mean, 0.0) / max(texts - 1, 1)
    return {
        "acc": sums["right"] / count,
        "rewards_chosen_mean": sums["chosen"] / count,
        "rewards_rejected_mean": sums["rejected"] / count,
        "rewards_all_mean": mean,
        "rewards_all_std": math.sqrt(spread),
        "chosen_lengths": sums["chosen_tokens"] / count,
        "reject_lengths": sums["rejected_tokens"] / count,
    }


# ── validation ───────────────────────────────────────────────────────────────────────────────────


def evaluate(run: Run) -> dict[str, float]:
    """The same over all pairs of the validation set."""
    assert run.validation is not None
    settings = run.program_settings(Settings)
    share = partial(loss, settings=settings, denominator=1.0)
    totals = summed(run, answered(run, run.reference, run.validation, run.validation.batches()), share)
    found = means(totals | {"loss": totals["loss"] / max(totals["pairs"], 1.0)})
    return {f"validation_{name}": value for name, value in found.items()}


def answered(
    run: Run, reference: Reference, data: Asked, batches: Iterable[list[Bin]]
) -> Iterator[Sequence[Batch]]:
    """This rank's microbatches of each of a data set's batches; a reference is asked about some at a time."""
    asked = [(data, bins) for bins in batches]
    for first in range(0, len(asked), MEASURED_AT_ONCE):
        yield from reference.answered(run, asked[first : first + MEASURED_AT_ONCE])


def summed(run: Run, batches: Iterable[Sequence[Batch]], share: Share) -> dict[str, float]:
    """What `share` says of this rank's microbatches of each batch, added up over batches and ranks."""
    totals: dict[str, float] = {}
    for microbatches in batches:
        for name, value in run.model.evaluate(microbatches, share).items():
            totals[name] = totals.get(name, 0.0) + value
        run.alive()
    return totals
