"""A layer's forward pass for a few tokens: Megatron's modules and weights, without what training needs.

With one token a row the arithmetic of a layer takes less time than Megatron's own steps between its parts,
so these are left out: recomputation, offloading, dropout, hooks for graphs, and a sine and cosine in every
layer. The sums are the same, in the same order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from torch import Tensor

from runtime import fused

Turn = Callable[[Tensor], Tensor]
"""Rotary positions put on heads [n, 1, heads, d]."""


def blocks(decoder: Any, hidden: Tensor, turn: Turn) -> Tensor:
    """Hidden states [n, 1, hidden] behind all layers of a chunk, and its last norm where it has one."""
    for layer in decoder.layers:
        attended = _attended(layer.self_attention, layer.input_layernorm(hidden), turn)
        hidden = _added(*attended, hidden)
        hidden = _added(*layer.mlp(layer.pre_mlp_layernorm(hidden)), hidden)
    return hidden if decoder.final_layernorm is None else decoder.final_layernorm(hidden)


def turn_of(angles: Tensor | None) -> Turn:
    """The turn by these angles [n, 1, 1, rotated part of a head]; none where positions are learned."""
    if angles is None:
        return lambda heads: heads
    cos, sin, size = angles.cos(), angles.sin(), angles.size(-1)

    def turn(heads: Tensor) -> Tensor:
        c, s = cos.to(heads.dtype), sin.to(heads.dtype)
        if size == heads.size(-1):
            return fused.rotated(heads, c, s)
        return torch.cat((fused.rotated(heads[..., :size], c, s), heads[..., size:]), dim=-1)

    return turn


def _attended(attention: Any, hidden: Tensor, turn: Turn) -> tuple[Tensor, Tensor | None]:
    query, key, value = attention.get_query_key_value_tensors(hidden)
    return attention.linear_proj(attention.core_attention(turn(query), turn(key), value))


def _added(change: Tensor, bias: Tensor | None, hidden: Tensor) -> Tensor:
    return hidden + (change if bias is None else change + bias)


def alone(module: Any, undo: contextlib.ExitStack) -> None:
    """Where no other rank has a part of a product: it, without Megatron's four autograd functions around it.

    For a token a row they take as long as the product. A bias is added behind it, as Megatron does: within
    the product bf16 would be rounded once and not twice.
    """
    layer: Any = module if isinstance(module, ColumnParallelLinear | RowParallelLinear) else None
    if layer is None or layer.tp_group.size() > 1:
        return

    def forward(x: Tensor, weight: Tensor | None = None, **unused: Any) -> tuple[Tensor, Tensor | None]:
        added, beside = (None, layer.bias) if layer.skip_bias_add else (layer.bias, None)
        product = F.linear(x, layer.weight if weight is None else weight)
        return product if added is None else product + added, beside

    undo.callback(delattr, layer, "forward")
    layer.forward = forward
