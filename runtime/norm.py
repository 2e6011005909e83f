"""Norm layers for Megatron's local layers.

Torch's own norms cannot say that under sequence parallelism their gradient is a part of a sum;
these mark their parameters `sequence_parallel`, so that Megatron adds the parts up. The arithmetic
is fp32 whatever the parameters are.

With `layernorm_zero_centered_gamma` the weight is stored minus one (Gemma, Nemotron): a fresh
weight is zero, and the layer multiplies by `weight + 1`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer import TransformerConfig
from torch import Tensor

from runtime import fused


class Norm(torch.nn.Module):
    """RMSNorm or LayerNorm over the last dimension, as the config says."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **unused: Any) -> None:
        super().__init__()
        self.eps = eps
        self.hidden_size = hidden_size
        self.zero_centered = config.layernorm_zero_centered_gamma
        self.rms = config.normalization == "RMSNorm"
        fresh = torch.zeros if self.zero_centered else torch.ones
        self.weight = torch.nn.Parameter(fresh(hidden_size, dtype=config.params_dtype))
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        self.bias = None
        if not self.rms:
            self.bias = torch.nn.Parameter(torch.zeros(hidden_size, dtype=config.params_dtype))
            self.bias.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension; the result has the type of `x`."""
        weight = self.weight.float() + 1 if self.zero_centered else self.weight.float()
        if self.rms:
            normed = fused.rms_norm(x.float(), weight, self.eps)
        else:
            bias = None if self.bias is None else self.bias.float()
            normed = F.layer_norm(x.float(), (self.hidden_size,), weight, bias, self.eps)
        return normed.to(x.dtype)
