"""A small plan by hand: what emitting needs and nothing of the compiler before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from specc.plan import FORMAT, Cluster, Container, Job, Layout, Model, Plan, Role, Shape, Slurm, Weights


def make_plan(
    jobs: dict[str, tuple[str, ...]] | None = None,
    *,
    job: dict[str, Any] | None = None,
    slurm: dict[str, Any] | None = None,
    container: dict[str, Any] | None = None,
    **cluster: Any,
) -> Plan:
    """A plan of two-node jobs: {stage: names of the jobs it waits for}."""
    model = Model("tiny", Shape("llama", 2, 64, 128, 4, 2, 16, 259, 128), Weights())
    role = Role("model", "sft", 2, 8, Layout(tp=8, dp=2), 1, 8, model)
    made = tuple(
        replace(
            Job(name, name, 2, after, (role,), {}, {}, time_seconds=14400, hash=f"hash-{name}"), **(job or {})
        )
        for name, after in (jobs or {"sft": ()}).items()
    )
    where = Cluster("lab", "slurm", "h100-80gb", 8, "cuda", "nccl", results="/results")
    where = replace(where, slurm=Slurm(**(slurm or {})), container=Container(**(container or {})), **cluster)
    return Plan(FORMAT, "trial", "0", 1, where, made)


@pytest.fixture
def plan_of():
    """make_plan, for tests."""
    return make_plan
