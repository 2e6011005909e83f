"""A run folder as values: its plan, what each stage came to, curves, samples, predicted and measured.

Everything is read with care: a run may still be running, its last line half written, a file missing or
torn. What cannot be read is left out and said.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specc.calibration import Measurement, Unusable
from specc.plan import Job, Plan, Role, role_folder
from specc.planner.calibration import measured_run

MOST_SAMPLES = 20
NOT_CURVES = frozenset({"step", "data_hash", "epoch"})


@dataclass(frozen=True)
class RoleReport:
    """One role of a stage: its curves by metric, (step, value) each."""

    job: Job
    role: Role
    curves: dict[str, tuple[tuple[float, float], ...]]
    samples: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """`sft`, or `ppo/actor` where the stage has several roles."""
        return f"{self.job.stage}/{role_folder(self.job, self.role.name)}".rstrip("/")


@dataclass(frozen=True)
class RunReport:
    """One run. `state` by stage: finished, in progress or not begun."""

    name: str
    plan: Plan
    state: dict[str, str]
    roles: tuple[RoleReport, ...]
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = field(default=())


def read_run(folder: Path) -> RunReport:
    """The run in `folder`. Unusable when it is no run folder."""
    plan, measurements, _ = measured_run(folder)
    notes: list[str] = []
    roles = []
    for job in plan.jobs:
        for role in job.roles:
            place = folder / job.stage / role_folder(job, role.name)
            curves, torn = read_curves(place / "metrics.jsonl")
            if torn:
                notes.append(f"{place / 'metrics.jsonl'} has {torn} lines that cannot be read")
            roles.append(RoleReport(job, role, curves, read_samples(place / "samples.jsonl")))
    state = {job.stage: _state(folder / job.stage) for job in plan.jobs}
    return RunReport(folder.resolve().name, plan, state, tuple(roles), tuple(measurements), tuple(notes))


@dataclass(frozen=True)
class Gain:
    """What a metric was at first and came to: means over the first and the last tenth of its values."""

    role: str
    metric: str
    first: float
    last: float


GAINS = (
    *("loss", "validation_loss", "validation_acc", "reward", "validation_reward"),
    *("validation_right", "kl", "response_length", "explained_variance"),
)
"""Metrics that tell what a stage was good for."""


def gains(run: RunReport) -> list[Gain]:
    """What each stage changed, in the order of the stages; a reward tells more than the loss beside it."""
    found = []
    for role in run.roles:
        for metric in GAINS:
            values = [value for _, value in role.curves.get(metric, ())]
            if values and not (metric == "loss" and "reward" in role.curves):
                tenth = max(1, len(values) // 10)
                first, last = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
                found.append(Gain(role.name, metric, first, last))
    return found


def _state(stage: Path) -> str:
    if (stage / "output.json").exists():
        return "finished"
    return "in progress" if (stage / "metrics.jsonl").exists() or stage.is_dir() else "not begun"


def read_curves(file: Path) -> tuple[dict[str, tuple[tuple[float, float], ...]], int]:
    """Every number of `metrics.jsonl` by its key, and how many lines but the last cannot be read."""
    found: dict[str, list[tuple[float, float]]] = {}
    torn = 0
    for number, line in enumerate(lines := _lines(file), start=1):
        try:
            values = json.loads(line)
            step = float(values["step"])
        except (ValueError, KeyError, TypeError, RecursionError):
            torn += number < len(lines)
            continue
        for key, value in values.items():
            if key not in NOT_CURVES and isinstance(value, (int, float)) and not isinstance(value, bool):
                found.setdefault(key, []).append((step, float(value)))
    return {key: tuple(points) for key, points in found.items()}, torn


def read_samples(file: Path) -> tuple[dict[str, Any], ...]:
    """The newest rows of `samples.jsonl`, the first columns first."""
    rows = []
    for line in _lines(file)[-MOST_SAMPLES:]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return tuple(rows)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unusable(f"{file} cannot be read: {(error.strerror or str(error)).lower()}") from None
