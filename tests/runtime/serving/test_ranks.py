"""Two ranks behind one desk: each request once, on both, and failures told before the server ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch


def served(failing: bool = False) -> dict[str, Any]:
    """A rank: `count` counts how often it was asked, over both ranks; the client is a thread of rank 0."""
    import threading

    import torch
    import torch.distributed as dist

    from runtime import cpu
    from runtime.problem import Problem
    from runtime.serving import ranks
    from runtime.serving.desk import Desk, Refused

    cpu.install()
    dist.init_process_group("gloo")
    ranks.IDLE_SECONDS = 0.05
    calls = {"count": 0}

    def count(inputs: dict[str, Any]) -> dict[str, Any]:
        if inputs["x"][0] < 0:
            raise Refused("x is negative")
        calls["count"] += 1
        total = torch.tensor([float(calls["count"])])
        dist.all_reduce(total)
        if inputs["x"][0] == 13 and dist.get_rank() == 1:
            raise ValueError("unlucky")
        return {"y": inputs["x"] * 2, "calls": total.numpy()}

    desk = Desk() if dist.get_rank() == 0 else None
    said: list[Any] = []
    over = threading.Event()

    def client() -> None:
        assert desk is not None
        for x, id in ((1, "a"), (2, ""), (1, "a"), (-1, "b"), *(((13, "c"),) if failing else ())):
            try:
                answer = desk.submit("count", {"x": np.array([x])}, id).result(20)
                said.append({name: value.tolist() for name, value in answer.items()})
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        over.set()

    thread = threading.Thread(target=client)
    if desk is not None:
        thread.start()
    ended = ""
    try:
        ranks.work(desk, {"count": count}, over.is_set, lambda: None)
    except Problem as problem:
        ended = str(problem)
    if desk is not None:
        thread.join(20)
        try:
            desk.submit("count", {})
        except RuntimeError as error:
            said.append(str(error))
    return {"said": said, "calls": calls["count"], "ended": ended}


def failing() -> dict[str, Any]:
    return served(failing=True)


ANSWERS = [{"y": [2], "calls": [2.0]}, {"y": [4], "calls": [4.0]}, {"y": [2], "calls": [2.0]}]


def test_each_request_is_worked_on_by_all_and_the_same_id_only_once(world: Any) -> None:
    first, second = world(2, served)
    assert first["said"] == [*ANSWERS, "Refused: x is negative", "the server is ending"]
    assert (first["calls"], second["calls"]) == (2, 2)
    assert first["ended"] == second["ended"] == ""


def test_a_failing_rank_is_told_to_the_client_and_ends_all(world: Any) -> None:
    first, second = world(2, failing)
    assert first["said"][4] == "RuntimeError: `count` failed on rank 1: unlucky"
    assert first["ended"] == second["ended"] == "R054: `count` failed on rank 1: unlucky"
