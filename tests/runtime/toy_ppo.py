"""Plans of PPO on a task that a tiny model learns in a few steps: to say `e`."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import toy_runs

from specc.plan import FORMAT, Cluster, Job, Layout, Model, Plan, Role, Shape, Weights

PPO = {
    "rollouts": 16,
    "responses": 1,
    "epochs": 1,
    "kl": 0.01,
    "kl_estimator": "k1",
    "kl_in": "reward",
    "clip": 0.2,
    "value_clip": 0.2,
    "discount": 1.0,
    "gae_lambda": 0.95,
    "entropy": 0.0,
    "whiten": True,
    "truncated": "keep",
}
GENERATE = {"max_tokens": 8, "temperature": 1.0}


def share_of_e(prompt: str, response: str) -> float:
    """What part of the response is the letter e."""
    return response.count("e") / max(len(response), 1)


def is_even(prompt: str, response: str) -> float:
    """A verifier: whether a response has an even number of letters."""
    return float(len(response) % 2 == 0)


is_even.verifies = True  # type: ignore[attr-defined]


def prompts(folder: Path, count: int = 32) -> Path:
    """A file of short prompts of unlike lengths."""
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"text": "q" * (1 + i % 5) + ":"}) + "\n" for i in range(count)))
    return file


def plan(
    data: Path,
    layout: Layout | None = None,
    *,
    program: str = "ppo",
    ppo: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    generate: dict[str, Any] | None = None,
    critic: dict[str, Any] | None = None,
    reward: Weights | None = None,
    scorer: dict[str, Any] | None = None,
    shape: Shape = toy_runs.LLAMA,
    roles: tuple[str, ...] = ("actor", "reference", "critic"),
    validation: Path | None = None,
    micro_batch: int = 4,
    swap: bool = True,
    offload: bool = False,
    of_roles: dict[str, Any] | None = None,
    **changes: Any,
) -> Plan:
    """All roles in one group of processes; `reward` adds a reward model with these weights. With `swap` the
    models that are only asked trade places with those that learn, as the planner has it.
    """
    layout = layout or Layout()
    names = (*roles, "reward") if reward else roles

    def role(name: str) -> Role:
        head = "scalar" if name in ("critic", "reward") else "language"
        weights = reward if name == "reward" and reward else Weights()
        return Role(
            name=name,
            program=program,
            nodes=1,
            gpus=layout.world_size,
            layout=layout,
            micro_batch=micro_batch,
            global_batch=8,
            model=Model("tiny", shape, weights, head=head),
            precision="fp32",
            distributed_optimizer=False,
            group="actor",
            trains=name in ("actor", "critic"),
            swaps_with=hosts.get(name, "") if swap else "",
            offload_optimizer=offload and name in ("actor", "critic"),
        )

    hosts = {"reference": "actor"} | ({"reward": "critic"} if "critic" in roles else {})
    cast = [dataclasses.replace(role(name), **(of_roles or {})) for name in names]
    steps = {
        "steps": 3,
        "lr": 1e-3,
        "min_lr": 1e-3,
        "seq_length": 24,
        "schedule": "constant",
        "warmup_steps": 0,
    }
    job = Job(
        name="ppo",
        stage="ppo",
        nodes=1,
        depends_on=(),
        roles=tuple(cast),
        settings={
            "train": toy_runs.TRAIN | steps | {"save_every": 1} | (train or {}),
            program: PPO | (ppo or {}),
            "generate": GENERATE | (generate or {}),
            "critic": {"train": critic or {}},
            "reward": {"function": "" if reward else "toy_ppo:share_of_e"} | (scorer or {}),
        },
        data={
            "prompts": {"path": str(data), "format": "auto"},
            "validation": {"path": str(validation), "format": "auto"} if validation else None,
        },
        collective_timeout_seconds=60,
        identity={"train.lr": 1e-3},
        hash="toy",
    )
    job = dataclasses.replace(job, **changes)
    return Plan(FORMAT, "toy", "0", 1234, Cluster("local-cpu", "none", "cpu", 2, "cpu", "gloo"), (job,))


def attempt(plan_file: str, name: str = "1", role: str = "actor") -> int:
    """One process of a run inside a worker of `world`; its exit code."""
    os.environ["SPECC_ATTEMPT"] = name
    from runtime.__main__ import main

    return main([plan_file, "ppo", role])


def metrics(folder: Path, role: str = "actor") -> list[dict[str, Any]]:
    """The lines of the actor's metrics that belong to steps."""
    lines = (folder / "ppo" / role / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]
