"""Killed at any moment, a run goes on as if it had not been: the same steps, losses and token ids."""

import os
import signal

import pytest
import toy_runs
from worlds import WorldFailed

from specc.plan import Layout

pytestmark = pytest.mark.torch

LAYOUT = Layout(tp=2)
VICTIM = 1


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed(plan_file, moment):
    """An attempt of which one rank is killed at step 4."""
    from runtime import manifest, torch_dist
    from runtime.engine import Engine
    from runtime.run import Run

    place = {
        "in a step": (Engine, "optim_step"),
        "in a save": (torch_dist, "write"),
        "before the manifest": (manifest, "write"),
        "between data and step": (Run, "dealt"),
    }
    owner, name = place[moment]
    original, calls = getattr(owner, name), []
    is_saving, is_after = owner in (manifest, torch_dist), moment == "between data and step"
    victim = 0 if owner is manifest else VICTIM  # rank 0 alone writes the manifest

    def counted(*given, **named):
        calls.append(name)
        is_time = len(calls) == (2 if is_saving else 4) and int(os.environ["RANK"]) == victim
        if is_time and not is_after:
            die()
        result = original(*given, **named)
        if is_time:
            die()
        return result

    setattr(owner, name, counted)
    return toy_runs.attempt(plan_file)


UNKILLED = []
"""The series of a run that nobody killed, once it is known."""


@pytest.fixture
def whole(world, tmp_path_factory):
    if not UNKILLED:
        folder = tmp_path_factory.mktemp("whole")
        file = toy_runs.written(folder, toy_runs.plan(LAYOUT))
        assert world(2, toy_runs.attempt, str(file)) == [0, 0]
        UNKILLED.extend(toy_runs.series(folder))
    return UNKILLED


@pytest.mark.parametrize("moment", ["in a step", "in a save", "before the manifest", "between data and step"])
def test_the_series_of_a_killed_run_is_that_of_an_unkilled_one(world, tmp_path, whole, moment):
    file = toy_runs.written(tmp_path, toy_runs.plan(LAYOUT))
    with pytest.raises(WorldFailed):
        world(2, killed, str(file), moment)
    assert not (tmp_path / "sft" / "output.json").exists()
    before = toy_runs.series(tmp_path)
    assert before == whole[: len(before)]
    assert world(2, toy_runs.attempt, str(file), "2") == [0, 0]
    assert toy_runs.series(tmp_path) == whole
    tail = (tmp_path / "sft" / "attempts" / "2" / "metrics-after-step-2.jsonl").read_text()
    assert len(tail.splitlines()) == len(before) - 2  # it went on after step 2


def test_a_killed_run_goes_on_under_another_layout_with_nearly_the_same_series(world, tmp_path, whole):
    file = toy_runs.written(tmp_path, toy_runs.plan(LAYOUT))
    with pytest.raises(WorldFailed):
        world(2, killed, str(file), "in a step")
    toy_runs.written(tmp_path, toy_runs.plan(Layout(pp=2), micro_batch=2))
    assert world(2, toy_runs.attempt, str(file), "2") == [0, 0]
    for ours, theirs in zip(toy_runs.series(tmp_path), whole, strict=True):
        assert (ours[0], *ours[3:]) == (theirs[0], *theirs[3:])
        assert ours[1:3] == pytest.approx(theirs[1:3], rel=1e-4)
