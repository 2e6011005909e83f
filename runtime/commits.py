"""Steps that several roles have saved together: `DIR/STAGE/commits/N.json`.

Each role saves a checkpoint of its own; the step counts once its commit is there, which names the manifest of
every role's checkpoint with its checksum. So a kill between two saves leaves nobody a step ahead: what has no
commit is never resumed. Whoever prunes keeps the step of the newest commit until the next one is there.

    {"format": 1, "step": 20, "manifests": {"actor": {"path": "actor/checkpoint/step-20/MANIFEST.json",
                                                      "bytes": 1234, "sha256": "..."}, "critic": ...}}

Paths are relative to the stage's folder. Standard library only; one process (rank 0) calls these functions.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime import manifest
from runtime.manifest import FileRecord
from runtime.steps import name_of, steps_in
from specc.plan import Job

FORMAT = 1
ASIDE = ".uncommitted"
"""What is added to the name of a step's folder that was never committed."""


LEARNERS = ("actor", "critic")
"""The roles that have something to save."""


@dataclass(frozen=True)
class Commits:
    """The commits of a stage by these roles."""

    stage: Path
    roles: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return self.stage / "commits"

    def checkpoints(self, role: str) -> Path:
        """Where a role's checkpoints lie."""
        return self.stage / role / "checkpoint"

    def write(self, step: int) -> None:
        """Commit a step that every role has saved; it is on the disk afterwards. OSError."""
        named = {role: self.checkpoints(role) / name_of(step) / manifest.NAME for role in self.roles}
        manifests = {
            role: {"path": str(path.relative_to(self.stage)), **asdict(manifest.record(path))}
            for role, path in named.items()
        }
        content = {"format": FORMAT, "step": step, "manifests": manifests}
        self.folder.mkdir(parents=True, exist_ok=True)
        manifest.replace_durably(self._file(step), json.dumps(content, indent=1, sort_keys=True).encode())
        self._tidy(step)

    def written(self) -> list[int]:
        """The steps that have a commit, in order, whether or not their checkpoints are there."""
        names = (path.stem for path in self.folder.glob("*.json") if not path.name.startswith("."))
        return sorted(int(name) for name in names if name.isdecimal())

    def whole(self) -> list[int]:
        """The steps whose commit names just the manifests that are there, in order."""
        return [step for step in self.written() if not self.problem(step)]

    def problem(self, step: int) -> str:
        """Why a step's commit does not count; empty when it does. Reads no checkpoint, only manifests."""
        try:
            found = json.loads(self._file(step).read_bytes())
            records = {role: _record(found["manifests"][role]) for role in self.roles}
            is_ours = found["format"] == FORMAT and found["step"] == step
        except (OSError, ValueError, KeyError, TypeError):
            return f"`{self._file(step)}` cannot be read"
        if not is_ours:
            return f"`{self._file(step)}` is of another format or step"
        for role, wanted in records.items():
            path = self.checkpoints(role) / name_of(step) / manifest.NAME
            if problem := manifest.problem(path, str(path.relative_to(self.stage)), wanted):
                return problem
        return ""

    def _tidy(self, newest: int) -> None:
        """Remove earlier commits whose checkpoints were pruned, and what was set aside up to here."""
        for step in self.written():
            if step < newest and self.problem(step):
                self._file(step).unlink(missing_ok=True)
        for role in self.roles:
            for path in self.checkpoints(role).glob(f"step-*{ASIDE}"):
                number = path.name.removeprefix("step-").removesuffix(ASIDE)
                if number.isdecimal() and int(number) <= newest:
                    shutil.rmtree(path, ignore_errors=True)

    def _file(self, step: int) -> Path:
        return self.folder / f"{step}.json"


def commits_of(job: Job, stage: Path) -> Commits | None:
    """The commits of a job's stage; None where fewer than two roles learn, and a save needs no partner."""
    roles = tuple(role.name for role in job.roles if role.name in LEARNERS)
    return Commits(stage, roles) if len(roles) > 1 else None


def set_aside(folder: Path, after: int) -> list[int]:
    """Rename the steps of a folder that come after `after`, which nobody may resume; which they were."""
    moved = [step for step in steps_in(folder) if step > after]
    for step in moved:
        aside = folder / f"{name_of(step)}{ASIDE}"
        shutil.rmtree(aside, ignore_errors=True)
        (folder / name_of(step)).rename(aside)
    return moved


def _record(entry: Any) -> FileRecord:
    return FileRecord(bytes=int(entry["bytes"]), sha256=str(entry["sha256"]))
