"""Only the columns whose labels are learnt reach the vocabulary.

The last product of a language model, hidden states times the vocabulary, is the largest tensor of a step.
Prompts and padding have no label that counts, so their rows are left out of it: time and logits shrink by
the share of them, and no number that counts changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from torch import Tensor


def wanted(mask_BT: Tensor) -> Tensor | None:
    """Where the mask is not 0, as positions [n] in a flat [T * B], at least one; None: nearly everywhere."""
    found = mask_BT.transpose(0, 1).flatten().nonzero().squeeze(1)
    if len(found) > 0.9 * mask_BT.numel():  # picking rows is a copy of them too
        return None
    return found if len(found) else torch.zeros(1, dtype=torch.int64, device=mask_BT.device)


def picked(hidden: Tensor, wanted_n: Tensor, layer: Any) -> Tensor:
    """Hidden states [T (/ tp), B, h] of the wanted columns, [n, 1, h]; the same on all TP ranks."""
    if layer.sequence_parallel:
        # the layer adds the gradients of the ranks' own columns up, so here each keeps its part only
        hidden = gather_from_sequence_parallel_region(
            hidden, tensor_parallel_output_grad=False, group=layer.tp_group
        )
    return hidden.flatten(0, 1).index_select(0, wanted_n).unsqueeze(1)


@contextlib.contextmanager
def whole_lines(layer: Any) -> Iterator[None]:
    """Inside, a column-parallel layer takes whole lines where it otherwise takes a part of the sequence."""
    if not layer.sequence_parallel:
        yield
        return
    layer.sequence_parallel, layer.allreduce_dgrad = False, True
    try:
        yield
    finally:
        layer.sequence_parallel, layer.allreduce_dgrad = True, False


def counted(found: Tensor, mask_BT: Tensor) -> Tensor:
    """Numbers [B, T, ...], 0 where the mask is, whether columns were picked or not: who compares two passes
    over other microbatches must not meet a number here and nothing there.
    """
    blank_BT = mask_BT == 0
    return found.masked_fill(blank_BT.view(*blank_BT.shape, *[1] * (found.dim() - 2)), 0.0)


def put_back(found: Tensor, wanted_n: Tensor, size: torch.Size) -> Tensor:
    """Numbers [1, n, ...] of the wanted columns in [B, T, ...]; 0 elsewhere. `size` is (B, T)."""
    lines, columns = size
    flat = found.new_zeros((columns * lines, *found.shape[2:])).index_copy(0, wanted_n, found[0])
    return flat.unflatten(0, (columns, lines)).transpose(0, 1).contiguous()
