"""A plan as a page: its stages, what fills each GPU, the choices there were, and a step over time."""

from __future__ import annotations

from collections.abc import Sequence

from specc.pages.bars import Bar, bars
from specc.pages.flow import Box, flow
from specc.pages.frame import Section, coloured, key, page, tiles
from specc.pages.lanes import Block, lanes
from specc.pages.markup import Element, element, rows
from specc.pages.scatter import Point, scatter
from specc.plan import Job, Memory, Plan, Role
from specc.planner.feasibility import EXPANDABLE
from specc.planner.options import Option
from specc.planner.outlook import Outlook, duration, learnt, size


def plan_page(
    plan: Plan,
    ahead: Sequence[Outlook],
    options: Sequence[Option],
) -> str:
    """The page."""
    cluster = plan.cluster
    machine = "cpu" if cluster.device == "cpu" else f"{cluster.gpus_per_node} x {cluster.gpu}"
    about = f"Planned by specc {plan.version} for cluster {cluster.name}, {machine} a node. All of it is "
    about += f"predicted, {learnt(plan)}."
    sections = [
        _stages(plan),
        *_memory(plan),
        *_choices(options),
        *_steps(plan),
        _numbers(plan, ahead),
    ]
    return page(plan.name, about, [_tiles(plan, ahead)], sections)


def _tiles(plan: Plan, ahead: Sequence[Outlook]) -> Element:
    nodes = max(job.nodes for job in plan.jobs)
    values = [
        (str(len(plan.jobs)), "stage" if len(plan.jobs) == 1 else "stages"),
        (str(nodes), "nodes at most"),
    ]
    if plan.totals.wall_seconds:
        values.append((duration(plan.totals.wall_seconds), "of computing"))
    if plan.totals.gpu_hours:
        values.append((f"{plan.totals.gpu_hours:,.0f}", "GPU-hours"))
    cost = sum(one.cost for one in ahead)
    return tiles([*values, *([(f"{cost:,.0f}", "cost")] if cost else [])])


def _stages(plan: Plan) -> Section:
    boxes = [
        Box(job.stage, tuple(line for role in job.roles for line in _lines(job, role)), job.depends_on)
        for job in plan.jobs
    ]
    return Section(
        "Stages", "Each becomes one job; an arrow is a checkpoint or data handed over.", [flow(boxes)]
    )


def _lines(job: Job, role: Role) -> list[str]:
    name = f"{role.name}: " if len(job.roles) > 1 else ""
    lines = [f"{name}{role.program}, {role.model.name}", f"{role.nodes} x {role.gpus} GPUs, {role.layout}"]
    return [*lines, f"{duration(role.step_seconds)} a step"] if role.step_seconds else lines


def _memory(plan: Plan) -> list[Section]:
    """Bars per role, and per phase of it where the plan tells them apart; none for a CPU."""
    held = [(job, role) for job in plan.jobs for role in job.roles if role.memory.capacity_gib]
    if not held:
        return []
    items = [_bar(job, role) for job, role in held]
    colours = coloured([name for bar in items for name in bar.parts])
    about = (
        "GiB of the fullest GPU. The line is what the GPU has; in the shaded band before it a run may or may "
        "not fit, since the allocator's fragments and NCCL's buffers vary."
    )
    picture = bars(items, "GiB", colours, "memory of the fullest GPU of each role")
    drawn = [picture, key(list(colours), colours)]
    return [Section("Memory", about, drawn), *_phases(held)]


def _phases(held: Sequence[tuple[Job, Role]]) -> list[Section]:
    """A bar for each phase of each role that has several."""
    items = [
        Bar(f"{_role_name(job, role)}, {phase}", {phase: gib}, role.memory.capacity_gib, *EXPANDABLE)
        for job, role in held
        for phase, gib in role.memory.phases.items()
        if len(role.memory.phases) > 1
    ]
    if not items:
        return []
    colours = coloured([name for bar in items for name in bar.parts])
    about = "The same over the phases of each role; the fullest one counts."
    return [Section("Phases", about, [bars(items, "GiB", colours, "memory of each phase of each role")])]


def _role_name(job: Job, role: Role) -> str:
    return job.stage if len(job.roles) == 1 else f"{job.stage}: {role.name}"


def _bar(job: Job, role: Role) -> Bar:
    memory: Memory = role.memory
    note = f"{memory.total_gib:.1f} ({memory.total_gib / memory.capacity_gib:.0%})"
    return Bar(_role_name(job, role), memory.parts, memory.capacity_gib, *EXPANDABLE, note)


def _choices(options: Sequence[Option]) -> list[Section]:
    """A picture per role that has more than one way to run."""
    sections = []
    for stage, role in dict.fromkeys((option.stage, option.role) for option in options):
        ways = [option for option in options if (option.stage, option.role) == (stage, role)]
        if len(ways) < 2 or not all(way.step_seconds > 0 for way in ways):
            continue
        points = [_point(way) for way in ways]
        about = (
            "None is worse than another in both nodes and time; a larger point takes more GPU-hours. "
            "The plan's own is red."
        )
        axis = "time" if ways[0].wall_seconds else "a step"
        drawn = scatter(points, "nodes", axis, f"choices of {stage}", duration)
        sections.append(
            Section(f"Choices for {stage}" + ("" if role == "model" else f", {role}"), about, [drawn])
        )
    return sections


def _point(way: Option) -> Point:
    time = way.wall_seconds or way.step_seconds
    about = f"{way.layout}, micro-batch {way.micro_batch}, {duration(time)}"
    about += f", {way.gpu_hours:,.0f} GPU-hours" if way.gpu_hours else ""
    weight = way.gpu_hours or way.nodes * way.step_seconds
    return Point(f"{way.nodes} nodes", way.nodes, time, weight, about, way.planned)


def _steps(plan: Plan) -> list[Section]:
    """Stages of several roles: who does what in one step."""
    about = (
        "What each group of processes does from the start of a step to its end; where nothing is, it waits."
    )
    sections = []
    for job in plan.jobs:
        blocks = [
            Block(span.lane, span.name, span.start, span.start + span.seconds)
            for span in job.timeline
            if span.name != "wait"
        ]
        if blocks:
            colours = coloured([block.name for block in blocks])
            drawn = lanes(blocks, colours, f"one step of {job.stage}")
            sections.append(Section(f"One step of {job.stage}", about, [drawn, key(list(colours), colours)]))
    return sections


HEADS = ("stage", "role", "nodes x GPUs", "layout", "micro-batch", "batch", "memory", "step", "why")


def _numbers(plan: Plan, ahead: Sequence[Outlook]) -> Section:
    lines = [
        (
            *(job.stage, role.name, f"{role.nodes} x {role.gpus}", str(role.layout)),
            *(str(role.micro_batch), str(role.global_batch)),
            f"{role.memory.total_gib:.1f} GiB" if role.memory.capacity_gib else "",
            duration(role.step_seconds) if role.step_seconds else "",
            role.why,
        )
        for job in plan.jobs
        for role in job.roles
    ]
    saved = [
        element("p", f"{one.stage}: a checkpoint takes {size(one.checkpoint_bytes)}", class_="note")
        for one in ahead
        if one.checkpoint_bytes
    ]
    return Section(
        "Numbers", "The same as text.", [element("div", rows(HEADS, lines), class_="scroll"), *saved]
    )
