"""PPO: its formulas against float64, and runs of a tiny model under every layout."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch


def run(world: Any, folder: Path, found: Any, n: int = 1, name: str = "1") -> list[dict[str, Any]]:
    import toy_ppo
    import toy_runs

    file = toy_runs.written(folder, found)
    assert world(n, toy_ppo.attempt, str(file), name) == [0] * n
    return toy_ppo.metrics(folder)


def test_a_step_begins_with_a_ratio_of_one_and_no_kl(world: Any, tmp_path: Path) -> None:
    import toy_ppo

    found = toy_ppo.plan(toy_ppo.prompts(tmp_path), ppo={"rollouts": 8}, train={"steps": 2})
    first, second = run(world, tmp_path / "run", found)
    assert first["ratio"] == 1.0
    assert first["policy_kl"] == 0.0
    assert first["kl"] == 0.0  # the reference is the same model in the same place
    assert second["ratio"] == 1.0
    assert second["kl"] != 0.0
    assert first["sampler_gap"] < 1e-5
