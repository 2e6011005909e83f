"""A model's chunks while they generate: one line of tokens in, hidden states or logits out.

Megatron's own modules run, on the weights that train; attention is replaced by one over a cache, and
sequence parallelism is switched off, as a line has as many tokens as there are rows. Nothing is copied
and everything is put back at the end.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from runtime import lean
from runtime.cache import Cache, CachedAttention, Line
from runtime.engine import Engine
from runtime.folding import Whole


class Decoder:
    """The chunks of this rank with a cache for `slots` rows of at most `longest` tokens."""

    def __init__(self, engine: Engine | Whole, slots: int, longest: int) -> None:
        self.chunks = engine.chunks
        self.config = engine.config
        self.shape = engine.role.model.shape
        self.device = engine.parallel.device
        self.window = self.shape.sliding_window
        self.lean = engine.role.implementation == "local"
        attentions = [layer.self_attention for chunk in self.chunks for layer in _layers(chunk)]
        groups = attentions[0].num_query_groups_per_partition if attentions else 1
        head, dtype = self.shape.head_dim, self.config.params_dtype
        self.cache = Cache(len(attentions), slots, groups, head, dtype, self.device, longest)

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """The chunks in the state in which they generate; as they were afterwards."""
        with contextlib.ExitStack() as undo:
            undo.enter_context(torch.no_grad())
            layer_number = 0
            for chunk in self.chunks:
                undo.callback(chunk.train, chunk.training)
                chunk.eval()
                for module in chunk.modules():
                    _without_sequence_parallelism(module, undo)
                    lean.alone(module, undo)
                for layer in _layers(chunk):
                    _replace(undo, layer.self_attention, "core_attention", self._attention(layer_number))
                    layer_number += 1
            yield

    def hidden_size(self, tokens: int) -> tuple[int, int, int]:
        """Shape of the hidden states between stages for a line of so many tokens."""
        return (tokens, 1, self.shape.hidden)

    def run(self, v: int, line: Line, hidden: Tensor | None) -> Tensor:
        """Chunk v over the line: hidden states [n, 1, hidden]; of the last chunk those that `logits` is asked
        about, [N, 1, hidden].

        `hidden` comes from the chunk before; None for the first.
        """
        chunk: Any = self.chunks[v]
        self.cache.line = line
        if chunk.pre_process:
            hidden = chunk.embedding(line.tokens_n[None], line.positions_n[None])
        assert hidden is not None
        angles = _rotary(chunk, line.positions_n)
        if self.lean:
            found = lean.blocks(chunk.decoder, hidden, lean.turn_of(angles))
        else:
            chunk.decoder.set_input_tensor(hidden)
            found = chunk.decoder(hidden_states=hidden, attention_mask=None, rotary_pos_emb=angles)
        return found[line.last] if chunk.post_process else found

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, V] fp32 of some last hidden states [n, 1, hidden]. Collective over tensor-parallel ranks."""
        chunk: Any = self.chunks[-1]
        weight = None
        if chunk.share_embeddings_and_output_weights:
            weight = chunk.shared_embedding_or_output_weight()
        logits, _ = chunk.output_layer(hidden, weight=weight, runtime_gather_output=True)
        # the padding of the vocabulary is cut off here, so it is never sampled and never counts
        return logits.squeeze(1)[:, : self.shape.vocab].float()

    def _attention(self, layer: int) -> CachedAttention:
        scale = 1 / math.sqrt(self.shape.head_dim)
        return CachedAttention(self.cache, layer, scale, self.window).eval()


def _layers(chunk: Any) -> list[Any]:
    return list(chunk.decoder.layers)


def _rotary(chunk: Any, positions_n: Tensor) -> Tensor | None:
    """Angles [n, 1, 1, rotated part of a head] of each token's own position."""
    if chunk.position_embedding_type != "rope":
        return None
    frequencies = chunk.rotary_pos_emb.inv_freq.to(positions_n.device)
    angles = positions_n.float()[:, None] * frequencies
    return torch.cat((angles, angles), dim=-1)[:, None, None]


def _replace(undo: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _without_sequence_parallelism(module: Any, undo: contextlib.ExitStack) -> None:
    for owner in (module, getattr(module, "config", None)):
        for name in ("sequence_parallel", "reduce_scatter_embeddings"):
            if getattr(owner, name, None) is True:
                _replace(undo, owner, name, False)
