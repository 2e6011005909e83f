"""A finished run as measurements: what it took, and what this planner predicts for it uncorrected.

A run leaves `plan.json` and, per role, `measured.json`; `specc.calibration` keeps what is made of them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from specc.calibration import Measurement, Unusable, reason
from specc.plan import Job, Plan, PlanError, Role, from_json, role_folder
from specc.planner.hardware import Gpu, gpu


def measured_run(folder: Path) -> tuple[Plan, list[Measurement], list[str]]:
    """The plan of the run in `folder`, its measurements, and why other roles that train have
    none.

    Unusable when the folder holds no run.
    """
    try:
        plan = from_json((folder / "plan.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unusable(f"{folder} is no run folder: it has no plan.json") from None
    except (OSError, ValueError, RecursionError, PlanError) as error:
        raise Unusable(f"{folder / 'plan.json'} cannot be used: {reason(error)}") from None
    found, missing = [], []
    for job in plan.jobs:
        for role in job.roles:
            file = folder / job.stage / role_folder(job, role.name) / "measured.json"
            if not _is_measured(job, role) and not file.exists():
                continue
            try:
                found.append(_measured(plan, job, role, file, folder.resolve().name))
            except Unusable as error:
                missing.append(str(error))
    return plan, found, missing


def _is_measured(job: Job, role: Role) -> bool:
    """Whether a role leaves measurements: not a clerk, nor one of a stage that only makes rows."""
    return not role.is_clerk and any(each.trains for each in job.roles)


def _measured(plan: Plan, job: Job, role: Role, file: Path, run: str) -> Measurement:
    name = f"{job.stage}/{role.name}"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        seconds, tokens = float(data["seconds"]["step_seconds"]), float(data["tokens"])
        steps, ranks = int(data["steps"]), list(data["ranks"])
        worst = max((float(rank.get("allocated_gib", 0.0)) for rank in ranks), default=0.0)
    except FileNotFoundError:
        raise Unusable(f"{name} has no measured.json: it has not run to an end") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unusable(f"{file} cannot be used: {reason(error)}") from None
    card = gpu(plan.cluster.gpu)
    if card is None or not (math.isfinite(seconds) and seconds > 0):
        raise Unusable(f"{name} cannot be compared: {plan.cluster.gpu}, {seconds} s a step")
    predicted_seconds, predicted_gib = predicted(job, role, card, tokens)
    if predicted_seconds <= 0:
        raise Unusable(f"{name} cannot be compared: no time is predicted for program `{role.program}`")
    return Measurement(
        run,
        job.stage,
        role.name,
        card.name,
        role.precision,
        role.implementation,
        str(role.layout),
        steps,
        round(predicted_seconds, 6),
        seconds,
        round(predicted_gib, 4),
        worst,
    )


def predicted(job: Job, role: Role, card: Gpu, tokens: float = 0.0) -> tuple[float, float]:
    """Seconds of a step and GiB inside the allocator, uncorrected, from the plan's own numbers.

    Rows are planned full; where a step held fewer `tokens`, the time is taken as that much shorter.
    """
    from specc.planner.cost import step_seconds
    from specc.planner.memory import GIB, Workload, peak

    train = job.settings.get("train", {})
    length = int(train.get("seq_length") or 0)
    if not length:
        return 0.0, 0.0
    work = Workload(
        shape=role.model.shape,
        seq_length=length,
        global_batch=role.global_batch,
        head=role.model.head,
        precision=role.precision,
        implementation=role.implementation,
        distributed_optimizer=role.distributed_optimizer,
        packing=bool(train.get("packing")),
    )
    seconds = step_seconds(work, role.layout, role.micro_batch, role.recompute, card, role.gpus)
    share = min(1.0, tokens / (role.global_batch * length)) if tokens else 1.0
    worst = peak(work, role.layout, role.micro_batch, role.recompute, card.name != "cpu")
    return seconds * share, worst.allocated / GIB
