"""Jobs to compile for the private cluster: of the stand-in runtime, and of the real one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from specc.plan import Job, Layout, Model, Role, Shape, Weights


def job(
    stage: str = "sft", after: tuple[str, ...] = (), nodes: int = 1, gpus: int = 1, **settings: Any
) -> Job:
    """A job of the stand-in runtime."""
    shape = Shape("llama", 2, 64, 128, 4, 2, 16, 259, 128)
    model = Model("tiny-llama", shape, Weights())
    role = Role("model", "sft", nodes, gpus, Layout(dp=nodes * gpus), 1, 8, model)
    heartbeat = settings.pop("heartbeat_seconds", 600)
    env = settings.pop("env", {})
    return Job(
        stage, stage, nodes, after, (role,), settings, {}, hash=f"hash-of-{stage}", env=env,
        heartbeat_seconds=heartbeat, time_seconds=settings.pop("time_seconds", 3600),
    )  # fmt: skip


def sft(nodes: int = 2, steps: int = 30, save_every: int = 10, **more: Any) -> Job:
    """A job of the real runtime: one process per node trains a tiny Llama on generated sums."""
    train = {
        "steps": steps, "epochs": 0, "lr": 1e-3, "min_lr": 1e-4, "schedule": "cosine", "warmup_steps": 2,
        "constant_steps": 0, "weight_decay": 0.0, "betas": [0.9, 0.95], "epsilon": 1e-8, "clip": 1.0,
        "seq_length": 64, "packing": False, "shuffle": True, "validate_every": 0, "save_every": save_every,
        "log_every": 1, "keep_last": 3, "keep_best": 0, "tensorboard": False, "wandb": None, **more,
    }  # fmt: skip
    plain = job(nodes=nodes)
    answers = {"answer_only": True, "truncation": "right", "add_eos": True, "add_bos": False}
    data = {"train": {"path": "builtin:arithmetic", "format": "auto", "limit": 200}, "validation": None}
    role = replace(plain.roles[0], precision="fp32", distributed_optimizer=False)
    return replace(
        plain,
        roles=(role,),
        settings={"train": train, "sft": answers},
        data=data,
        env={"OMP_NUM_THREADS": "1"},
    )
