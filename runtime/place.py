"""Where a run's files lie, and which of its processes this one is.

    DIR/plan.json
    DIR/STAGE/[ROLE/]metrics.jsonl        DIR/STAGE/[ROLE/]checkpoint/step-N/
    DIR/STAGE/[ROLE/]measured.json        memory and time that it took, for `specc calibrate`
    DIR/STAGE/rows.jsonl, shards/         of a stage that makes rows: all of them; while it works
    DIR/STAGE/output.json                 written last: the stage is finished
    DIR/STAGE/identity.json               which experiment the folder belongs to
    DIR/STAGE/stop, heartbeat             asked to stop; still alive
    DIR/STAGE/[ROLE/].lock                held while a run writes here
    DIR/STAGE/attempts/K/                 what one attempt left behind

Standard library only: preflight reads it before torch is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from specc.plan import Job, role_folder


@dataclass(frozen=True)
class Place:
    """One process of one role of one job."""

    run_folder: Path
    stage: Path  # run_folder / stage
    role: Path  # where metrics and checkpoints go: `stage`, or a folder in it when roles are several
    attempt: Path
    rank: int
    world: int
    local_rank: int
    local_world: int

    @property
    def is_first(self) -> bool:
        """Rank 0 writes what is written once."""
        return self.rank == 0

    @property
    def speaks_for_node(self) -> bool:
        """The first process of a machine."""
        return self.local_rank == 0

    @property
    def nodes(self) -> int:
        """Machines that the role runs on."""
        return max(self.world // max(self.local_world, 1), 1)

    @property
    def errors(self) -> Path:
        """Where the ranks of this group write what went wrong: the attempt's folder, or one of their own."""
        return self.attempt if self.role == self.stage else self.attempt / self.role.name

    @property
    def output(self) -> Path:
        return self.stage / "output.json"

    @property
    def checkpoints(self) -> Path:
        return self.role / "checkpoint"


def made_by(source: Mapping[str, str], run_folder: Path) -> Path:
    """The folder of the stage that a plan's `from` names: of this run, or of another."""
    return (Path(source["run"]) if source.get("run") else run_folder) / source["stage"]


def rows_file(source: Mapping[str, str], run_folder: Path) -> Path:
    """The rows that the stage of a plan's `from` made."""
    return made_by(source, run_folder) / "rows.jsonl"


def place_of(plan_file: Path, job: Job, role: str, environment: Mapping[str, str]) -> Place:
    """From torchrun's variables; without them this is the only process."""
    folder = plan_file.resolve().parent
    stage = folder / job.stage
    local_rank = int(environment.get("LOCAL_RANK", "0"))
    world = int(environment.get("WORLD_SIZE", "1"))
    return Place(
        run_folder=folder,
        stage=stage,
        role=stage / role_folder(job, role),
        attempt=stage / "attempts" / attempt_name(environment),
        rank=int(environment.get("RANK", "0")),
        world=world,
        local_rank=local_rank,
        local_world=int(environment.get("LOCAL_WORLD_SIZE", str(world))),
    )


def attempt_name(environment: Mapping[str, str]) -> str:
    """What the launcher said in SPECC_ATTEMPT; else the id of the process that started the ranks."""
    stated = environment.get("SPECC_ATTEMPT", "")
    name = stated if stated and "/" not in stated else f"by-{os.getppid()}"
    restarts = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return name if restarts == "0" else f"{name}.{restarts}"
