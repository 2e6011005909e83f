"""The form of the tables of activations: one line per tensor that a layer keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from specc.plan import Layout
from specc.planner.recompute import Recompute

RESIDUAL, CUT, WHOLE, ROUTED = "residual", "cut", "whole", "routed"
POSITIONS, ONCE = "positions", "once"
"""How ranks share a tensor. RESIDUAL: between the products, divided by TP under sequence parallelism only.
CUT: divided by TP. WHOLE: the same on every TP rank. ROUTED: as RESIDUAL, but tokens sent to experts, of
which an unlucky rank has more. POSITIONS: whole, and per position however many rows there are. ONCE: whole,
and the same for any number of tokens."""


@dataclass(frozen=True)
class Kept:
    """One line: a tensor, its bytes per token of its region, how ranks share it, what makes it needless."""

    what: str
    bytes: float
    region: str = RESIDUAL
    modules: tuple[str, ...] = ()  # recomputing any of these drops it
    instead_of: str = ""  # kept only while this is recomputed, and lies before it


def remaining(table: Iterable[Kept], recompute: Recompute) -> list[Kept]:
    """The lines that are kept under a mode other than full."""
    return [
        line
        for line in table
        if not any(recompute.drops(module) for module in line.modules)
        and (not line.instead_of or recompute.drops(line.instead_of))
    ]


def bytes_per_rank(
    table: Iterable[Kept], layout: Layout, rows: float, positions: float, *, only: str = ""
) -> float:
    """Bytes of a table's lines on one rank, for so many rows of so many positions; `only` one region."""
    residual = 1 / layout.tp if layout.sequence_parallel else 1.0
    tokens = rows * positions
    of_region = {
        RESIDUAL: tokens * residual,
        ROUTED: tokens * residual,
        CUT: tokens / layout.tp,
        WHOLE: tokens,
        POSITIONS: positions,
        ONCE: 1.0,
    }
    return sum(line.bytes * of_region[line.region] for line in table if only in ("", line.region))
