"""Corrections of the planner's numbers, learnt from runs that were measured on a cluster.

Each role of a run is one `Measurement`: what the planner predicts for it without any correction, and what
it took. Those of a cluster lie in `NAME.calibration.json` where its profile could lie, and are part of the
profile: the same spec, profile and measurements give the same plan. For one GPU, precision and kind of
layers the correction is the geometric mean of measured over predicted, once for time and once for the bytes
inside the allocator; what it was learnt from is kept and named.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
SUFFIX = ".calibration.json"


class Unusable(ValueError):
    """A file is no run or no calibration; the message names it and says why."""


@dataclass(frozen=True)
class Measurement:
    """One role of one run. GiB are those inside the allocator at the worst rank; 0 for not measured."""

    run: str
    stage: str
    role: str
    gpu: str
    precision: str
    implementation: str
    layout: str
    steps: int
    predicted_seconds: float  # for as many tokens as were there
    measured_seconds: float
    predicted_gib: float = 0.0
    measured_gib: float = 0.0

    @property
    def time(self) -> float:
        return self.measured_seconds / self.predicted_seconds

    @property
    def memory(self) -> float:
        """1 where nothing was measured."""
        return self.measured_gib / self.predicted_gib if self.measured_gib and self.predicted_gib else 1.0


@dataclass(frozen=True)
class Correction:
    """Factors on predicted seconds and bytes, and how many runs they come from: 0 for none."""

    time: float = 1.0
    memory: float = 1.0
    runs: int = 0

    def __str__(self) -> str:
        if not self.runs:
            return "not calibrated"
        counted = f"{self.runs} run" + ("s" if self.runs > 1 else "")
        return f"calibrated by {counted}: time x{self.time:.2f}, memory x{self.memory:.2f}"


@dataclass(frozen=True)
class Calibration:
    """All measurements of one cluster."""

    measurements: tuple[Measurement, ...] = ()

    def correction(self, gpu: str, precision: str, implementation: str) -> Correction:
        """The correction of what runs so on this GPU."""
        key = (gpu, precision, implementation)
        fitting = [m for m in self.measurements if (m.gpu, m.precision, m.implementation) == key]
        if not fitting:
            return Correction()
        measured = [m.memory for m in fitting if m.measured_gib]
        return Correction(
            round(_geometric_mean([m.time for m in fitting]), 4),
            round(_geometric_mean(measured), 4) if measured else 1.0,
            len({m.run for m in fitting}),
        )

    def with_run(self, measured: Sequence[Measurement]) -> Calibration:
        """These measurements too, in place of earlier ones of the same role of the same run."""
        new = {(m.run, m.stage, m.role) for m in measured}
        kept = [m for m in self.measurements if (m.run, m.stage, m.role) not in new]
        together = sorted([*kept, *measured], key=lambda m: (m.run, m.stage, m.role))
        return Calibration(tuple(together))


def _geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs))


# --- files ---------------------------------------------------------------------------------------------


def read(file: Path) -> Calibration:
    """The calibration in `file`; none when there is no file. Unusable when it is something else."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Calibration()
    except (OSError, ValueError, RecursionError) as error:
        raise Unusable(f"{file} is no calibration: {reason(error)}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise Unusable(f"{file} is no calibration of format {FORMAT}; calibrate again")
    try:
        return Calibration(tuple(_measurement(entry) for entry in data["measurements"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Unusable(f"{file} is no calibration: {error!r}; calibrate again") from None


def _measurement(entry: dict[str, Any]) -> Measurement:
    found = Measurement(**entry)
    for field in dataclasses.fields(Measurement):
        value = getattr(found, field.name)
        kinds = {"str": str, "int": int, "float": (int, float)}[str(field.type)]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{field.name} is {value!r}")
        if isinstance(value, (int, float)) and not (0 <= value < math.inf):
            raise ValueError(f"{field.name} is {value!r}")
    if not (found.predicted_seconds > 0 and found.measured_seconds > 0):
        raise ValueError("seconds are 0")
    return found


def write(calibration: Calibration, file: Path) -> None:
    """Write it, by one rename. OSError when it cannot be written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    entries = [dataclasses.asdict(m) for m in calibration.measurements]
    new = file.with_name(f".{file.name}.new")
    new.write_text(json.dumps({"format": FORMAT, "measurements": entries}, indent=2) + "\n", encoding="utf-8")
    new.replace(file)


def reason(error: Exception) -> str:
    """Why a file cannot be used, in a few words."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
