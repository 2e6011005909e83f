"""A plan as text for people, and as the JSON that the contract fixes for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from specc.cli.folding import NO_ROUNDS, Rounds, folded, rounds_of
from specc.plan import Job, Plan, Role
from specc.planner.outlook import duration, learnt

if TYPE_CHECKING:
    from specc.compile import Compilation
    from specc.planner.comparison import Rival
    from specc.planner.options import Option
    from specc.planner.outlook import Outlook

COLUMNS = (
    "stage",
    "role",
    "nodes x gpus",
    "layout",
    "micro x accum",
    "batch",
    "memory",
    "of",
    "step",
    "recompute",
)


def plan_text(plan: Plan, ahead: Sequence[Outlook] = ()) -> str:
    """The plan as a table of roles, why each layout was taken, and what lies `ahead` of each stage."""
    machine = f"{plan.cluster.gpus_per_node} {plan.cluster.gpu}"
    if plan.cluster.device == "cpu":
        machine = "cpu"
    rounds = rounds_of(plan)
    head = f"{plan.name} on {plan.cluster.name}: {count(plan.totals.jobs, 'job')}, {machine} a node"
    rows = [_row(job, role) for job in plan.jobs for role in job.roles]
    lines = [head, "", *table(COLUMNS, _folded_rows(rows, rounds)), ""]
    notes = [
        (job.stage, f"{job.stage}.{role.name}: {line}")
        for job in plan.jobs
        for role in job.roles
        for line in _notes(role)
    ]
    lines += [*_folded_lines(notes, rounds), ""]
    lines += _folded_lines(
        [(one.stage, f"{one.stage}: {line}") for one in ahead for line in _ahead(one)], rounds
    )
    cost = sum(one.cost for one in ahead)
    lines += [f"total: {totals(plan)}" + (f", cost {cost:,.2f}" if cost else "")]
    if any(role.step_seconds or role.memory.capacity_gib for job in plan.jobs for role in job.roles):
        lines += [f"predictions: {learnt(plan)}"]
    return "\n".join(lines)


def _folded_rows(rows: Sequence[tuple[str, ...]], rounds: Rounds) -> list[tuple[str, ...]]:
    """Rows that begin with their stage; a line in place of rounds is a row of one cell."""
    found = folded(rows, rounds, lambda row: row[0], "|".join)
    return [(row, *[""] * (len(rows[0]) - 1)) if isinstance(row, str) else row for row in found]


def _folded_lines(lines: Sequence[tuple[str, str]], rounds: Rounds) -> list[str]:
    """Lines given with their stages."""
    found = folded(lines, rounds, lambda line: line[0], lambda line: line[1])
    return [line if isinstance(line, str) else line[1] for line in found]


def _ahead(one: Outlook) -> list[str]:
    """What one stage will take: time and runs, then room for its checkpoints."""
    from specc.planner.outlook import size

    lines = []
    if one.epochs and one.step_seconds and not one.steps:
        lines.append(
            f"the steps of {count(one.epochs, 'epoch')} follow from the rows, which are not counted here: "
            "time and cost are not known"
        )
    if one.epochs and one.rows:
        lines.append(f"{count(one.epochs, 'epoch')} of {one.rows:,} rows are {count(one.steps, 'step')}")
    if one.makes_rows and one.step_seconds and not one.rows:
        lines.append("how many rows it reads is not known here, so neither are time and cost")
    if one.makes_rows and one.rows:
        lines.append(f"{one.rows:,} rows to read are {count(one.steps, 'step')}")
    if one.wall_seconds:
        steps = f"{one.steps:,} step{'' if one.steps == 1 else 's'}"
        said = f"{steps} x {duration(one.step_seconds)} = {duration(one.wall_seconds)}"
        if one.limit_seconds:
            again = f", queued again {count(one.runs - 1, 'time')}" if one.runs > 1 else ""
            said += f", {count(one.runs, 'run')} of at most {duration(one.limit_seconds)}{again}"
        lines.append(said)
    if one.limit_seconds and one.checkpoints:
        quota = f" of the quota of {size(one.quota_bytes)}" if one.quota_bytes else ""
        room = f"up to {one.checkpoints} at once take {size(one.storage_bytes)}{quota}"
        lines.append(f"a checkpoint is {size(one.checkpoint_bytes)}; {room}")
    return lines


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Columns of even width; a column that is empty in every row is left out."""
    kept = [i for i in range(len(heads)) if any(row[i] for row in rows)]
    cells = [[line[i] for i in kept] for line in (heads, *rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(kept))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _row(job: Job, role: Role) -> tuple[str, ...]:
    memory = role.memory
    if role.is_clerk:
        return (job.stage, role.name, "1 process", "", "", str(role.global_batch), *[""] * 4)
    samples = job.settings.get(role.program, {}).get("samples") or 1 if not role.trains else 1
    accumulation = -(-role.global_batch * samples // max(1, role.micro_batch * role.layout.dp))
    return (
        job.stage,
        role.name,
        f"{role.nodes} x {role.gpus}",
        str(role.layout),
        f"{role.micro_batch} x {accumulation}",
        str(role.global_batch),
        f"{memory.total_gib:.1f} GiB" if memory.capacity_gib else "",
        f"{memory.capacity_gib:.1f} GiB ({memory.total_gib / memory.capacity_gib:.0%})"
        if memory.capacity_gib
        else "",
        duration(role.step_seconds) if role.step_seconds else "",
        recomputation(role),
    )


def recomputation(chosen: Role | Option | Rival) -> str:
    """`full`, `selective`, or how many layers of each chunk are computed again."""
    if chosen.recompute_layers:
        return count(chosen.recompute_layers, "layer")
    return "" if chosen.recompute == "none" else chosen.recompute


def _notes(role: Role) -> list[str]:
    lines = [role.why] if role.why else []
    if role.memory.parts:
        largest = sorted(role.memory.parts.items(), key=lambda part: -part[1])
        parts = ", ".join(f"{name} {gib:.1f}" for name, gib in largest if gib >= 0.05)
        lines += [f"holds {parts} GiB"] if parts else []
    if role.memory.unverified and role.memory.capacity_gib:
        lines += [f"memory not yet verified by runs: {', '.join(role.memory.unverified)}"]
    return lines


def totals(plan: Plan) -> str:
    """`3 jobs, 2.0 h, 512 GPU-hours`, as far as the plan knows."""
    said = [count(plan.totals.jobs, "job")]
    if plan.totals.wall_seconds:
        said.append(f"about {duration(plan.totals.wall_seconds)}")
    if plan.totals.gpu_hours:
        said.append(f"{plan.totals.gpu_hours:,.1f} GPU-hours")
    return ", ".join(said)


CHOICES = (
    *("stage", "role", "nodes x gpus", "layout", "micro", "recompute"),
    *("memory", "step", "time", "GPU-hours", ""),
)


def options_text(options: Sequence[Option], pinned: Sequence[str], rounds: Rounds = NO_ROUNDS) -> str:
    """The options as a table; `pinned` are the paths that fix a number of nodes."""
    rows = _folded_rows([_option_row(option) for option in options], rounds)
    lines = ["options: none is beaten in both nodes and time", "", *table(CHOICES, rows)]
    if pinned:
        freed = " ".join(f"--set {path}=null" for path in pinned)
        lines += ["", f"where nodes are pinned there is no choice; {freed} frees them"]
    return "\n".join(lines)


def _option_row(option: Option) -> tuple[str, ...]:
    memory = option.memory
    return (
        option.stage,
        option.role,
        f"{option.nodes} x {option.gpus}",
        str(option.layout),
        str(option.micro_batch),
        recomputation(option),
        f"{memory.total_gib / memory.capacity_gib:.0%}" if memory.capacity_gib else "",
        duration(option.step_seconds) if option.step_seconds else "",
        duration(option.wall_seconds) if option.wall_seconds else "",
        _hours_of(option),
        "<- planned" if option.planned else "",
    )


def _hours_of(option: Option) -> str:
    """GPU-hours of the whole stage, or of a step where the number of steps follows from the data."""
    if option.wall_seconds or not option.step_seconds:
        return amount(option.gpu_hours) if option.gpu_hours else ""
    return f"{amount(option.step_seconds / 3600 * option.nodes * option.gpus)} a step"


def plan_json(plan: Plan) -> dict[str, Any]:
    """The part of a plan that the contract fixes; plan.json holds this and more."""
    return {
        "format": plan.format,
        "name": plan.name,
        "jobs": [_job_json(job) for job in plan.jobs],
        "totals": dataclasses.asdict(plan.totals),
    }


def _job_json(job: Job) -> dict[str, Any]:
    return {
        "name": job.name,
        "stage": job.stage,
        "nodes": job.nodes,
        "depends_on": list(job.depends_on),
        "roles": [_role_json(role) for role in job.roles],
    }


def _role_json(role: Role) -> dict[str, Any]:
    layout = role.layout
    return {
        "name": role.name,
        "program": role.program,
        "nodes": role.nodes,
        "gpus": role.gpus,
        "layout": {key: getattr(layout, key) for key in ("tp", "pp", "vp", "cp", "ep", "etp", "dp")},
        "micro_batch": role.micro_batch,
        "global_batch": role.global_batch,
        "recompute": role.recompute,
        "implementation": role.implementation,
        "memory": dataclasses.asdict(role.memory),
        "step_seconds": role.step_seconds,
        "why": role.why,
        "calibration": role.calibration,
    }


def plain(value: Any) -> Any:
    """Dataclasses and tuples as dicts and lists, so that YAML and JSON can print them."""
    if dump := getattr(value, "model_dump", None):
        return dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def verdict(spec: str, done: Compilation) -> str:
    """One line: how it stands."""
    errors = sum(d.severity == "error" for d in done.diagnostics)
    warnings = sum(d.severity == "warning" for d in done.diagnostics)
    said = [count(errors, "error")] if errors else []
    said += [count(warnings, "warning")] if warnings else []
    if errors or done.plan is None:
        return f"{spec}: {', '.join(said)}"
    tail = f" ({', '.join(said)})" if said else ""
    return f"{spec} is fine{tail}: {totals(done.plan)}"


def count(number: float, noun: str) -> str:
    """`1 job`, `2 jobs`, `0.5 epochs`."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def amount(number: float) -> str:
    """`1,234.5`, or two digits of what is less than one."""
    return f"{number:,.1f}" if number >= 1 else f"{number:.2g}"
