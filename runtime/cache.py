"""Keys and values of the tokens so far, and attention over them, for rows of any length.

One forward pass of generation is a line of tokens [n]: first one token for each row that is being
decoded, then whole prompts, one after another. No token is padding. Rows lie dense in the cache: slot i
of a batch is its row i, so that decoding reads the cache where it lies.

Shapes, Megatron's: `n` tokens of the line, `h` heads and `g` key-value groups of this rank, `d` head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.attention import Attention

_GRAIN = 64  # the cache grows by multiples of this many tokens


def _rounded(length: int) -> int:
    return -(-length // _GRAIN) * _GRAIN


@dataclass
class Line:
    """The tokens of one forward pass and where they belong."""

    tokens_n: Tensor  # int64
    positions_n: Tensor  # int64
    slots_n: Tensor  # int64
    first_slot: int
    decoded: int  # the first so many tokens are one each of the rows from `first_slot` on
    ends: list[int]  # where each prompt ends, counted from the end of the decoded tokens
    last: Tensor  # int64, the tokens whose successors are wanted: one per row, in order of slots
    longest: int  # tokens of the longest decoded row, its new one included
    mask: Tensor | None = None  # [decoded, 1, 1, longest] bool, what they see; None: all of it


def visible(positions: np.ndarray, longest: int, window: int) -> Tensor | None:
    """[rows, 1, 1, longest] bool: the keys that the newest token of each row sees; None: all."""
    columns = np.arange(longest)[None]
    seen = columns <= positions[:, None]
    if window:
        seen &= columns > positions[:, None] - window
    return None if seen.all() else torch.from_numpy(seen)[:, None, None]


class Cache:
    """Keys and values [slots, g, capacity, d] of each layer, for rows of at most `longest` tokens.

    Capacity grows by half, so that a step seldom copies, and never beyond `longest`: that is what the plan
    counts on, and most rows end before.
    """

    def __init__(
        self, layers: int, slots: int, groups: int, head: int, dtype: Any, device: Any, longest: int
    ) -> None:
        self.slots = slots
        self.capacity = 0
        self.ceiling = _rounded(longest)
        self._form = (layers, slots, groups, head)
        self._kind = {"dtype": dtype, "device": device}
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.line: Line | None = None  # of the pass that runs now

    def reserve(self, length: int) -> None:
        """Make room for rows of that many tokens; what is there stays, one tensor at a time."""
        if length <= self.capacity:
            return
        assert length <= self.ceiling, f"a row of {length} tokens where {self.ceiling} were said at most"
        layers, slots, groups, head = self._form
        capacity = min(_rounded(max(length, self.capacity * 3 // 2)), self.ceiling)
        for tensors in (self.keys, self.values):
            if not tensors:
                tensors += [torch.zeros(slots, groups, 0, head, **self._kind) for _ in range(layers)]
            for layer, old in enumerate(tensors):
                new = torch.zeros(slots, groups, capacity, head, **self._kind)
                new[:, :, : self.capacity] = old
                tensors[layer] = new
        self.capacity = capacity

    def move(self, sources: list[int], targets: list[int], length: int) -> None:
        """Copy rows of at most `length` tokens from slots to slots."""
        for tensor in (*self.keys, *self.values):
            tensor[targets, :, :length] = tensor[sources, :, :length]


class CachedAttention(Attention):
    """Causal attention of one layer over the cache, in the place of the layer's own."""

    def __init__(self, cache: Cache, layer: int, scale: float, window: int) -> None:
        torch.nn.Module.__init__(self)
        self.cache, self.layer, self.scale, self.window = cache, layer, scale, window

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *unused: Any, **unused_too: Any) -> Tensor:
        """query [n, 1, h, d], key and value [n, 1, g, d] give [n, 1, h * d]; the cache learns both."""
        line = self.cache.line
        assert line is not None
        keys, values = self.cache.keys[self.layer], self.cache.values[self.layer]
        query, key, value = query.squeeze(1), key.squeeze(1), value.squeeze(1)
        keys[line.slots_n, :, line.positions_n] = key
        values[line.slots_n, :, line.positions_n] = value
        outputs, b = [], line.decoded
        if b:
            rows = slice(line.first_slot, line.first_slot + b)
            outputs.append(self._decoded(query[:b], keys[rows], values[rows], line))
        if line.ends:
            outputs.append(self._packed(query[b:], key[b:], value[b:], line.ends))
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).unsqueeze(1)

    def _decoded(self, query: Tensor, keys: Tensor, values: Tensor, line: Line) -> Tensor:
        """query [b, h, d]: the heads of a group stand beside one another as queries: no copy of keys."""
        b, heads, head = query.shape
        groups = keys.size(1)
        out = F.scaled_dot_product_attention(
            query.view(b, groups, heads // groups, head),
            keys[:, :, : line.longest],
            values[:, :, : line.longest],
            attn_mask=line.mask,
            scale=self.scale,
        )
        return out.reshape(b, heads * head)
