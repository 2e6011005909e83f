"""What a plan will cost: how many runs under the time limit, GPU-hours, money, and room for checkpoints.

A run that reaches its limit saves some time before it (`slurm.signal`) and is queued again; each run
trains from its start to that moment. Loading and saving are not predicted and so not counted. Where a spec
says epochs only, its steps follow from the rows: they are counted when the file is here and small. The plan
itself does not know them, since it must not depend on what lies on this machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specc.diagnostics import Diagnostic
from specc.plan import ANSWER, Job, Plan, Role
from specc.planner.asking import Rows, made_rows, source_rows
from specc.planner.shapes import parameters

if TYPE_CHECKING:
    from specc.graph import Graph
    from specc.spec.cluster import Profile

MOST_BYTES = 32 << 20
"""Of a file whose rows are counted: a few hundredths of a second."""


@dataclass(frozen=True)
class Outlook:
    """One stage ahead. 0 where a value is not known: steps that follow from the data, no price, no quota."""

    stage: str
    steps: int
    epochs: float  # what the steps follow from, when they are not said
    rows: int  # of an epoch, or of what a stage that makes rows reads, as far as it is known
    step_seconds: float
    wall_seconds: float
    limit_seconds: int  # of one run
    runs: int  # the first and those that are queued again
    gpu_hours: float
    cost: float
    checkpoint_bytes: int
    checkpoints: int  # at once, at most: those kept, and the next one while it is written
    quota_bytes: int
    makes_rows: bool = False
    discards: tuple[str, ...] = ()  # stages whose checkpoints go when this one has finished

    @property
    def storage_bytes(self) -> int:
        """All checkpoints of the stage at the worst moment."""
        return self.checkpoints * self.checkpoint_bytes


def outlook(jobs: Sequence[Job], profile: Profile, folder: Path | None = None) -> list[Outlook]:
    """What each stage of a plan on this cluster has ahead of it; rows are counted when `folder` is given, the
    one that relative paths of the spec count from.
    """
    made: dict[str, Rows] = {}
    found = []
    for job in jobs:
        source = source_rows(job, made, lambda data: rows_at_hand(data, folder) if folder else 0)
        found.append(_of(job, profile, source.rows if source else 0))
        if found[-1].makes_rows and (rows := made_rows(job, source)):
            made[job.stage] = rows
    return found


def _of(job: Job, profile: Profile, rows: int) -> Outlook:
    train = job.settings.get("train", {})
    trains = any(role.trains for role in job.roles)
    answers = any(role.program == ANSWER for role in job.roles)  # until it is told to stop
    makes_rows = not trains and not answers
    steps, epochs = train.get("steps") or 0, 0.0
    batch = next((role.global_batch for role in job.roles if role.global_batch), 1)
    if makes_rows:
        steps = -(-rows // batch)
    elif not steps and train.get("epochs"):
        epochs = float(train["epochs"])
        steps = max(1, int(rows * epochs) // batch) if rows else 0  # as the runtime does
    step = max((role.step_seconds for role in job.roles), default=0.0)
    wall = round(steps * step, 1)
    limit = job.time_seconds if profile.scheduler == "slurm" else 0
    useful = limit - profile.slurm.signal
    hours = round(wall / 3600 * sum(role.nodes * role.gpus for role in job.roles), 3)
    return Outlook(
        stage=job.stage,
        steps=steps,
        epochs=epochs,
        rows=rows if epochs or makes_rows else 0,
        step_seconds=step,
        wall_seconds=wall,
        limit_seconds=limit,
        runs=0 if not wall else 1 if useful <= 0 else math.ceil(wall / useful),
        gpu_hours=hours,
        cost=round(hours * (profile.price or 0), 2),
        checkpoint_bytes=sum(_checkpoint(role) for role in job.roles if role.trains),
        checkpoints=_at_once(train) if trains else 0,
        quota_bytes=profile.results.quota or 0,
        makes_rows=makes_rows,
        discards=job.discards,
    )


def rows_at_hand(data: object, folder: Path) -> int:
    """Lines of a data set that is one small JSONL file of this machine; else 0."""
    from specc import inputs

    if not isinstance(data, Mapping) or data.get("split"):
        return 0
    found = inputs.here(str(data.get("path", "")), folder)
    try:
        if found is None or found.suffix not in (".jsonl", ".ndjson") or found.stat().st_size > MOST_BYTES:
            return 0
        count = sum(1 for line in found.read_bytes().splitlines() if line.strip())
    except OSError:
        return 0
    return min(count, data.get("limit") or count)


def _at_once(train: Mapping[str, Any]) -> int:
    """Checkpoints that lie there at once: no more than are ever written."""
    kept = train.get("keep_last", 0) + train.get("keep_best", 0) + 1
    steps, every = train.get("steps") or 0, train.get("save_every") or 0
    if not every:
        return min(kept, 1)
    return min(kept, math.ceil(steps / every)) if steps else kept


def _checkpoint(role: Role) -> int:
    """Bytes of a checkpoint: the weights, and Adam's fp32 master and two moments."""
    weights = 4 if role.precision == "fp32" else 2
    return parameters(role.model.shape, role.model.head) * (weights + 12)


def over_the_quota(graph: Graph, ahead: Sequence[Outlook]) -> list[Diagnostic]:
    """A warning when the checkpoints of all stages together do not fit into the results folder's quota."""
    quota = max((one.quota_bytes for one in ahead), default=0)
    needed = most_at_once(ahead)
    if not quota or needed <= quota:
        return []
    largest = max(ahead, key=lambda one: one.storage_bytes)
    message = f"checkpoints take up to {size(needed)}, but the quota of the results folder is {size(quota)}"
    count = f"{largest.checkpoints} checkpoints at once of {size(largest.checkpoint_bytes)}"
    help = f"stage `{largest.stage}` has {count}; use a smaller train.keep_last or train.keep_best"
    where = graph.stage(largest.stage).path("train.keep_last")
    return [Diagnostic("P036", "warning", message, where, "", help)]


def most_at_once(ahead: Sequence[Outlook]) -> int:
    """Bytes of checkpoints at the worst moment, stages one after the other and discarding as they end."""
    held: dict[str, int] = {}
    most = 0
    for one in ahead:
        held[one.stage] = one.storage_bytes
        most = max(most, sum(held.values()))
        for stage in one.discards:
            held.pop(stage, None)
    return most


def size(count: float) -> str:
    """`3.6 TB`: bytes in powers of 1000, as quotas are said."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.4g} TB"


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use, two digits at least."""
    if seconds < 1:
        return f"{seconds:.2g} s" if seconds >= 0.01 else f"{seconds * 1000:.2g} ms"
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def learnt(plan: Plan) -> str:
    """What the plan's predictions were corrected by, in a phrase."""
    said = dict.fromkeys(role.calibration for job in plan.jobs for role in job.roles)
    return "; ".join(filter(None, said)) or "not calibrated"
