"""The loop: everything that can happen at a step has a line here."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.run import Run


def train(run: Run) -> bool:
    """Turn until the last step or until told to stop; was the last step reached?"""
    step = program(run.role.program).step
    run.resume()
    while run.step < run.max_steps and not run.is_told_to_stop():
        metrics = step(run)  # the algorithm
        run.step += 1
        run.log(metrics)
        run.evaluate_if_due()
        run.save_if_due()
    run.save()
    return run.step >= run.max_steps


def program(name: str) -> ModuleType:
    """The algorithm of that name: a module of `runtime/algorithms` with `step(run)`."""
    return import_module(f"runtime.algorithms.{name}")
