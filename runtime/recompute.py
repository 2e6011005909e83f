"""What the backward pass computes again instead of keeping, as fields of Megatron's config.

Without Transformer Engine Megatron-core 0.16.1 cannot recompute a norm: it asks Transformer Engine about fp8
under names that are not there then (`CheckpointWithoutOutput` takes its default, no fp8, for fp8). Layers
that are not Transformer Engine's have no fp8, so the names get the answers that say so.
"""

from __future__ import annotations

import contextlib
from typing import Any

from megatron.core.tensor_parallel import random as checkpointing

from specc.plan import Role


class _NoFp8:
    """Transformer Engine's answer about fp8 when there is none."""

    @staticmethod
    def is_fp8_enabled() -> bool:
        return False


def fields(role: Role) -> dict[str, Any]:
    """The fields of Megatron's config that say what is computed again."""
    if role.recompute == "full":
        return {
            "recompute_granularity": "full",
            "recompute_method": "block" if role.recompute_layers else "uniform",
            "recompute_num_layers": role.recompute_layers or 1,
        }
    if role.recompute == "selective":
        if not checkpointing.HAVE_TE:
            _say_that_there_is_no_fp8()
        modules = list(role.recompute_modules) or ["core_attn"]
        return {"recompute_granularity": "selective", "recompute_modules": modules}
    return {}


def _say_that_there_is_no_fp8() -> None:
    names: Any = checkpointing
    names.FP8GlobalStateManager = _NoFp8
    names.activation_recompute_forward = names.fp8_autocast = lambda **unused: contextlib.nullcontext()
