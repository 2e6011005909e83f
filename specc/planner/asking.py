"""Roles that are asked and never learn: they generate rows, or score them.

A step handles `batch` rows of the source: prompts, each with `samples` responses, or texts to score. No
layout has to deal them evenly, since the last ones of a step leave places empty: the planner counts with the
next multiple of the machines' GPUs. How many steps there are follows from the rows, as far as these are
known: from a slice, a limit, or the stage that makes them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from specc.plan import Job, Layout, Role
from specc.planner.hardware import Gpu
from specc.planner.rollout import (
    ENGINES,
    Lengths,
    prefill_seconds,
    resharded,
    rollout_seconds,
    token_seconds,
)
from specc.planner.step_parts import Number, Part
from specc.planner.workload import Workload

if TYPE_CHECKING:
    from specc.graph import Stage, StageRole

ASKED = ("rows", "answers")
"""What stages make whose roles are asked."""

ROWS_MOST = 256
"""Responses that a replica makes at once, at most, where the spec leaves it open."""

UNIT = 64
"""Tokens that lengths are rounded up to, so that every way to cut a row is open."""


def work_of(stage: Stage, asked: StageRole, nodes: int | None, gpus: int) -> dict[str, Any]:
    """What being asked changes of a role's work; nothing for one that learns."""
    if asked.trains or stage.makes not in ASKED:
        return {}
    even = math.lcm((nodes or 1) * gpus, asked.micro_batch or 1)
    found: dict[str, Any] = {
        "global_batch": -(-asked.global_batch // even) * even,
        "seq_length": -(-asked.seq_length // UNIT) * UNIT,
    }
    if not asked.response_tokens:
        return found
    said = stage.settings[asked.program]
    return found | {
        "phase": "generate",
        "prompt_tokens": asked.prompt_tokens,
        "response_tokens": asked.response_tokens,
        "samples": said.get("samples") or 1,
        "rollout_micro_batch": asked.micro_batch or 0,
        "expected_tokens": said.get("expected_tokens") or 0,
        "expected_prompt_tokens": said.get("expected_prompt_tokens") or 0,
        "engine": said.get("engine") or "megatron",
        "engine_resharded": bool(said.get("reshard")) or said.get("engine") == "vllm",
    }


def asked_role(role: Role, stage: Stage) -> Role:
    """The role as planned, with what only roles of this kind have: the rows of the source that a step takes,
    and the responses that are made at a time.
    """
    if stage.makes not in ASKED or role.is_clerk:
        return role
    asked = next(asked for asked in stage.roles if asked.name == role.name)
    said = stage.settings[asked.program]
    batch = said.get("batch") or role.global_batch
    rows = role.micro_batch if asked.response_tokens else 0
    return dataclasses.replace(role, trains=False, global_batch=batch, rows=rows)


def with_rows(settings: dict[str, Any], roles: Sequence[Role]) -> dict[str, Any]:
    """The settings of a stage that generates, saying how many responses are made at a time."""
    said = dict(settings)
    for role in roles:
        if role.rows and not role.trains and role.program in said:
            said[role.program] = {**said[role.program], "rows": role.rows}
    return said


@dataclasses.dataclass(frozen=True)
class Generation:
    """What a step of a role that only generates is about. Tokens are means."""

    layout: Layout  # of what generates
    prompts: int
    prompt: float
    lengths: Lengths


def generation_of(work: Workload, layout: Layout) -> Generation:
    """From the role's work to its step."""
    mean = work.expected_tokens or max(1.0, work.response_tokens / 2)
    prompt = work.expected_prompt_tokens or max(1.0, work.prompt_tokens / 4)
    second = work.engine != "megatron" or work.engine_resharded
    prompts = -(-work.global_batch // max(1, work.samples))
    lengths = Lengths(mean, work.response_tokens)
    return Generation(resharded(layout) if second else layout, prompts, prompt, lengths)


def step_of_generation(work: Workload, layout: Layout, rows: int, gpu: Gpu) -> float:
    """Seconds until every response of a step is there, `rows` at a time on each replica; never more than
    ROWS_MOST, unless the spec says so.
    """
    if rows > ROWS_MOST and not work.rollout_micro_batch:
        return math.inf
    asked = generation_of(work, layout)
    return rollout_seconds(
        work, asked.layout, asked.prompts, work.samples, asked.prompt, asked.lengths, rows, gpu
    )


def parts_of_generation(work: Workload, layout: Layout, rows: int, gpu: Gpu) -> tuple[Part, ...]:
    """The same as reading prompts and adding tokens to them."""
    asked = generation_of(work, layout)
    replicas = max(1, asked.layout.dp * asked.layout.cp)
    each = -(-asked.prompts * work.samples // replicas)
    once = min(rows, each)
    read = -(-asked.prompts // replicas) if ENGINES[work.engine].shares_prompts else each
    reading = prefill_seconds(work, asked.layout, read, asked.prompt, gpu)
    halfway = asked.prompt + asked.lengths.longest(once) / 2
    token = token_seconds(work, asked.layout, once, halfway, gpu)
    whole = step_of_generation(work, layout, rows, gpu)
    prompts = (
        Number("n", read, "prompts of a replica"),
        Number("T", asked.prompt, "tokens of one"),
        Number("r", read * asked.prompt / reading, "tokens/s"),
    )
    tokens = (
        Number("w", -(-each // once), f"times {once} responses at once"),
        Number("L", (whole - reading) / token / -(-each // once), "tokens until the longest of them is done"),
        Number("s", token, "s for one token of each"),
    )
    found = (
        Part("prompts", reading, "n * T / r", prompts),
        Part("tokens", whole - reading, "w * L * s", tokens),
    )
    return tuple(part for part in found if part.seconds > 0)


# --- how many rows -----------------------------------------------------------------------------------


class Rows(NamedTuple):
    """Rows that a stage makes, and the prompts that they answer."""

    rows: int
    prompts: int


Count = Callable[[Mapping[str, Any]], int]
"""Rows of a data set that lies here; 0 where that is not known."""


def source_rows(job: Job, made: Mapping[str, Rows], count: Count) -> Rows | None:
    """What a stage reads, or learns from, as far as it is known: `made` by other stages, or counted."""
    cut = job.settings.get(job.roles[0].program, {}).get("slice") or {}
    use = job.data.get("train") or next(iter(job.data.values()), None)
    parts = [_part(each, made, count) for each in (use if isinstance(use, list) else [use] if use else [])]
    known = [part for part in parts if part is not None]
    if cut and len(known) < len(parts):
        return Rows(cut["size"], cut["size"])  # as the spec says; fewer where there are not so many
    if not parts or len(known) < len(parts):
        return None
    rows, prompts = sum(part.rows for part in known), sum(part.prompts for part in known)
    if cut:
        left = max(0, min(cut["size"], rows - cut["size"] * cut["index"]))
        return Rows(left, min(left, prompts))
    return Rows(rows, prompts)


def _part(data: Mapping[str, Any], made: Mapping[str, Rows], count: Count) -> Rows | None:
    source, limit = data.get("from"), data.get("limit")
    if source:
        found = None if source["run"] else made.get(source["stage"])
        return found if found is None or not limit else Rows(*(min(limit, n) for n in found))
    rows = count(data) or limit or 0  # as the spec says; fewer where there are not so many
    return Rows(rows, rows) if rows else None


def made_rows(job: Job, source: Rows | None) -> Rows | None:
    """What a stage makes of them; None where that depends on what they say."""
    program = job.roles[0].program
    if source is None or program == "above":
        return None
    said = job.settings.get(program, {})
    if program == "generate":
        return Rows(source.rows * (said.get("samples") or 1), source.rows)
    if program == "best_of_n":
        kept = min(source.rows, source.prompts * (said.get("keep") or 1))
        return None if said.get("truncated") == "drop" else Rows(kept, source.prompts)
    return source if program in ("score", "reward_prompt", "mix") else None
