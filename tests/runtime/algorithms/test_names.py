"""A policy of names, one letter a token: it learns to write them, then what a rule rewards, and no nonsense.

The rule is that a name ends in `a`. Of the data's names one in five does; a policy that has learnt it writes
little else, and still ends its names in time and stays near what names look like.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch

SET = 0.8
"""The mean reward that has to be reached."""


@pytest.fixture(scope="module")
def writer(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a policy that has seen the names some times."""
    import toy_names
    import toy_runs

    folder = tmp_path_factory.mktemp("names")
    file = toy_runs.written(folder / "run", toy_names.writing(folder))
    assert world(1, toy_runs.attempt, str(file), timeout=300) == [0]
    losses = [line["loss"] for line in toy_runs.metrics(folder / "run")]
    assert losses[0] > 5.4  # ln 259, of all bytes
    assert losses[-1] < 2.6  # far below ln 26: it spells
    return folder / "run" / "sft" / "checkpoint"


@pytest.mark.parametrize("program", ["ppo", "grpo"])
def test_a_policy_of_names_learns_a_rule_and_still_writes_names(
    program: str, world: Any, writer: Path, tmp_path: Path
) -> None:
    import toy_names
    import toy_ppo
    import toy_runs

    file = toy_runs.written(tmp_path / "run", toy_names.rewarded(tmp_path, program, writer))
    assert world(1, toy_ppo.attempt, str(file), timeout=300) == [0]
    steps = toy_ppo.metrics(tmp_path / "run")
    rewards = [step["reward"] for step in steps]
    assert len(steps) == 30
    assert sum(rewards[:2]) / 2 < 0.4  # about one in five
    assert sum(rewards[-5:]) / 5 > SET
    assert steps[-1]["ended"] > 0.9
    assert 0.05 < steps[-1]["kl"] < 1.2  # nats a token: it has changed, and not into something else
