"""Supervised fine-tuning: next-token loss on the answers.

    L = - sum_t m_t log p(x_t | x_<t) / sum_t m_t

Both sums run over the whole global batch: all microbatches and all ranks. The usual implementation
averages the means of microbatches instead, which makes short answers weigh more and lets the gradient
depend on the size of a microbatch; we left that out on purpose.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from runtime.batch import Batch, data_hash, token_count, trained_tokens
from runtime.tensors import masked_sum

if TYPE_CHECKING:
    from runtime.run import Run


def step(run: Run) -> dict[str, Any]:
    """One update on the next global batch."""
    with run.part("data"):
        bins = run.data.bins(run.step)
        microbatches = run.dealt(bins)
        answers = trained_tokens(bins)

    with run.part("forward_backward"):
        sums = run.model.forward_backward(microbatches, partial(loss, denominator=answers))

    with run.part("optimizer"):
        rate = run.learning_rate()
        update = run.model.optim_step(rate)

    counts = {"tokens": token_count(bins), "trained_tokens": answers}
    return {**sums, **update, "lr": rate, **counts, "data_hash": data_hash(bins)}


def loss(logprobs_BT: Tensor, batch: Batch, *, denominator: int) -> tuple[Tensor, dict[str, Tensor]]:
    """This microbatch's share of the loss of the whole step; `denominator` counts all trained tokens."""
    share = -masked_sum(logprobs_BT, batch.mask_BT) / denominator
    return share, {"loss": share.detach()}


def evaluate(run: Run) -> dict[str, float]:
    """The same loss over all tokens of the validation set."""
    assert run.validation is not None
    nll, answers = 0.0, 0
    for bins in run.validation.batches():
        nll += run.model.evaluate(run.dealt(bins), partial(loss, denominator=1))["loss"]
        answers += trained_tokens(bins)
        run.alive()
    return {"validation_loss": nll / answers}
