"""What no layout can undercut: cheap lower bounds of a step's seconds and of a GPU's bytes.

The search looks at choices by their bound and stops where the bound is worse than what it holds, so a wrong
bound would make it wrong. They follow from how a step and a peak are made up, whatever the constants:

  seconds >= c / p x (m + (p - 1) / v) + r     c: a micro-batch through the whole model, uncut
                                               r: what a step takes beside its micro-batches
  bytes   >= state of layers / p               the fullest stage holds no less than the average one

with m micro-batches and p stages of v pieces. c is the time of many more micro-batches beside that of many,
so that what can hide behind computation is hidden; per row it is least of the largest micro-batch. r is what
such micro-batches leave of one real step (of the least v, whose stages may be uneven and which sends: both
only make r smaller). Tests hold all of it to the real predictions.
"""

from __future__ import annotations

import dataclasses
import math

from specc.plan import Layout
from specc.planner.cost import step_seconds
from specc.planner.feasibility import outside_bytes
from specc.planner.memory import Workload, model_state
from specc.planner.shapes import StageParameters, stage_parameters
from specc.planner.space import Cut, Space

MANY = 64
"""Micro-batches beside which a further one costs nothing but its own computation."""

SLACK = 1 - 1e-9
"""Of a bound: sums in another order differ in their last digits."""


class Bounds:
    """Bounds of the choices of one space, kept for all numbers of nodes."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._through: dict[tuple[int, ...], float] = {}
        self._bytes: dict[Cut, float] = {}
        self._works: dict[int, Workload] = {}  # by global batch
        self._fastest = space.modes[0]
        self._held: dict[tuple[int, ...], StageParameters] = {}
        self.hopeless: dict[Cut, bool] = {}  # by cut without its copies; the search finds it out
        # what ranks layouts on a CPU is no time; and of many responses at once the longest is longer
        self._unbounded = space.gpu.name == "cpu" or space.work.only_generates

    def seconds(self, cut: Cut, micro_batch: int, pieces: int, rest: float = 0.0) -> float:
        """No layout of the cut with so many pieces or fewer takes less time for a step. `rest` is r where
        it is known.
        """
        if self._unbounded:
            return 0.0
        through = self.through(cut, micro_batch) / cut.pp
        return SLACK * (through * self._turns(cut, micro_batch, pieces) + rest)

    def least_seconds(self, cut: Cut) -> float:
        """No choice of the cut takes less: rows of the largest micro-batch, and a pipeline always full."""
        if self._unbounded:
            return 0.0
        batch = self.space.work.global_batch
        return SLACK * self.through(cut, batch) / (cut.dp * cut.pp)

    def _turns(self, cut: Cut, micro_batch: int, pieces: int) -> float:
        """Micro-batches of a step, with those that the pipeline's filling and draining cost."""
        return self.space.work.global_batch // (micro_batch * cut.dp) + (cut.pp - 1) / pieces

    def through(self, cut: Cut, micro_batch: int) -> float:
        """Seconds of one micro-batch through a whole model that is not cut into stages."""
        key = (cut.tp, cut.cp, cut.ep, cut.etp, micro_batch)
        found = self._through.get(key)
        if found is None:
            dp = math.lcm(cut.tp * cut.cp, cut.ep * cut.etp) // (cut.tp * cut.cp)
            layout = Layout(cut.tp, 1, 1, cut.cp, cut.ep, cut.etp, dp, cut.tp > 1)
            found = self._through[key] = self._each(layout, micro_batch)
        return found

    def rest(self, cut: Cut, micro_batch: int, pieces: int, seconds: float) -> float:
        """Seconds that are not its micro-batches', of a step that takes `seconds` with so many pieces, the
        fewest. What a further micro-batch takes does not depend on how many copies of the model there are.
        """
        key = (cut.tp, cut.cp, cut.ep, cut.etp, micro_batch, cut.pp, pieces)
        each = self._through.get(key)
        if each is None:
            each = self._through[key] = self._each(self.space.layout(cut, pieces), micro_batch)
        return max(0.0, seconds - each * self._turns(cut, micro_batch, pieces))

    def _each(self, layout: Layout, micro_batch: int) -> float:
        """What one more of MANY micro-batches takes."""
        space, times = self.space, []
        for count in (MANY, 2 * MANY):
            batch = count * layout.dp * micro_batch
            work = self._works.get(batch)
            if work is None:
                work = self._works[batch] = dataclasses.replace(space.work, global_batch=batch)
            times.append(step_seconds(work, layout, micro_batch, self._fastest, space.gpu, space.gpus))
        return space.work.time_factor * max(0.0, times[1] - times[0]) / MANY

    def bytes(self, cut: Cut) -> float:
        """No layout of the cut takes less memory: a stage's share of weights, gradients and optimizer state,
        and what lies outside of the allocator.
        """
        found = self._bytes.get(cut)
        if found is None:
            layout = Layout(cut.tp, cut.pp, 1, cut.cp, cut.ep, cut.etp, cut.dp, cut.tp > 1)
            whole = self._whole(cut)
            held = StageParameters(whole.dense // cut.pp, whole.experts // cut.pp)
            outside = outside_bytes(layout) if self.space.gpu.name != "cpu" else 0.0
            state = self.space.work.memory_factor * sum(model_state(self.space.work, layout, held))
            found = self._bytes[cut] = SLACK * (state + outside)
        return found

    def _whole(self, cut: Cut) -> StageParameters:
        """Parameters on a rank when the model is not cut into stages."""
        key = (cut.tp, cut.ep, cut.etp)
        found = self._held.get(key)
        if found is None:
            work, layout = self.space.work, Layout(cut.tp, ep=cut.ep, etp=cut.etp)
            found = self._held[key] = stage_parameters(work.shape, layout, 0, work.head)
        return found
