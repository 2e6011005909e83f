"""PPO whose processes are killed goes on as if they had not been: no prompt is lost, none comes twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specc.plan import Layout

pytestmark = pytest.mark.torch


def test_three_kills_change_nothing_that_actor_and_critic_say(forks: Any, tmp_path: Path) -> None:
    import kills
    from kills import Kill

    layout = Layout(dp=2)
    assert kills.attempt(forks, tmp_path / "whole", kills.plan(tmp_path / "whole", layout), "1")
    folder = tmp_path / "killed"
    found = kills.plan(folder, layout)
    deaths = [
        Kill("critic", 1, "the critic learns"),
        Kill("actor", 0, "the critic has saved, the actor has not"),
        Kill("actor", 1, "a response is there"),
    ]
    for number, kill in enumerate(deaths):
        assert not kills.attempt(forks, folder, found, f"{number + 1}", kill), f"{kill} did not happen"
    assert kills.attempt(forks, folder, found, "last")
    assert kills.series(folder) == kills.series(tmp_path / "whole")
    assert kills.lost_or_repeated(folder) == []
