"""Plans of PPO whose critic and reward model are processes of their own, and how to run their groups here."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import toy_ppo
import toy_runs
import worlds

from specc.plan import SERVE, Job, Layout, Plan, Weights

REWARD_SEED = 99


def plan(
    data: Path,
    layout: Layout | None = None,
    *,
    actor: Layout | None = None,
    apart: bool = False,
    attributes: tuple[str, ...] = (),
    reward: Weights | None = None,
    **more: Any,
) -> Plan:
    """The actor with its reference, and a critic with a reward model of `layout`, or each by itself."""
    found = toy_ppo.plan(data, actor, reward=reward or Weights(), **more)
    layout = layout or Layout()
    roles = []
    for role in found.jobs[0].roles:
        if role.name in ("critic", "reward"):
            group = role.name if apart else "critic"
            role = dataclasses.replace(
                role, program=SERVE, group=group, layout=layout, gpus=layout.world_size
            )
        if role.name == "reward":
            head = "attributes" if attributes else "scalar"
            model = dataclasses.replace(role.model, head=head, attributes=attributes)
            role = dataclasses.replace(role, model=model, trains=False)
        roles.append(role)
    job = dataclasses.replace(found.jobs[0], roles=tuple(roles))
    return dataclasses.replace(found, jobs=(job,))


def trained_reward(folder: str, found: Plan, broken: bool = False) -> None:
    """A stage `rm` in a run folder that left the reward model of this plan with other weights, in `world`."""
    import saves
    import torch

    from runtime import checkpoint
    from runtime.engine import Engine

    [role] = [role for role in found.jobs[0].roles if role.name == "reward"]
    here = saves.opened(dataclasses.replace(role, layout=Layout(), gpus=1), train=False).parallel
    engine = Engine(dataclasses.replace(role, layout=Layout()), here, None, seed=REWARD_SEED)
    if broken:
        with torch.no_grad():
            engine.chunks[0].output_layer.weight.fill_(float("nan"))
    checkpoint.save(Path(folder) / "rm" / "checkpoint", 1, engine, {})
    said = {"weights": [1.0], "reward_mean": 0.5, "reward_std": 2.0}
    (Path(folder) / "rm" / "output.json").write_text(json.dumps(said))


def started(plan_file: str, groups: dict[str, int], ports: dict[str, list[int]], name: str = "1") -> int:
    """One process of one of several groups inside a worker of `world`; its exit code."""
    everyone = [(group, rank, size) for group, size in groups.items() for rank in range(size)]
    group, rank, size = everyone[int(os.environ["RANK"])]
    meeting, door = ports[group]
    os.environ.update(worlds.environment_of(rank, size, meeting))
    os.environ["SPECC_LISTEN"] = f"127.0.0.1:{door}"
    os.environ["SPECC_PEERS"] = ",".join(f"{other}=127.0.0.1:{ports[other][1]}" for other in ports)
    code = toy_ppo.attempt(plan_file, name, group)
    if group == "actor" and code == 0:
        over(Path(plan_file), name)
    return code


def over(plan_file: Path, name: str = "1") -> None:
    """What the launcher says when the first group has ended."""
    attempt = plan_file.parent / "ppo" / "attempts" / name
    attempt.mkdir(parents=True, exist_ok=True)  # a job that is finished already makes none
    (attempt / "over").touch()


def ports_of(groups: dict[str, int]) -> dict[str, list[int]]:
    return {group: [worlds.free_port(), worlds.free_port()] for group in groups}


def sizes(job: Job) -> dict[str, int]:
    return {group.name: group.role.layout.world_size for group in job.groups}


def run(world: Any, folder: Path, found: Plan, name: str = "1", **more: Any) -> list[int]:
    """All groups of the job to their end; the exit codes of all processes, the actor's first."""
    file, groups = toy_runs.written(folder, found), sizes(found.jobs[0])
    return world(sum(groups.values()), started, str(file), groups, ports_of(groups), name, **more)


@contextmanager
def serving(world: Any, folder: Path, found: Plan, name: str = "1") -> Iterator[tuple[str, str, Future[Any]]]:
    """The first group that serves, alone: its address, its token, and the exit codes to come."""
    file = toy_runs.written(folder, found)
    groups = {group.name: group.role.layout.world_size for group in found.jobs[0].groups if group.serves}
    groups = dict(list(groups.items())[:1])
    ports = ports_of(groups)
    attempt = folder / "ppo" / "attempts" / name
    with ThreadPoolExecutor(1) as pool:
        codes = pool.submit(world, sum(groups.values()), started, str(file), groups, ports, name)
        try:
            address = f"127.0.0.1:{ports[next(iter(groups))][1]}"
            token = eventually(lambda: (attempt / "token").read_text(), codes)
            yield address, token, codes
        finally:
            attempt.mkdir(parents=True, exist_ok=True)
            over(file, name)


def eventually(look: Callable[[], Any], codes: Future[Any], seconds: float = 60) -> Any:
    """What `look` says once it does not raise; AssertionError when the processes end before."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return look()
        except OSError:
            assert not codes.done(), codes.result()
            assert time.monotonic() < deadline
            time.sleep(0.05)
