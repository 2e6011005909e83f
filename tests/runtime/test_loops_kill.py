"""A short form of `make campaign-loops-kill`: whole loops that die at named moments, and the same bytes."""

import campaign_loops_kill as campaign
import pytest
import toy_loops
from toy_loops import differences, evidence
from warm_launch import Death, run

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def lived_through(forks, folder, loop, layout, deaths):
    """How many kills there were, and what differs from a run that nobody killed."""
    file = toy_loops.spec(folder, loop, **layout)
    assert run(forks, file, folder / "whole") == 0
    hit, wrong = campaign.killed(forks, file, folder / "killed", deaths)
    return hit, [*wrong, *differences(evidence(folder / "killed"), evidence(folder / "whole"))]


def test_rounds_that_throw_old_ones_away(forks, tmp_path):
    deaths = [
        Death("rs-1-generate", "runtime.rowstore:Store.flush", 2),
        Death("rs-2-score"),
        Death("rs-2-train", "runtime.torch_dist:write", 2),
        Death("rs-2-train", "runtime.handover:_remove", 3),
    ]
    hit, wrong = lived_through(forks, tmp_path, "rounds", {}, deaths)
    assert wrong == []
    assert hit == len(deaths)
    kept = [path.parent.name for path in sorted((tmp_path / "killed").glob("*/rows.jsonl"))]
    assert kept == ["rs-2-generate", "rs-2-score", "rs-2-select"]


def test_a_model_that_judges_itself_and_its_judgements(forks, tmp_path):
    deaths = [
        Death("sr-1", "runtime.jury:Jury.responses", 2),
        Death("sr-1", "runtime.algorithms.self_rewarding:compared", rank=1, all=False),
        Death("sr-2", "runtime.engine:Engine.optim_step", 2),
        Death("sr-2", "runtime.torch_dist:write", 2, rank=1),
    ]
    hit, wrong = lived_through(forks, tmp_path, "meta", {"gpus": 2}, deaths)
    assert wrong == []
    assert hit == len(deaths)
