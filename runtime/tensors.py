"""Maths that the algorithms share, on tensors and nothing else.

Shape suffixes in the whole runtime: `_B` lines of a batch, `_T` columns (tokens), `_V` vocabulary,
`_G` samples of one group, `_P` prompts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_sum(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum of the values where the mask is 1, as a scalar in fp32 or better.

    Values where the mask is 0 do not matter, not even when they are not finite.
    """
    return values_BT.float().masked_fill(mask_BT == 0, 0.0).mul(mask_BT).sum()


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean of the values where the mask is 1; 0 when it is 1 nowhere."""
    return masked_sum(values_BT, mask_BT) / mask_BT.sum().clamp(min=1.0)


def text_sums(values_BT: Tensor, mask_BT: Tensor, segments: Tensor | None) -> Tensor:
    """Sum of each text's values where the mask is 1 [N], in fp64.

    Texts come in the order of lines, within a packed line from left to right (`segments`: where each one
    begins, as in a batch). What has no column with mask 1 is padding and no text.
    """
    masked_BT = values_BT.double().masked_fill(mask_BT == 0, 0.0)
    if segments is None:
        return masked_BT.sum(1)[mask_BT.sum(1) > 0]
    lengths = (segments[1:] - segments[:-1]).tolist()
    pieces = zip(masked_BT[0].split(lengths), mask_BT[0].split(lengths), strict=True)
    sums = [piece.sum() for piece, mask in pieces if bool(mask.any())]
    return torch.stack(sums) if sums else masked_BT.sum(1)[:0]
