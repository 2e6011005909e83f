"""What a critic does with what it is taught: passes over a step's lessons, an optimizer step a slice.

The critic of these processes and the one that serves others learn by this one function, so it does not
matter to the numbers where it lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from runtime.algorithms.ppo import critic_loss
from runtime.batch import Sample
from runtime.dealing import Table, deal
from runtime.engine import Engine
from runtime.judges import Lesson


def fit(
    engine: Engine,
    lessons: Sequence[Lesson],
    *,
    table: Table,
    global_batch: int,
    clip: float,
    rate: float,
    epochs: int = 1,
) -> dict[str, float]:
    """Learn from `lessons` in their order, `global_batch` at a time; the last slice may be smaller. Each of
    the `epochs` does the same: returns and old values stay.

    A slice's loss is the mean over all its tokens that count; a slice in which none counts teaches nothing.
    The metrics are means over the slices. Collective.
    """
    said: list[dict[str, float]] = []
    for start in [*range(0, len(lessons), global_batch)] * epochs:
        part = lessons[start : start + global_batch]
        counted = sum(float(np.sum(lesson.mask)) for lesson in part)
        if not counted:
            continue
        share = deal([learnable(lesson) for lesson in part], table)
        sums = engine.forward_backward(
            share.microbatches, partial(critic_loss, clip=clip, denominator=counted)
        )
        norm = engine.optim_step(rate)["grad_norm"]
        clipped = sums["value_clip_fraction"] / counted
        said.append({"critic_loss": sums["loss"], "critic_grad_norm": norm, "value_clip_fraction": clipped})
    names = ("critic_loss", "critic_grad_norm", "value_clip_fraction")
    found = {name: sum(one[name] for one in said) / max(len(said), 1) for name in names}
    return {**found, "critic_lr": rate, "critic_optimizer_steps": float(len(said))}


def learnable(lesson: Lesson) -> Sample:
    """The lesson as a row with all that the loss needs on each column."""
    extra = {"values": lesson.values, "returns": lesson.returns, "counts": lesson.mask}
    return replace(lesson.rollout.sample(), extra=extra)
