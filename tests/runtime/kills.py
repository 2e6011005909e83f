"""PPO as real processes of two groups that are killed at a moment, run on, and looked at.

The actor and its reference are one group of ranks; the critic and the reward model serve it from another. A
kill is one SIGKILL to one rank; then, as a launcher does, what is left is ended. The next attempt starts in
the same folder.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import toy_runs
import toy_served
import worlds

from specc.plan import Layout, Plan

STEPS, ROLLOUTS, PROMPTS = 6, 8, 16
ROLES = ("actor", "critic")
LIMIT = 600  # seconds of an attempt: a machine may be busy with other things
MOMENTS = {
    "a response is there": ("runtime.far", "Far.ask", 9),
    "the judges have answered": ("runtime.algorithms.ppo", "lessons", 2),
    "the critic learns": ("runtime.engine", "Engine.optim_step", 2),
    "the actor learns": ("runtime.engine", "Engine.optim_step", 2),
    "the critic saves": ("runtime.torch_dist", "write", 2),
    "the critic has saved, the actor has not": ("runtime.checkpoint", "save", 3),
    "the actor saves": ("runtime.torch_dist", "write", 2),
    "both have saved, nothing is committed": ("runtime.commits", "Commits.write", 3),
}
"""What is called when a rank kills itself, and the how manieth time."""


@dataclass(frozen=True)
class Kill:
    """Rank `rank` of `group` dies at a moment of MOMENTS, or so many seconds after its first step."""

    group: str
    rank: int
    moment: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        when = self.moment or f"{self.seconds:.2f} s after the first step"
        return f"{self.group} {self.rank}, {when}"


def plan(folder: Path, layout: Layout) -> Plan:
    """Both groups of the same layout; every prompt can be told from every other."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"text": f"{i:02d}" + "q" * (i % 5)}) + "\n" for i in range(PROMPTS)))
    return toy_served.plan(
        file,
        layout,
        actor=layout,
        train={"steps": STEPS, "save_every": 1},
        ppo={"rollouts": ROLLOUTS, "kl_target": 0.1},
    )


def attempt(forks: Any, folder: Path, found: Plan, name: str, kill: Kill | None = None) -> bool:
    """One attempt at the job in the folder `run`; was it finished before it was killed?"""
    file, groups = toy_runs.written(folder / "run", found), toy_served.sizes(found.jobs[0])
    ports, workers, pipes = toy_served.ports_of(groups), {}, []
    everyone = [(group, rank) for group, size in groups.items() for rank in range(size)]
    for number, (group, rank) in enumerate(everyone):
        mine = kill if kill and (kill.group, kill.rank) == (group, rank) else None
        task = partial(one, str(file), groups, ports, name, mine)
        receiver, sender = forks.Pipe(duplex=False)
        place = worlds.environment_of(number, len(everyone), worlds.free_port())
        worker = forks.Process(target=worlds.work, args=(sender, place, task), daemon=False)
        worker.start()
        sender.close()
        workers[group, rank] = worker
        pipes.append(receiver)
    try:
        if kill and not kill.moment:
            after_the_first_step(folder, list(workers.values()), kill.seconds)
            os.kill(workers[kill.group, kill.rank].pid, signal.SIGKILL)
        codes = worlds.collect(pipes, LIMIT)
    except (worlds.WorldFailed, ProcessLookupError):
        if kill is None:
            raise
        return False
    finally:
        for worker in workers.values():
            if worker.is_alive():
                worlds._kill(worker.pid)
            worker.join(10)
    assert codes == [0] * len(codes), f"exit codes {codes}"
    return True


def one(file: str, groups: dict[str, int], ports: dict[str, list[int]], name: str, kill: Kill | None) -> int:
    """One process, which writes down all rollouts and may be doomed."""
    from runtime.algorithms import ppo

    ppo.SHOWN = ROLLOUTS
    if kill and kill.moment:
        doom(*MOMENTS[kill.moment])
    return toy_served.started(file, groups, ports, name)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doom(module: str, name: str, count: int, end: Callable[[], None] = die) -> None:
    """Let this process kill itself, or `end` what shall end, when that is called for the `count`th time."""
    import importlib

    owner: Any = importlib.import_module(module)
    *classes, last = name.split(".")
    for each in classes:
        owner = getattr(owner, each)
    plain, calls = getattr(owner, last), []

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == count:
            end()
        return plain(*given, **named)

    setattr(owner, last, counted)


def after_the_first_step(folder: Path, workers: list[Any], seconds: float) -> None:
    """Wait until this attempt has saved a step, or a process has ended, and a little longer."""
    commits = folder / "run" / "ppo" / "commits"
    before, limit = newest(commits), time.monotonic() + LIMIT
    while newest(commits) <= before and all(w.is_alive() for w in workers) and time.monotonic() < limit:
        time.sleep(0.01)
    time.sleep(seconds)


def newest(commits: Path) -> int:
    return max((int(path.stem) for path in commits.glob("*.json")), default=0)


# ── what must not depend on kills ────────────────────────────────────────────────────────────────


def series(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All that both roles say of their steps but for time and memory, and all rollouts."""
    stage, measured = folder / "run" / "ppo", ("_seconds", "_per_second", "_gib", "_per_gpu")
    found = {}
    for role in ROLES:
        rows = map(json.loads, (stage / role / "metrics.jsonl").read_text().splitlines())
        found[role] = [{k: v for k, v in row.items() if not k.endswith(measured)} for row in rows]
    found["rollouts"] = [json.loads(line) for line in (stage / "actor" / "samples.jsonl").open()]
    return found


def lost_or_repeated(folder: Path) -> list[str]:
    """Prompts that were not answered once in every pass over the data."""
    asked = Counter(row["prompt"] for row in series(folder)["rollouts"])
    passes = STEPS * ROLLOUTS // PROMPTS
    prompts = [json.loads(line)["text"] for line in (folder / "prompts.jsonl").open()]
    return [prompt for prompt in prompts if asked[prompt] != passes] + sorted(set(asked) - set(prompts))


def drawn(draw: random.Random, number: int, ranks: int) -> Kill:
    """The kill of that number: each moment in turn, and every other one at a time that chance finds."""
    if number % 2:
        return Kill(draw.choice(ROLES), draw.randrange(ranks), seconds=draw.uniform(0.0, 1.5))
    moment = list(MOMENTS)[number // 2 % len(MOMENTS)]
    group = "critic" if moment in ("the critic learns", "the critic saves") else "actor"
    return Kill(group, draw.randrange(ranks) if moment.endswith(("learns", "saves")) else 0, moment)
