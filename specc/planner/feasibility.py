"""How likely a predicted peak runs out of memory: the share of the device that is allocated, what lies
outside of the allocator, and fragmentation.

In come bytes as `memory` predicts them and the device's usable GiB; out goes a probability, or the band it
comes from. Sources: fragmentation of 3 to 14 % above the allocated bytes with expandable segments (a run of
Llama-3-70B that allocated 58.8 GB of an 80 GB GPU failed in 30 to 60 % of its starts without them and never
with them, Megatron-Bridge's notes on memory); no run of 454 below 80 % of the device failed (2411.06465).
"""

from __future__ import annotations

from dataclasses import dataclass

from specc.plan import Layout

GIB = 1 << 30

CONTEXT = 0.8e9
"""CUDA context and the libraries' modules, bytes; 0.5 to 0.9 GiB are seen."""

COMMUNICATORS, COMMUNICATOR, COMMUNICATORS_MOST = 1.2e9, 0.35e9, 5.2e9
"""NCCL buffers, bytes: at the first communicator, for each further group, and at most."""

EXPANDABLE, FIXED = (0.86, 0.97), (0.72, 0.92)
"""Shares of the device between which a run goes from safe to lost, with expandable segments and without.
The total that is measured by them holds the allocated bytes and those outside of the allocator."""


@dataclass(frozen=True)
class Band:
    """Where on the way from safe to lost a peak lies; GiB."""

    total_gib: float
    capacity_gib: float
    safe_gib: float  # up to here nothing fails
    lost_gib: float  # from here on everything does
    expandable: bool

    @property
    def probability(self) -> float:
        """0 up to the safe end, 1 from the lost end on, and evenly between."""
        if self.capacity_gib <= 0:  # a CPU: not judged
            return 0.0
        way = (self.total_gib - self.safe_gib) / (self.lost_gib - self.safe_gib)
        return round(min(1.0, max(0.0, way)), 3)

    def __str__(self) -> str:
        how = "with" if self.expandable else "without"
        return (
            f"{self.total_gib:.1f} GiB of {self.capacity_gib:.1f}; {how} expandable segments safe up to "
            f"{self.safe_gib:.1f} and lost from {self.lost_gib:.1f}: {self.probability:.0%} likely to run out"
        )


def band(total_gib: float, capacity_gib: float, expandable: bool = True) -> Band:
    """The band of a device, and where in it a peak of `total_gib` lies."""
    safe, lost = EXPANDABLE if expandable else FIXED
    return Band(total_gib, capacity_gib, safe * capacity_gib, lost * capacity_gib, expandable)


def oom_probability(total_gib: float, capacity_gib: float, expandable: bool = True) -> float:
    """How likely a peak of `total_gib` runs out on a device of `capacity_gib`."""
    if capacity_gib <= 0:
        return 0.0
    safe, lost = EXPANDABLE if expandable else FIXED
    return round(min(1.0, max(0.0, (total_gib / capacity_gib - safe) / (lost - safe))), 3)


def outside_bytes(layout: Layout) -> float:
    """Bytes that the framework's allocator does not see: the CUDA context and NCCL's buffers."""
    groups = (layout.tp > 1) + 2 * (layout.pp > 1) + (layout.dp > 1) + 2 * (layout.cp > 1) + (layout.ep > 1)
    if not groups:
        return CONTEXT
    return CONTEXT + min(COMMUNICATORS + COMMUNICATOR * groups, COMMUNICATORS_MOST)
