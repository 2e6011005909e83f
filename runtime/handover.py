"""What stages leave to one another: rows that others read, and what may go when a later stage has finished.

A section of data may say `from: {stage, run}` in place of a path; `resolved` puts the path there, for
everything that reads data. `discard` removes what a finished job says that nobody needs any more: rows,
shards and checkpoints. How a stage ended (output.json), its metrics and samples stay. Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime import rowstore
from runtime.place import Place, made_by, rows_file
from runtime.problem import Problem
from specc.plan import ANSWER, SERVE, Job, Role

BULKY = ("shards", "checkpoint", "data")
"""Folders of a stage that may be discarded, besides its rows: what it made, and the tokens of what it read. A
role's own checkpoints too, and what a reference said of these tokens."""

GOING = ".discarded-"


def makes_rows(role: Role) -> bool:
    """Whether a role's processes make rows, rather than training a model or serving one."""
    return not role.trains and role.program not in (SERVE, ANSWER)


def sections(job: Job) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every data set of a job with the path by which messages name it."""
    for use, found in job.data.items():
        if isinstance(found, list | tuple):
            yield from ((f"data.{use}[{i}]", each) for i, each in enumerate(found))
        elif found:
            yield f"data.{use}", found


def check(job: Job, place: Place) -> None:
    """The rows that the job is to read are there, whole and as they were made. Problem R024.

    The first process reads them once over; the others look at output.json only.
    """
    for name, settings in sections(job):
        if settings.get("from"):
            _check(name, settings["from"], place)


def resolved(job: Job, place: Place) -> Job:
    """The job with the path of every data set that another stage made."""

    def of(found: Any) -> Any:
        if isinstance(found, list | tuple):
            return [of(each) for each in found]
        if not found or not found.get("from"):
            return found
        return {**found, "path": str(rows_file(found["from"], place.run_folder))}

    return dataclasses.replace(job, data={use: of(found) for use, found in job.data.items()})


def _check(name: str, source: Mapping[str, str], place: Place) -> None:
    stage, file = made_by(source, place.run_folder), rows_file(source, place.run_folder)
    where = f"{name} comes from stage `{source['stage']}`"
    try:
        output = json.loads((stage / "output.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _refusal(f"{where}, but `{stage}` is not finished; run it first") from None
    again = f"make them again with --fresh {source['stage']}"
    if not isinstance(output, dict) or "sha256" not in output:
        raise _refusal(f"{where}, which made no rows: `{stage}`")
    if output.get("discarded"):
        raise _refusal(
            f"{where}, whose rows in `{stage}` were discarded when a later stage finished; {again}"
        )
    if not file.is_file():
        raise _refusal(f"{where}, but `{file}` is gone; {again}")
    if place.is_first and rowstore.sha256_of(file) != output["sha256"]:
        raise _refusal(f"{where}, but `{file}` is not what that stage wrote; {again}")


def _refusal(message: str) -> Problem:
    return Problem("R024", message, outside=True)


# ── retention ────────────────────────────────────────────────────────────────────────────────────


def discard(job: Job, place: Place) -> list[str]:
    """Remove what the finished job says is not needed any more; the names of the stages. OSError.

    Of a stage that has not finished nothing goes: it may have to go on. Called again after a kill, it
    removes the rest.
    """
    done = []
    for name in job.discards:
        stage = place.run_folder / name
        if place.output.exists() and (stage / "output.json").exists():
            if not is_discarded(stage):
                rowstore.note(stage / "output.json", discarded=True)
                done.append(name)
            _remove(stage)
    return done


def is_discarded(stage: Path) -> bool:
    """Whether a stage's rows and checkpoints went when a later one had finished."""
    try:
        found = json.loads((stage / "output.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and bool(found.get("discarded"))


def _remove(stage: Path) -> None:
    """Rename first: what has begun to go is never taken for whole."""
    (stage / rowstore.ROWS).unlink(missing_ok=True)
    numbers = sorted(stage.glob("reference/*/*.npy"))  # of texts, as `runtime.reference` stores them
    inner = {*stage.glob("*/checkpoint"), *(file.parent for file in numbers)}
    for left in stage.glob(f"*/{GOING}*"):  # by a kill, of a role whose checkpoints have lost their name
        shutil.rmtree(left, ignore_errors=True)
    for folder in [stage / name for name in BULKY] + sorted(inner):
        going = folder.with_name(f"{GOING}{folder.name}")
        shutil.rmtree(going, ignore_errors=True)  # what a kill left
        if folder.is_dir() and not folder.is_symlink():
            folder.rename(going)
            shutil.rmtree(going, ignore_errors=True)
