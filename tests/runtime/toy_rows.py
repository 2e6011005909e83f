"""Plans of stages that make rows, for the tests, and how to run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import toy_runs

from specc.plan import FORMAT, NO_MODEL, Cluster, Job, Layout, Model, Plan, Role, Shape, Weights

CLUSTER = Cluster("local-cpu", "none", "cpu", 2, "cpu", "gloo")


def clerk(program: str, batch: int = 1024) -> Role:
    """A role without a model."""
    return Role("model", program, 1, 0, Layout(), batch, batch, NO_MODEL, trains=False)


def role(program: str, layout: Layout | None = None, batch: int = 4, model: Model | None = None) -> Role:
    """A role of a tiny model that makes rows."""
    layout = layout or Layout()
    found = model or Model("tiny", toy_runs.LLAMA, Weights())
    return Role(
        "model", program, 1, layout.world_size, layout, 2, batch, found,
        precision="fp32", distributed_optimizer=False, trains=False,
    )  # fmt: skip


def job(stage: str, role: Role, settings: dict[str, Any], data: Any, **more: Any) -> Job:
    """A stage that makes rows of `data`: sections of data, or the name of the stage that made them."""
    if isinstance(data, str):
        data = {"rows": {"path": "", "from": {"stage": data, "run": ""}}}
    fields: dict[str, Any] = {"collective_timeout_seconds": 60, "identity": {"stage": stage}, "hash": stage}
    return Job(stage, stage, 1, (), (role,), {role.program: settings}, data, **(fields | more))


def judge(
    names: tuple[str, ...] = (), shape: Shape = toy_runs.LLAMA, weights: Weights | None = None
) -> Model:
    """A small reward model."""
    head = "attributes" if names else "scalar"
    return Model("judge", shape, weights or Weights(), head=head, attributes=names)


def plan(*jobs: Job) -> Plan:
    """A plan of these jobs on this machine's CPU."""
    return Plan(FORMAT, "toy", "0", 1234, CLUSTER, jobs)


def attempt(plan_file: str, stage: str, name: str = "1") -> int:
    """One process of a stage inside a worker of `world`; its exit code."""
    os.environ["SPECC_ATTEMPT"] = name
    from runtime.__main__ import main

    return main([plan_file, stage, "model"])


def plain(plan_file: Path, stage: str, attempt: str = "1", **env: str) -> subprocess.CompletedProcess[str]:
    """A clerk as it is started: without torchrun."""
    return subprocess.run(
        [sys.executable, "-m", "runtime", str(plan_file), stage, "model"],
        env=os.environ | {"SPECC_ATTEMPT": attempt} | env,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSONL file of these rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def rows(folder: Path, stage: str) -> list[dict[str, Any]]:
    """What a stage made."""
    return [json.loads(line) for line in (folder / stage / "rows.jsonl").read_text().splitlines()]


def output(folder: Path, stage: str) -> dict[str, Any]:
    return json.loads((folder / stage / "output.json").read_text())


def error(folder: Path, stage: str, attempt: str = "1") -> str:
    """What the first rank of an attempt said when it failed."""
    found = json.loads((folder / stage / "attempts" / attempt / "error-0.json").read_text())
    return f"{found['code']}: {found['message']}"
