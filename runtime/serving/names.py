"""What can be asked of a group that serves, by name and tensor.

    critic_infer   tokens INT64 [B, S], sequence_lengths INT64 [B, 1]; or sentences BYTES [B, 1] in UTF-8,
                   which the server turns into tokens
                   -> values FP32 [B, S], V after each token, 0 behind a row's end
                      rewards FP32 [B, 1], where the reward model lives here too
    reward_model   the same -> rewards FP32 [B, 1]; attributes FP32 [B, k], where the head has several
    critic_train   tokens, and returns, prev_values, mask FP32 [N, S - 1]: column t is the value after token t
                   -> loss_mean FP32 [1], and grad_norm, value_clip_fraction, optimizer_steps, lr
    critic_save    step INT64 [1] -> status INT64 [1], 0 when it is on the disk

Standard library and numpy only, so that a server lives before its models' libraries are imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from runtime.serving.app import Served, Tensor

INFER, TRAIN, SAVE, REWARD = "critic_infer", "critic_train", "critic_save", "reward_model"

TOKENS, LENGTHS = Tensor("tokens", "INT64", (-1, -1)), Tensor("sequence_lengths", "INT64", (-1, 1))
ROWS = (
    dataclasses.replace(TOKENS, optional=True),
    dataclasses.replace(LENGTHS, optional=True),
    Tensor("sentences", "BYTES", (-1, 1), optional=True),  # instead of both
)
VALUES, REWARDS = Tensor("values", "FP32", (-1, -1)), Tensor("rewards", "FP32", (-1, 1))
ATTRIBUTES = Tensor("attributes", "FP32", (-1, -1))
LESSONS = (
    TOKENS,
    *(Tensor(name, "FP32", (-1, -1)) for name in ("returns", "prev_values", "mask")),
    dataclasses.replace(LENGTHS, optional=True),  # else a row ends where its mask does
    Tensor("schedule", "INT64", (2,), optional=True),  # the step that this belongs to, and of how many
)
LEARNT = (
    *(Tensor(name, "FP32", (1,)) for name in ("loss_mean", "grad_norm", "value_clip_fraction", "lr")),
    Tensor("optimizer_steps", "INT64", (1,)),
)
STEP, STATUS = Tensor("step", "INT64", (1,)), Tensor("status", "INT64", (1,))


def served_of(roles: Sequence[str], attributes: int = 0) -> tuple[Served, ...]:
    """The names that a group of these roles answers to; `attributes` of the reward model's head."""
    found: list[Served] = []
    if "critic" in roles:
        outputs = (VALUES, REWARDS) if "reward" in roles else (VALUES,)
        found += [Served(INFER, ROWS, outputs), Served(TRAIN, LESSONS, LEARNT)]
        found.append(Served(SAVE, (STEP,), (STATUS,)))
    if "reward" in roles:
        found.append(Served(REWARD, ROWS, (REWARDS, ATTRIBUTES) if attributes else (REWARDS,)))
    return tuple(found)
