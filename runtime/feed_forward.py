"""The feed-forward part of a dense local layer: Megatron's, with the gate's gradient written by hand."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from megatron.core.transformer.mlp import MLP
from torch import Tensor
from torch.nn import Module

from runtime import fused


class FeedForward(MLP):
    """Product, activation, product. What is not gated goes Megatron's way, step by step the same."""

    def forward(
        self, hidden_states: Tensor, per_token_scale: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """[s, b, hidden] -> [s, b, hidden], and the bias that is still to be added."""
        if not self.config.gated_linear_unit or per_token_scale is not None:
            return super().forward(hidden_states, per_token_scale, **kwargs)
        between, bias = self.linear_fc1(hidden_states)
        if bias is not None:
            between = between + bias
        kind = "swiglu" if self.config.activation_func is F.silu else "geglu"
        return self.linear_fc2(fused.gated(between, kind))


def put_ours_in(model: Module) -> None:
    """Let every plain feed-forward be ours: its parameters stay what they are.

    Megatron gives its process groups to the classes it knows by name only, so ours takes over afterwards.
    """
    for module in model.modules():
        if type(module) is MLP:
            module.__class__ = FeedForward
