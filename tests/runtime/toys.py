"""Tiny models, roles and batches for the runtime's tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from runtime.batch import Batch, Sample, dealt
from specc.plan import Layout, Model, Role, Shape, Weights

SHAPE = Shape(
    family="llama",
    layers=4,
    hidden=64,
    ffn=128,
    heads=4,
    kv_groups=2,
    head_dim=16,
    vocab=250,
    max_positions=128,
    init_std=0.1,
)


def shape(**changes: Any) -> Shape:
    return dataclasses.replace(SHAPE, **changes)


def role(layout: Layout | None = None, shape: Shape = SHAPE, head: str = "language", **changes: Any) -> Role:
    layout = layout or Layout()
    fields: dict[str, Any] = {
        "name": "model",
        "program": "sft",
        "nodes": 1,
        "gpus": layout.world_size,
        "layout": layout,
        "micro_batch": 1,
        "global_batch": 8,
        "model": Model(name="toy", shape=shape, weights=Weights(), head=head),
        "precision": "fp32",
        "distributed_optimizer": False,
    }
    return Role(**(fields | changes))


def samples(count: int = 8, longest: int = 32, vocab: int = 250, seed: int = 0) -> list[Sample]:
    """Rows of different lengths; the first third of each is not trained."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(count):
        length = int(torch.randint(longest // 3, longest + 1, (), generator=generator)) + 1
        tokens = torch.randint(0, vocab, (length,), generator=generator).tolist()
        rows.append(Sample(i, tokens, [0] * (length // 3) + [1] * (length - length // 3)))
    return rows


def microbatches(role: Role, dp_rank: int, rows: list[Sample], packed: bool = False) -> list[Batch]:
    """One global batch dealt to a rank; packed: two samples a bin."""
    bins = [rows[i : i + 2] for i in range(0, len(rows), 2)] if packed else [[row] for row in rows]
    layout = role.layout
    return dealt(bins, dp_rank, layout.dp, role.micro_batch, multiple=2 * layout.tp, packed=packed)


def sft_loss(total: int) -> Any:
    """Negative log-likelihood of the trained labels over a fixed denominator."""

    def loss(logprobs_BT, batch):
        nll = -(logprobs_BT * batch.mask_BT).sum() / total
        return nll, {"tokens": batch.mask_BT.sum()}

    return loss


def sequence_loss(count: int) -> Any:
    """The mean over so many sequences of each one's mean negative log-likelihood; a line is a sequence."""

    def loss(logprobs_BT, batch):
        lengths_B = batch.mask_BT.sum(1)
        nll_B = -(logprobs_BT * batch.mask_BT).sum(1) / lengths_B.clamp_min(1)
        return nll_B.sum() / count, {"tokens": lengths_B.sum()}

    return loss


def trained(
    role: Role,
    steps: int,
    packed: bool = False,
    lr: float = 1e-3,
    rows: int = 8,
    repeat: bool = False,
    mean: str = "token",
):
    """Train on one global batch after another; losses, norms, and the gradients of step 1. The loss is a mean
    over all tokens, or one over sequences.
    """
    from runtime import batch, cpu, parallel
    from runtime.engine import Engine, OptimizerSettings

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    engine = Engine(role, here, OptimizerSettings())
    losses, norms, gradients = [], [], []
    for step in range(steps):
        data = samples(rows, seed=0 if repeat else step)
        total = batch.trained_tokens([data])
        loss = sft_loss(total) if mean == "token" else sequence_loss(rows)
        metrics = engine.forward_backward(microbatches(role, here.dp_rank, data, packed), loss)
        assert metrics["tokens"] == total
        if step == 0 and not role.distributed_optimizer:
            gradients = [(shard, gradient.clone()) for shard, gradient in engine.named_gradients()]
        norms.append(engine.optim_step(lr)["grad_norm"])
        losses.append(metrics["loss"])
    return losses, norms, gradients
