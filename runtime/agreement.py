"""Ranks that do something together and agree whether it worked.

A rank that fails alone (a full disk, a file it cannot read) would leave the others waiting in the next
collective until it times out. So each thing that can fail on one rank is done by `together`: afterwards
either every rank has every rank's result, or every rank raises the same problem.

A process that has not imported torch is alone, and this module does not make it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from runtime.failure import as_problem
from runtime.problem import Problem

T = TypeVar("T")


def rank() -> int:
    """This process among those that work together; 0 when it is alone."""
    dist = _distributed()
    return dist.get_rank() if dist else 0


def size() -> int:
    """How many processes work together."""
    dist = _distributed()
    return dist.get_world_size() if dist else 1


def together(code: str, what: str, action: Callable[[], T]) -> list[T]:
    """Run `action` on this rank; the results of all ranks, by rank, on each of them.

    When it fails on any rank, every rank raises the same `Problem` of `code`: what failed, on which
    rank, and why. Collective: all ranks have to call it, with results that can be pickled.
    """
    failure = None
    outcome: Any = None
    try:
        outcome = action()
    except Exception as error:  # whatever it is, the other ranks have to hear of it
        failure = (reason(error), is_outside(error))
    outcomes = _gathered((outcome, failure))
    failures = [(number, *failed) for number, (_, failed) in enumerate(outcomes) if failed]
    if failures:
        number, why, outside = failures[0]
        where = f" on rank {number}" if len(outcomes) > 1 and len(failures) < len(outcomes) else ""
        raise Problem(code, f"{what}{where}: {why}", outside=outside)
    return [outcome for outcome, _ in outcomes]


def shared(action: Callable[[], T]) -> list[T]:
    """As `together`, for what tells its problems itself: every rank raises the first rank's own `Problem`."""
    problem, outcome = None, None
    try:
        outcome = action()
    except Exception as error:
        problem = as_problem(error)
    told = (problem.code, problem.message, problem.outside) if problem else None
    outcomes = _gathered((outcome, told))
    for _, failed in outcomes:
        if failed:
            raise Problem(failed[0], failed[1], outside=failed[2])
    return [outcome for outcome, _ in outcomes]  # type: ignore[misc]


def said(action: Callable[[], T]) -> T:
    """As `told`, for what tells its problems itself: every rank raises rank 0's own `Problem`."""
    return shared(lambda: action() if rank() == 0 else None)[0]  # type: ignore[return-value]


def told(code: str, what: str, action: Callable[[], T]) -> T:
    """Run `action` on rank 0 only; its result on every rank, or the same `Problem` on every rank."""
    return together(code, what, lambda: action() if rank() == 0 else None)[0]  # type: ignore[return-value]


def reason(error: BaseException) -> str:
    """Why something failed, in a few words and without a traceback."""
    if isinstance(error, Problem):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        name = f" (`{error.filename}`)" if error.filename else ""
        return f"{error.strerror.lower()}{name}"
    return " ".join(str(error).split())[:300] or type(error).__name__


def is_outside(error: BaseException) -> bool:
    """Whether the machine is to blame (a disk, a file's rights) rather than the plan or the data."""
    return error.outside if isinstance(error, Problem) else isinstance(error, OSError)


def _gathered(value: T) -> list[T]:
    dist = _distributed()
    if dist is None or size() == 1:
        return [value]
    values: list[T] = [value] * size()
    dist.all_gather_object(values, value)
    return values


def _distributed() -> Any:
    """torch.distributed where it has been imported and its groups are there, else None."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None
