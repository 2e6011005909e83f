"""The files that a spec names, looked at while compiling: absent is a warning, bad is an error."""

from __future__ import annotations

from pathlib import Path

from specc.diagnostics import Diagnostic
from specc.experiment import Experiment


def check(experiment: Experiment, folder: Path, strict: bool = False) -> list[Diagnostic]:
    """What is wrong with the data and models named by path, seen from `folder`, where the spec lies."""
    return []
