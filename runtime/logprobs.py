"""Log-probabilities of labels from logits whose vocabulary is cut over the tensor-parallel ranks.

The softmax runs over the true vocabulary: columns of the padding never count and get no gradient.
Arithmetic is fp32, a block of rows at a time, so no second copy of the logits is made; the gradient
takes the place of the logits, which nothing needs afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_BLOCK = 1 << 20  # elements in fp32 at a time: 4 MB, which a CPU's cache holds


def token_logprobs(logits: Tensor, labels: Tensor, vocab: int, group: dist.ProcessGroup | None) -> Tensor:
    """log p(label) in fp32, of the shape of `labels`.

    `logits` [..., V / tp] are this rank's columns, in fp32 or bf16; they are overwritten in the
    backward pass. `labels` [...] int64 count over the whole vocabulary of `vocab` entries. Every rank
    of `group` (None or one rank: nothing is cut) gets the same result.
    """
    return _TokenLogprobs.apply(logits, labels, vocab, group)  # type: ignore[no-any-return]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, vocab: int, group: Any) -> Tensor:
        rank, size = (group.rank(), group.size()) if group is not None else (0, 1)
        columns = logits.size(-1)
        first = rank * columns
        counted = min(max(vocab - first, 0), columns)
        rows = logits.detach().view(-1, columns)
        local = labels.reshape(-1) - first
        here = (local >= 0) & (local < counted)
        local = local.clamp(0, max(counted - 1, 0))

        log_sum = torch.full((rows.size(0),), -torch.inf, dtype=torch.float32, device=rows.device)
        if counted:
            for block in _blocks(rows):
                log_sum[block] = rows[block, :counted].float().logsumexp(-1)
        label_logit = rows.gather(1, local[:, None]).squeeze(1).float().masked_fill(~here, 0.0)
        if group is not None and size > 1:
            log_sum, label_logit = _over_ranks(log_sum, label_logit, group)

        ctx.save_for_backward(logits, log_sum, local, here)
        ctx.counted = counted
        return (label_logit - log_sum).view(labels.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        logits, log_sum, local, here = ctx.saved_tensors
        rows = logits.detach().view(-1, logits.size(-1))
        g = gradients[0].reshape(-1)
        counted = ctx.counted
        for block in _blocks(rows):
            grad = (rows[block, :counted].float() - log_sum[block, None]).exp_().mul_(-g[block, None])
            if counted:
                grad.scatter_add_(1, local[block, None], (g[block] * here[block])[:, None])
            rows[block, :counted] = grad
        rows[:, counted:] = 0
        return rows.view(logits.shape), None, None, None


def _over_ranks(log_sum: Tensor, label_logit: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """Combine what each rank found in its own columns."""
    largest = log_sum.clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    both = torch.stack([(log_sum - largest).exp(), label_logit])
    dist.all_reduce(both, group=group)
    return both[0].log() + largest, both[1]


def _blocks(rows: Tensor) -> Iterator[slice]:
    step = max(_BLOCK // max(rows.size(1), 1), 1)
    for start in range(0, rows.size(0), step):
        yield slice(start, start + step)
