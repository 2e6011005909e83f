"""Ranks that do something together either all have the results or all raise the same problem."""

import pytest

from runtime.agreement import reason, together, told
from runtime.problem import Problem

pytestmark = pytest.mark.torch


def acted(failing: list[int]) -> tuple[str, object]:
    """Join the others; ranks in `failing` fail; what comes of it."""
    import torch.distributed as dist

    dist.init_process_group("gloo")

    def act() -> int:
        if dist.get_rank() in failing:
            raise OSError(28, "No space left on device", "/disk/file")
        return dist.get_rank() * 10

    try:
        return "results", together("R020", "cannot write", act)
    except Problem as problem:
        return "problem", (str(problem), problem.outside)


def heard() -> object:
    """What rank 0 says, on this rank."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    return told("R020", "cannot say", lambda: f"rank {dist.get_rank()} speaks")


def test_every_rank_has_every_result(world):
    assert world(2, acted, []) == [("results", [0, 10])] * 2


def test_every_rank_hears_of_the_failure_of_one(world):
    said = "R020: cannot write on rank 1: no space left on device (`/disk/file`)"
    assert world(2, acted, [1]) == [("problem", (said, True))] * 2


def test_a_failure_of_all_ranks_is_of_none_in_particular(world):
    said = "R020: cannot write: no space left on device (`/disk/file`)"
    assert world(2, acted, [0, 1]) == [("problem", (said, True))] * 2


def test_only_rank_0_acts_when_the_others_are_told(world):
    assert world(2, heard) == ["rank 0 speaks"] * 2


def test_alone_it_is_a_call():
    assert together("R020", "cannot", lambda: 7) == [7]
    with pytest.raises(Problem, match="R020: cannot: because"):
        together("R020", "cannot", _fail)


def test_a_reason_is_one_line():
    assert reason(RuntimeError("first\n  second")) == "first second"
    assert reason(ValueError()) == "ValueError"


def _fail() -> None:
    raise ValueError("because")
