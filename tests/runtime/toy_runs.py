"""Plans for the tests of the loop, and how to run them: by torchrun, or by the warm processes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from specc.plan import FORMAT, Cluster, Job, Layout, Model, Plan, Role, Shape, Weights, to_json

LLAMA = Shape(
    family="llama",
    layers=2,
    hidden=32,
    ffn=64,
    heads=4,
    kv_groups=2,
    head_dim=8,
    vocab=259,
    max_positions=256,
    init_std=0.02,
)
TRAIN = {
    "steps": 6,
    "epochs": 0,
    "lr": 3e-3,
    "min_lr": 3e-4,
    "schedule": "cosine",
    "warmup_steps": 2,
    "constant_steps": 0,
    "weight_decay": 0.01,
    "betas": [0.9, 0.98],
    "epsilon": 1e-8,
    "clip": 1.0,
    "seq_length": 32,
    "packing": False,
    "shuffle": True,
    "validate_every": 0,
    "save_every": 2,
    "log_every": 1,
    "keep_last": 2,
    "keep_best": 0,
    "tensorboard": False,
    "wandb": None,
}
SFT = {"answer_only": True, "truncation": "right", "add_eos": True, "add_bos": False}
ARITHMETIC = {"path": "builtin:arithmetic", "limit": 64}

SERIES = ("step", "loss", "grad_norm", "lr", "data_hash")
"""What a run that was killed has in common with one that was not."""


def plan(
    layout: Layout | None = None,
    *,
    train: dict[str, Any] | None = None,
    sft: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    validation: dict[str, Any] | None = None,
    shape: Shape = LLAMA,
    weights: Weights | None = None,
    job: dict[str, Any] | None = None,
    **role: Any,
) -> Plan:
    """A plan of one SFT job on this machine's CPU."""
    layout = layout or Layout()
    fields: dict[str, Any] = {
        "name": "model",
        "program": "sft",
        "nodes": 1,
        "gpus": layout.world_size,
        "layout": layout,
        "micro_batch": 4,
        "global_batch": 8,
        "model": Model(name="tiny", shape=shape, weights=weights or Weights()),
        "precision": "fp32",
        "distributed_optimizer": False,
    }
    own = Job(
        name="sft",
        stage="sft",
        nodes=1,
        depends_on=(),
        roles=(Role(**(fields | role)),),
        settings={"train": TRAIN | (train or {}), "sft": SFT | (sft or {})},
        data={"train": data or ARITHMETIC, "validation": validation},
        collective_timeout_seconds=60,
        identity={"train.lr": 3e-3},
        hash="toy",
    )
    own = dataclasses.replace(own, **(job or {}))
    return Plan(FORMAT, "toy", "0", 1234, Cluster("local-cpu", "none", "cpu", 2, "cpu", "gloo"), (own,))


def written(folder: Path, found: Plan) -> Path:
    """The plan as a run folder holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.json"
    path.write_text(to_json(found))
    return path


def torchrun(
    plan_file: Path,
    processes: int,
    *,
    attempt: str = "1",
    timeout: float = 240,
    script: Path | None = None,
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """The real thing: torchrun in a subprocess; `script` stands in for `-m runtime`."""
    program = [str(script)] if script else ["-m", "runtime"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    ports = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command = [*launcher, *ports, *program, str(plan_file), "sft", "model"]
    extra = {"OMP_NUM_THREADS": "1", "SPECC_ATTEMPT": attempt, "SPECC_DIE_WITH_PARENT": "1"}
    return subprocess.run(
        command,
        env=os.environ | extra | env,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def attempt(plan_file: str, name: str = "1") -> int:
    """One process of a run inside a worker of `world`; its exit code."""
    os.environ["SPECC_ATTEMPT"] = name
    from runtime.__main__ import main

    return main([plan_file, "sft", "model"])


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that belong to steps."""
    lines = (folder / "sft" / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def series(folder: Path) -> list[tuple[Any, ...]]:
    """What must not depend on how often a run was interrupted."""
    return [tuple(line[key] for key in SERIES) for line in metrics(folder)]
