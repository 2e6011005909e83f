"""What the planner shall aim at where a spec leaves the number of nodes open."""

from __future__ import annotations

from typing import Literal

from specc.spec.section import Section, placement


class Planning(Section):
    """What makes one number of nodes better than another."""

    objective: Literal["fewest_nodes", "fastest", "cheapest", "earliest"] | None = placement(None)
    """Choose the fewest_nodes that fit (the default), the fastest step, the cheapest in GPU-hours, or the
    earliest end on at most max_nodes."""

    max_nodes: int | None = placement(None, ge=1, le=10**5)
    """Machines that may be taken at most; left out, what the cluster profile says."""
