"""Which number of nodes: the fewest that fit, or what is fastest or cheapest on up to so many.

At one number of nodes the fastest layout is the best by any of these, so the search over layouts is the same
for all; between numbers of nodes each bounds what the next one has to beat. Times are of one step: how many
steps there are does not depend on the layout. Of two equally good numbers of nodes the smaller is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from specc.planner import layouts
from specc.planner.bounds import Bounds
from specc.planner.hardware import Gpu
from specc.planner.layouts import NODES_MOST, Found, Search
from specc.planner.memory import Workload
from specc.planner.space import Pins, Space

OBJECTIVES = ("fewest_nodes", "fastest", "cheapest", "earliest")

REACH = 16
"""Where nothing bounds the nodes, up to so many times the fewest are looked at."""


def choose(
    work: Workload,
    gpu: Gpu,
    gpus: int,
    pins: Pins,
    objective: str = "fewest_nodes",
    most: int | None = None,
) -> Search | None:
    """The search on the number of nodes that is best by the objective; None when none up to `most` fits."""
    first = layouts.fewest_nodes(work, gpu, gpus, pins, most or NODES_MOST)
    if first is None or first.best is None or objective == "fewest_nodes":
        return first
    assert first.space is not None
    bounds = Bounds(first.space)
    last = most or min(NODES_MOST, REACH * first.nodes)
    better = _cheapest if objective == "cheapest" else _fastest
    best = better(bounds, first.best, first.nodes, last)
    return Search(best, first.space, best.case.nodes)


def _fastest(bounds: Bounds, first: Found, fewest: int, last: int) -> Found:
    """The fastest on `fewest` to `last` nodes: many nodes first, since they are seldom beaten by fewer."""
    best = first
    for nodes in range(last, fewest, -1):
        found = layouts.fastest(bounds, nodes, best.seconds)
        if found is not None and (found.seconds < best.seconds or best.case.nodes > nodes):
            best = found
    return first if first.seconds <= best.seconds else best


def _cheapest(bounds: Bounds, first: Found, fewest: int, last: int) -> Found:
    """The one of the least GPU-seconds a step."""
    best = first
    for nodes in range(fewest + 1, last + 1):
        within = best.gpu_seconds / (nodes * bounds.space.gpus)
        found = layouts.fastest(bounds, nodes, within)
        if found is not None and found.gpu_seconds < best.gpu_seconds:
            best = found
    return best


def front(work: Workload, gpu: Gpu, gpus: int, pins: Pins, most: int, reach: int = REACH) -> Iterator[Found]:
    """Of rising numbers of nodes the fastest that fits, where it is faster than on any fewer: every number
    up to `most`, and to `reach` times the fewest that fit.
    """
    bounds = Bounds(Space(work, gpu, gpus, pins))
    seconds, fewest = math.inf, 0
    for nodes in range(layouts.state_bound(work, gpu, gpus), most + 1):
        if fewest and nodes > reach * fewest:
            return
        found = layouts.fastest(bounds, nodes, seconds)
        if found is not None and found.seconds < seconds:
            seconds, fewest = found.seconds, fewest or nodes
            yield found
