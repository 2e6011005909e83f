"""Which checkpoint weights of another stage mean: one place says it, for whoever takes them."""

import dataclasses
import json
import types

import pytest

pytest.importorskip("megatron.core")

from runtime import manifest, reference, steps, weights
from runtime.manifest import Manifest
from runtime.problem import Problem
from specc.plan import Weights

pytestmark = pytest.mark.torch


@pytest.fixture
def place(tmp_path):
    """A run whose stage `rm` has two steps, the first of which was the best."""
    folder = tmp_path / "rm" / "checkpoint"
    for step in (1, 2):
        saved = folder / steps.name_of(step)
        saved.mkdir(parents=True)
        (saved / "a.bin").write_bytes(b"weights")
        files = {"a.bin": manifest.record(saved / "a.bin")}
        manifest.write(
            saved, Manifest(step=step, model={"head": "language"}, metric=float(step), files=files)
        )
    (folder / steps.BEST).write_text(json.dumps({"step": 1, "metric": 1.0}))
    return types.SimpleNamespace(run_folder=tmp_path, is_first=True)


def step_of(place, of):
    """The step that weights mean, and the one whose name a reference's numbers are kept under."""
    run = types.SimpleNamespace(place=place)
    role = types.SimpleNamespace(model=types.SimpleNamespace(weights=of))
    folder, step, _ = weights.step_of(of, place)
    assert reference._step(run, role) == folder / steps.name_of(step)
    return step


def test_the_best_step_is_taken_unless_it_does_not_hold(place):
    stage = Weights("stage", stage="rm")
    assert step_of(place, stage) == 1
    torn = place.run_folder / "rm" / "checkpoint" / "step-1" / "a.bin"
    torn.write_bytes(b"Weights")
    assert step_of(place, stage) == 2, "of the same size, but not what was saved"


def test_a_step_that_is_named_is_meant(place):
    path = str(place.run_folder / "rm" / "checkpoint" / "step-2")
    named = dataclasses.replace(Weights("checkpoint"), path=path)
    assert step_of(place, named) == 2
    assert not weights.step_of(named, place)[2], "nobody has examined it"


def test_a_stage_without_checkpoints_is_refused(place):
    with pytest.raises(Problem, match="R016: stage `sft` has no checkpoint that holds"):
        weights.step_of(Weights("stage", stage="sft"), place)
