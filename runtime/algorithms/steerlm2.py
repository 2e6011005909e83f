"""SteerLM 2.0: a model of responses with given attributes, fitted to the optimum that two others define.

For a prompt x and attributes a there are n responses y_i, drawn from Q'(y|a,x), with three numbers each.
Their shares under the optimum P(y|a,x), which is in proportion to P(a|x,y) P(y|x), and under the model:

    w = softmax_i(log P(a|x,y_i) + log P(y_i|x) - log Q'(y_i|a,x))
    b = softmax_i(log Q(y_i|a,x) - log Q'(y_i|a,x))            of the model as it is, no gradient

    L = mean over prompts of  sum_i (w_i - b_i) nll_i / mean_i(tokens of y_i)

whose gradient is that of KL(w || b) but for the length in the denominator. Wang et al. 2024,
arXiv:2406.08673 (HelpSteer2), section 5; as in NeMo-Aligner. `distance` is KL(w || b).

The responses of a prompt may lie in different microbatches and on different ranks: log Q of all of them is
gathered first, and the shares are taken in fp64 on every rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from runtime.batch import Batch, Bin, Sample, data_hash, token_count, trained_tokens
from runtime.dealing import Deal, by_sample, deal, gathered
from runtime.tensors import masked_sum

if TYPE_CHECKING:
    from runtime.run import Run

TINY = 1e-8
"""What both shares get in the distance, so that a share of 0 has a logarithm."""


# ── the formulas: P prompts, N responses of each ─────────────────────────────────────────────────


def model_shares(logprobs_PN: Tensor, own_PN: Tensor) -> Tensor:
    """b: each response's share under the model, from log Q(y|a,x) of it and of the model that made them."""
    return torch.softmax(logprobs_PN - own_PN, dim=-1)


def distance(optimum_PN: Tensor, shares_PN: Tensor) -> Tensor:
    """KL(w || b) of each prompt [P]."""
    optimum_PN, shares_PN = optimum_PN + TINY, shares_PN + TINY
    return (optimum_PN * (optimum_PN / shares_PN).log()).sum(-1)


def token_weights(optimum_PN: Tensor, shares_PN: Tensor, tokens_PN: Tensor) -> Tensor:
    """What a token's -log q weighs in the loss of all prompts."""
    return (optimum_PN - shares_PN) / tokens_PN.mean(-1, keepdim=True) / len(optimum_PN)


def loss(logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """This microbatch's share of the loss of the whole step."""
    share = -masked_sum(logprobs_BT * batch.extra["weights"], batch.mask_BT)
    return share, {}


# ── the step ─────────────────────────────────────────────────────────────────────────────────────


def step(run: Run) -> dict[str, Any]:
    """One update on the next global batch."""
    with run.part("data"):
        bins = run.data.bins(run.step)
        samples = flat(bins)

    with run.part("logprobs"):
        weighed, said = shared_out(run, samples)

    with run.part("forward_backward"):
        sums = run.model.forward_backward(deal(weighed, run.table()).microbatches, loss)

    with run.part("optimizer"):
        rate = run.learning_rate()
        update = run.model.optim_step(rate)

    counts = {"tokens": token_count(bins), "trained_tokens": trained_tokens(bins)}
    return {"loss": sums["loss"], **said, **update, "lr": rate, **counts, "data_hash": data_hash(bins)}


def flat(bins: Sequence[Bin]) -> list[Sample]:
    """The samples of a batch in the order of its prompts; numbered anew, as a small set may come twice."""
    samples = [sample for line in bins for sample in line]
    return [replace(sample, id=number) for number, sample in enumerate(samples)]


def shared_out(run: Run, samples: Sequence[Sample]) -> tuple[list[Sample], dict[str, float]]:
    """The samples with the weight of each token, and the distance between optimum and model."""
    responses = run.data.samples.group
    share = deal(samples, run.table())
    logprobs = gathered(summed(run, share), run.model.parallel.groups.dp)
    optimum_PN, own_PN = (
        torch.tensor([sample.labels[i] for sample in samples], dtype=torch.float64).view(-1, responses)
        for i in (0, 1)
    )
    logprobs_PN = torch.tensor([float(logprobs[sample.id][0]) for sample in samples], dtype=torch.float64)
    shares_PN = model_shares(logprobs_PN.view(-1, responses), own_PN)
    lengths = [float(sample.trained_tokens) for sample in samples]
    tokens_PN = torch.tensor(lengths, dtype=torch.float64).view(-1, responses)
    weights = token_weights(optimum_PN, shares_PN, tokens_PN).view(-1).tolist()
    weighed = [
        replace(sample, extra={"weights": np.full(sample.columns, weight)})
        for sample, weight in zip(samples, weights, strict=True)
    ]
    return weighed, {"distance": float(distance(optimum_PN, shares_PN).mean())}


def summed(run: Run, share: Deal) -> dict[int, np.ndarray]:
    """log Q of each response of this rank, [1], by the sample's id."""
    outputs = run.model.forward(share.microbatches, "logprobs")
    columns = by_sample(outputs, share)
    masks = {sample.id: np.asarray(sample.mask[1:], bool) for sample in share.samples}
    return {id: np.asarray([row[masks[id]].astype(np.float64).sum()]) for id, row in columns.items()}


def evaluate(run: Run) -> dict[str, float]:
    """Loss and distance over all of the validation set; the distance chooses the best checkpoint."""
    assert run.validation is not None
    totals, prompts = {"loss": 0.0, "distance": 0.0}, 0
    for samples in _batches(run):
        weighed, said = shared_out(run, samples)
        count = len(samples) // run.validation.samples.group
        loss_of = partial(loss)
        totals["loss"] += run.model.evaluate(deal(weighed, run.table()).microbatches, loss_of)["loss"] * count
        totals["distance"] += said["distance"] * count
        prompts += count
        run.alive()
    return {f"validation_{name}": total / prompts for name, total in totals.items()}


BEST = ("validation_distance", True)
"""By which the best checkpoint is chosen: less of it is better."""


def _batches(run: Run) -> Iterator[list[Sample]]:
    assert run.validation is not None
    for bins in run.validation.batches():
        yield flat(bins)


def facts(run: Run, measured: Mapping[str, float]) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    return {"distance": measured["validation_distance"]} if measured else {}
