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

_BLOCK = 1 << 18  # elements in fp32 at a time: 1 MB, which a core's own cache holds


def token_logprobs(logits: Tensor, labels: Tensor, vocab: int, group: dist.ProcessGroup | None) -> Tensor:
    """log p(label) in fp32, of the shape of `labels`.

    `logits` [..., V / tp] are this rank's columns, in fp32 or bf16; they are overwritten in the
    backward pass. `labels` [...] int64 count over the whole vocabulary of `vocab` entries. Every rank
    of `group` (None or one rank: nothing is cut) gets the same result.
    """
    return _TokenLogprobs.apply(logits, labels, vocab, group, False)[0]  # type: ignore[no-any-return]


def token_logprobs_and_entropy(
    logits: Tensor, labels: Tensor, vocab: int, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """log p(label), and the entropy of the whole distribution in nats; both fp32, of the shape of `labels`.

    Arguments as of `token_logprobs`; gradients flow through both.
    """
    return _TokenLogprobs.apply(logits, labels, vocab, group, True)  # type: ignore[no-any-return]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, vocab: int, group: Any, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
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

        entropies = _entropies(rows[:, :counted], log_sum, group) if entropy else None
        ctx.save_for_backward(logits, log_sum, local, here, entropies)
        ctx.counted = counted
        logprobs = (label_logit - log_sum).view(labels.shape)
        return logprobs, None if entropies is None else entropies.view(labels.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        """d log p(label) / dz = 1[label] - p;  dH / dz = -p (log p + H)."""
        logits, log_sum, local, here, entropies = ctx.saved_tensors
        rows = logits.detach().view(-1, logits.size(-1))
        g = gradients[0].reshape(-1)
        h = g if entropies is None else gradients[1].reshape(-1)
        counted = ctx.counted
        for block in _blocks(rows):
            own = rows[block, :counted]
            log_p = own.float().sub_(log_sum[block, None])  # of fp32 logits: in their own place
            if entropies is None:
                grad = log_p.exp_().mul_(-g[block, None])
            else:
                surprise = (log_p + entropies[block, None]).mul_(h[block, None])
                grad = log_p.exp_().mul_(-g[block, None] - surprise)
            if counted:
                grad.scatter_add_(1, local[block, None], (g[block] * here[block])[:, None])
            if grad is not own:
                own.copy_(grad)
        rows[:, counted:] = 0
        return rows.view(logits.shape), None, None, None, None


def _entropies(rows: Tensor, log_sum: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """-sum p log p of each row, whose columns are cut over the ranks."""
    found = torch.zeros(rows.size(0), dtype=torch.float32, device=rows.device)
    if rows.size(1):
        for block in _blocks(rows):
            log_p = rows[block].float() - log_sum[block, None]
            found[block] = -(log_p.exp() * log_p).sum(-1)
    if group is not None and group.size() > 1:
        dist.all_reduce(found, group=group)
    return found


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
