"""The learning rate of a step: a pure function, so that resuming needs no state.

Cosine annealing with warm-up and a constant part at the end, as the recipes write it: `warmup_steps`
up to `lr`, a half cosine down to `min_lr`, and `constant_steps` at `min_lr`. Three defects of the
usual implementation are left out: the first update never has rate 0; a constant part that leaves no
room to decay yields instead of dropping to `min_lr` right after the warm-up; `lr == min_lr` is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def learning_rate(step: int, max_steps: int, train: Mapping[str, Any]) -> float:
    """The rate of update `step` (from 0) out of `max_steps`.

    `train` holds `lr, min_lr, schedule (cosine | linear | constant), warmup_steps, constant_steps`.
    """
    peak, warmup = float(train["lr"]), int(train.get("warmup_steps") or 0)
    floor = min(float(train.get("min_lr") or 0.0), peak)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    shape = train.get("schedule") or "cosine"
    if shape == "constant":
        return peak
    progress = min((step - warmup) / decay_steps(max_steps, train), 1.0)
    left = 1.0 - progress if shape == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return floor + (peak - floor) * left


def decay_steps(max_steps: int, train: Mapping[str, Any]) -> int:
    """Steps between the end of the warm-up and the first one at `min_lr`; at least 1."""
    after_warmup = max_steps - int(train.get("warmup_steps") or 0)
    room = after_warmup - int(train.get("constant_steps") or 0)
    return max(room if room > 0 else after_warmup, 1)
