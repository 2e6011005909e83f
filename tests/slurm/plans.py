"""What runs on the private cluster: plans of the stand-in runtime, specs and a profile of the real one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from specc.plan import ANSWER, Job, Layout, Model, Role, Shape, Weights


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


def answering(stage: str = "served", **settings: Any) -> Job:
    """A job that serves until it is told to stop."""
    made = job(stage, **settings)
    [role] = made.roles
    return replace(made, roles=(replace(role, program=ANSWER, trains=False),))


PROFILE = """
gpus: {{type: cpu, per_node: 1}}
scheduler: slurm
slurm: {{exclusive: false, cpus_per_task: 1, signal: 1m}}
runtime: {{python: {python}, path: {project}}}
results: {{path: {results}}}
env: {{OMP_NUM_THREADS: "1"}}
"""

TRAINING = """
algorithm: sft
model: tiny-llama
data: {{train: {data}}}
train: {{steps: {steps}, global_batch: 8, micro_batch: 4, seq_length: 64, lr: 1e-3, save_every: {save_every}}}
nodes: 2
precision: fp32
time: 1h
"""


def spec(steps: int = 30, save_every: int = 10, data: str = "builtin:arithmetic") -> str:
    """SFT of a tiny random Llama on two nodes, one process on each."""
    return "name: tiny\n" + TRAINING.format(steps=steps, save_every=save_every, data=data)


def chain(data: str) -> str:
    """Two stages, the second from the first one's weights."""
    first = TRAINING.format(steps=3, save_every=3, data=data).strip()
    second = TRAINING.format(steps=3, save_every=3, data="builtin:arithmetic").strip()
    second = second.replace("model: tiny-llama", "model: {from: first}")
    stages = {"first": first, "second": second}
    indented = (f"  {name}:\n    " + text.replace("\n", "\n    ") for name, text in stages.items())
    return "name: tiny\nstages:\n" + "\n".join(indented) + "\n"


PPO = """
name: tiny
algorithm: ppo
data: {{prompts: builtin:arithmetic}}
roles:
  actor: {{model: tiny-llama, nodes: 1}}
  critic: {{nodes: 2, train: {{lr: 3e-3, min_lr: 3e-3}}}}
  reward: {{model: tiny-llama}}
generate: {{max_tokens: 4}}
ppo: {{rollouts: 16, kl: {{coefficient: 0.05}}, truncated: keep}}
train: {{steps: {steps}, global_batch: 8, micro_batch: 4, seq_length: 32, lr: 1e-3, save_every: {save_every}}}
precision: fp32
time: 1h
"""


def ppo(steps: int = 6, save_every: int = 1) -> str:
    """PPO of a tiny random Llama: actor and reference on one node, critic and reward model on two."""
    return PPO.format(steps=steps, save_every=save_every)


def two_groups(
    nodes: tuple[int, int] = (1, 2),
    gpus: tuple[int, int] = (1, 1),
    placement: str = "hetjob",
    **settings: Any,
) -> Job:
    """A job of the stand-in runtime with an actor and a critic that serves, each on its own nodes."""
    whole = job("ppo", **settings)
    model = whole.roles[0].model
    roles = tuple(
        Role(name, program, n, g, Layout(dp=n * g), 1, 8, model)
        for name, program, n, g in zip(("actor", "critic"), ("ppo", "serve"), nodes, gpus, strict=True)
    )
    return replace(whole, roles=roles, nodes=sum(nodes), placement=placement)
