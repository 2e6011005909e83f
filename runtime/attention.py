"""Core attention on torch's scaled-dot-product attention, in linear memory.

It plugs into Megatron's local layers in place of `DotProductAttention`. Grouped queries share their
keys without a copy; packed sequences run segment by segment; a sliding window runs block by block.
No mask of (sequence x sequence) is ever made.

Shapes, Megatron's: `s` sequence, `b` batch, `h` heads and `g` key-value groups of this rank, `d` head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer import TransformerConfig
from torch import Tensor


class Attention(torch.nn.Module):
    """Causal attention of one layer; the signature is that of Megatron's core attention."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: Any = None,
    ) -> None:
        super().__init__()
        if config.context_parallel_size > 1:
            raise NotImplementedError("context parallelism needs Transformer Engine's attention")
        self.scale = softmax_scale or 1 / math.sqrt(config.kv_channels or 1)
        self.window = config.window_size[0] + 1 if config.window_size else 0  # tokens seen, own one included

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: Any = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """Attend.

        query [s, b, h, d], key and value [s, b, g, d] give [s, b, h * d]. Packed (`thd`): the batch
        dimension is absent on both sides. Fewer queries than keys are the last ones: a KV cache.
        `attention_mask` (True: hidden) is for left-padded prompts only and comes on top.
        """
        if packed_seq_params is not None:
            return self._packed(query, key, value, segment_ends(packed_seq_params))
        q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        out_bhsd = self._attend(q, k, v, attention_mask)
        return out_bhsd.permute(2, 0, 1, 3).flatten(2)

    def _packed(self, query: Tensor, key: Tensor, value: Tensor, ends: Sequence[int]) -> Tensor:
        outputs, start = [], 0
        for end in ends:
            q, k, v = (t[start:end].transpose(0, 1).unsqueeze(0) for t in (query, key, value))
            outputs.append(self._attend(q, k, v, None).squeeze(0).transpose(0, 1))
            start = end
        return torch.cat(outputs).flatten(1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
        """Heads first: q [b, h, q, d], k and v [b, g, k, d]."""
        queries, keys = q.size(2), k.size(2)
        if hidden is not None:
            return self._sdpa(q, k, v, mask=~hidden & _visible(queries, keys, self.window, q.device))
        if self.window and keys > self.window:
            return self._windowed(q, k, v)
        if queries == keys:
            return self._sdpa(q, k, v, causal=True)
        if queries == 1:
            return self._sdpa(q, k, v)
        return self._sdpa(q, k, v, mask=_visible(queries, keys, 0, q.device))

    def _windowed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Blocks of `window` queries, each with the at most 2 * window - 1 keys it can see."""
        outputs, offset = [], k.size(2) - q.size(2)
        for start in range(0, q.size(2), self.window):
            end = min(start + self.window, q.size(2))
            first = max(0, offset + start - self.window + 1)
            block_k, block_v = k[:, :, first : offset + end], v[:, :, first : offset + end]
            mask = _visible(end - start, block_k.size(2), self.window, q.device)
            outputs.append(self._sdpa(q[:, :, start:end], block_k, block_v, mask=mask))
        return torch.cat(outputs, dim=2)

    def _sdpa(
        self, q: Tensor, k: Tensor, v: Tensor, causal: bool = False, mask: Tensor | None = None
    ) -> Tensor:
        grouped = q.size(1) != k.size(1)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=self.scale, enable_gqa=grouped
        )


def _visible(queries: int, keys: int, window: int, device: torch.device) -> Tensor:
    """[queries, keys] bool: which keys a query sees, when the queries are the last of the keys."""
    rows = torch.arange(keys - queries, keys, device=device)[:, None]
    columns = torch.arange(keys, device=device)[None, :]
    seen = columns <= rows
    return seen & (columns > rows - window) if window else seen


def remember_segments(packed: PackedSeqParams, bounds: Tensor) -> None:
    """Note where the segments end, from bounds on the host, so that no layer has to ask the device."""
    packed.segment_ends = [int(end) for end in bounds.tolist()[1:]]  # type: ignore[attr-defined]


def segment_ends(packed: PackedSeqParams) -> list[int]:
    """Where each segment of a packed line ends."""
    if not hasattr(packed, "segment_ends"):
        assert packed.cu_seqlens_q is not None
        remember_segments(packed, packed.cu_seqlens_q)
    return packed.segment_ends  # type: ignore[attr-defined]
