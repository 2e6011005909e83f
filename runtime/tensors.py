"""Maths that the algorithms share, on tensors and nothing else.

Shape suffixes in the whole runtime: `_B` lines of a batch, `_T` columns (tokens), `_V` vocabulary,
`_G` samples of one group, `_P` prompts.
"""

from __future__ import annotations

from torch import Tensor


def masked_sum(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum of the values where the mask is 1, as a scalar in fp32 or better.

    Values where the mask is 0 do not matter, not even when they are not finite.
    """
    return values_BT.float().masked_fill(mask_BT == 0, 0.0).mul(mask_BT).sum()


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean of the values where the mask is 1; 0 when it is 1 nowhere."""
    return masked_sum(values_BT, mask_BT) / mask_BT.sum().clamp(min=1.0)
