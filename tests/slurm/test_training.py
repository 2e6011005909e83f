"""The emitted scripts, unedited, with the real runtime: two nodes train, are interrupted, and go on."""

from __future__ import annotations

import os
import re
import signal

import pytest
from cluster import until
from plans import chain, spec

pytestmark = [pytest.mark.slurm, pytest.mark.torch]


@pytest.fixture(scope="module")
def undisturbed() -> dict[int, float]:
    """The losses of a run that nothing interrupted, by step; filled by the first test."""
    return {}


def test_two_nodes_train_and_finish(train, undisturbed):
    run = train(spec())
    assert run.states(120) == ["COMPLETED"]
    losses = run.losses()
    assert sorted(losses) == list(range(1, 31))
    assert losses[30] < losses[1] - 1
    undisturbed.update(losses)


def test_a_failing_job_says_one_error_and_the_next_never_starts(train):
    run = train(chain(data="/absent/train.jsonl"))
    assert run.states(90) == ["FAILED", "CANCELLED"]
    errors = [line for line in run.job_log("first").splitlines() if line.startswith("error[R")]
    assert len(errors) == 1
    assert "/absent/train.jsonl" in errors[0]
    assert not (run.run / "second" / "identity.json").exists()


def test_a_chain_hands_over_its_weights(train):
    run = train(chain(data="builtin:arithmetic"))
    assert run.states(120) == ["COMPLETED", "COMPLETED"]
    assert run.losses("second")[1] < run.losses("first")[1]


def test_a_rank_that_is_killed_fails_the_job(train):
    run = train(spec(steps=4000))
    run.until_saved(10)
    os.kill(run.process_of(rank=1), signal.SIGKILL)
    assert run.states(90) == ["FAILED"]


def test_a_requeued_training_continues_from_its_checkpoint(train, slurm, undisturbed):
    run = train(spec())
    run.until_saved(10)
    slurm.scontrol("requeue", run.ids[0])
    assert run.states(120) == ["COMPLETED"]
    assert len(run.attempts()) == 2
    assert run.losses() == undisturbed


def test_the_signal_before_the_limit_saves_first_and_the_job_goes_on(train, slurm):
    run = train(spec(steps=40, save_every=35))
    until(lambda: (run.run / "sft" / "metrics.jsonl").exists(), "training began", 60)
    slurm.run("scancel", "--batch", "--signal=USR1", run.ids[0])
    assert run.states(120) == ["COMPLETED"]
    first, second = (
        (run.run / "sft" / "attempts" / name / "node-0.log").read_text() for name in run.attempts()
    )
    last = max(int(step) for step in re.findall(r"step (\d+)/40", first))
    assert int(re.findall(r"step (\d+)/40", second)[0]) == last + 1, "not one step is done twice"
    assert sorted(run.losses()) == list(range(1, 41))


@pytest.mark.parametrize(("lost", "noticed"), [("node1", True), ("node2", False)])
def test_training_survives_the_loss_of_a_node(train, slurm, undisturbed, lost, noticed):
    """The first node runs the script too; of the second Slurm does not know when the ranks fail."""
    if not slurm.apart:
        pytest.skip("without namespaces a node's jobs outlive its slurmd")
    run = train(spec())
    run.until_saved(10)
    slurm.lose_node(lost, noticed=noticed)
    assert run.states(150) == ["COMPLETED"]
    assert run.losses() == undisturbed
    assert lost not in run.cluster.job(run.ids[0])["NodeList"]
