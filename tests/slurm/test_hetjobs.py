"""Emitted scripts of an actor and a critic that serves it, on a real Slurm: how they start, end and go on."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cluster import until
from plans import job, two_groups

pytestmark = [pytest.mark.slurm, pytest.mark.torch]

ENDLESS = {"steps": 4000, "step_seconds": 0.1, "save_every": 1}
"""Settings of a job that is interrupted: it saves at every step."""


HERE = Path(__file__).parent
QUICK = {"path": f"{HERE / 'stand_in'}:{HERE / 'stand_in_torchrun'}"}
"""Profile of tests that are not about torchrun."""


@pytest.fixture
def hetjob(submit):
    """hetjob(*more, attempts=..., settings...): a hetjob of 1 + 2 nodes, and the jobs after it."""

    def hetjob(*more, name="trial", attempts=3, **settings):
        return submit(two_groups(**settings), *more, name=name, attempts=attempts, **QUICK)

    return hetjob


def test_a_clean_end_of_the_actor_ends_the_servers_and_the_attempts_behind_it(submit):
    """With torchrun itself."""
    run = submit(two_groups(), job("after", after=("ppo",)))
    assert run.states() == ["COMPLETED", "CANCELLED", "CANCELLED", "COMPLETED"]
    assert "rank 1 of critic leaves" in run.log("ppo")
    who = run.who("ppo")
    assert sorted(who) == ["actor-0", "critic-0", "critic-1"]
    actor, critic = (who[name]["environment"] for name in ("actor-0", "critic-0"))
    assert actor["SPECC_PEERS"] == f"critic={critic['SPECC_LISTEN']}"
    assert "SPECC_LISTEN" not in actor
    assert actor["SPECC_ATTEMPT"] == critic["SPECC_ATTEMPT"] == f"{run.ids[0]}-0"
    assert critic["SPECC_LISTEN"].split(":")[0] in actor["no_proxy"].split(",")
    if run.cluster.apart:
        assert len({rank["host"] for rank in who.values()}) == 3
        assert not critic["SPECC_LISTEN"].startswith(("0.0.0.0", "127."))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_server_fails_the_job_within_30_seconds_by_name(hetjob, rank):
    run = hetjob(job("after", after=("ppo",)), **ENDLESS)
    run.until_committed(2)
    os.kill(run.process_of(rank, "critic"), signal.SIGKILL)
    killed = time.monotonic()
    assert run.states(40) == ["FAILED", "CANCELLED", "CANCELLED", "CANCELLED"]
    assert time.monotonic() - killed < 30
    # srun gives the highest of the codes, and may have had to kill the other nodes
    assert re.search(r"stage ppo failed: group critic ended with exit code (1|137);", run.job_log("ppo"))
    assert len(run.attempts("ppo")) == 1


def test_a_server_that_fails_is_named_with_its_own_error(hetjob):
    run = hetjob(steps=400, crash_serving=3)
    assert run.states() == ["FAILED", "CANCELLED", "CANCELLED"]
    errors = [line for line in run.job_log("ppo").splitlines() if line.startswith("error[")]
    assert errors == ["error[R903]: critic was told to fail"]


def test_a_failing_actor_ends_the_servers_with_its_code(hetjob):
    run = hetjob(steps=400, crash_rank=0)
    assert run.states() == ["FAILED", "CANCELLED", "CANCELLED"]
    assert "stage ppo failed: group actor ended with exit code 1" in run.job_log("ppo")
    assert "error[R900]: rank 0 was told to fail" in run.job_log("ppo")


@pytest.mark.parametrize("lost", ["script", "server"])
def test_after_the_loss_of_a_node_the_next_attempt_goes_on_in_the_same_folder(hetjob, slurm, lost):
    """Nobody is left to queue the job again when the node is lost that runs the script."""
    if not slurm.apart:
        pytest.skip("without namespaces a node's jobs outlive its slurmd")
    run = hetjob(job("after", after=("ppo",)), **{**ENDLESS, "steps": 30})
    run.until_committed(5)
    where = {"script": "actor-0", "server": "critic-1"}[lost]
    until(lambda: where in run.who("ppo"), f"{where} runs", 30)
    slurm.lose_node(run.who("ppo")[where]["host"], noticed=True)
    until(lambda: slurm.job(run.ids[0])["JobState"] == "NODE_FAIL", "the first attempt is lost", 30)
    assert slurm.job(run.ids[3])["JobState"] == "PENDING"
    assert run.states(90) == ["NODE_FAIL", "COMPLETED", "CANCELLED", "COMPLETED"]
    assert run.attempts("ppo") == [f"{job_id}-0" for job_id in run.ids[:2]]
    assert "starts at step 0" not in run.log_of("ppo", f"{run.ids[1]}-0")
    assert sorted(set(run.committed())) == list(range(1, 31))


@pytest.mark.slow
def test_a_node_that_is_lost_without_slurm_s_knowledge_is_no_fault_of_the_program(hetjob, slurm):
    if not slurm.apart:
        pytest.skip("without namespaces a node's jobs outlive its slurmd")
    run = hetjob(**{**ENDLESS, "steps": 30})
    run.until_committed(5)
    slurm.lose_node(run.who("ppo")["critic-0"]["host"], noticed=False)
    states = run.states(150)
    assert states.count("COMPLETED") == 1, states
    assert "FAILED" not in states, states


@pytest.mark.parametrize("how", ["limit", "preempted"])
def test_all_groups_save_when_told_to_stop_and_the_same_job_goes_on(hetjob, slurm, how):
    run = hetjob(job("after", after=("ppo",)), steps=30, step_seconds=0.1, save_every=25)
    until((run.run / "ppo" / "heartbeat").exists, "the actor makes steps", 30)
    signals = {"limit": ("--batch", "--signal=USR1"), "preempted": ("--signal=TERM",)}[how]
    slurm.run("scancel", *signals, run.ids[0])
    assert run.states(90) == ["COMPLETED", "CANCELLED", "CANCELLED", "COMPLETED"]
    reason = {"limit": "time limit is near", "preempted": "preempted"}[how]
    assert f"{reason}: queueing again" in run.job_log("ppo")
    assert run.attempts("ppo") == [f"{run.ids[0]}-0", f"{run.ids[0]}-1"]
    (between,) = set(run.committed()) - {25}
    assert {f"step-{step}" for step in run.committed()} == {
        path.name for path in (run.run / "ppo" / "critic" / "checkpoint").iterdir()
    }
    assert f"rank 0 starts at step {between}" in run.log_of("ppo", f"{run.ids[0]}-1")


def test_a_cancelled_hetjob_takes_the_attempts_behind_it_with_it(hetjob, slurm):
    run = hetjob(job("after", after=("ppo",)), **ENDLESS)
    run.until_committed(2)
    slurm.run("scancel", run.ids[0])
    assert run.states() == ["CANCELLED"] * 4
    assert len(run.attempts("ppo")) == 1


def test_a_person_s_stop_file_saves_and_ends_all_attempts(hetjob):
    run = hetjob(**ENDLESS)
    run.until_committed(2)
    (run.run / "ppo" / "stop").touch()
    assert run.states() == ["FAILED", "CANCELLED", "CANCELLED"]
    assert "stopped by request; submit again to continue" in run.job_log("ppo")


def test_two_hetjobs_on_the_same_nodes_do_not_meet(hetjob):
    runs = [hetjob(name=name, steps=40) for name in ("one", "two")]
    assert [run.states()[0] for run in runs] == ["COMPLETED", "COMPLETED"]
    one, two = (run.who("ppo") for run in runs)
    assert {rank["host"] for rank in one.values()} & {rank["host"] for rank in two.values()}
    for variable in ("SPECC_PEERS", "MASTER_PORT"):
        assert one["actor-0"]["environment"][variable] != two["actor-0"]["environment"][variable]


def test_groups_of_a_split_job_each_have_nodes_of_their_own(submit):
    """Its server overlooks that the actor has ended, and is ended with the job."""
    run = submit(
        two_groups(nodes=(1, 2), gpus=(2, 1), placement="split", deaf=True),
        job("after", after=("ppo",)),
        **QUICK,
    )
    assert run.states() == ["COMPLETED", "COMPLETED"]
    who = run.who("ppo")
    assert sorted(who) == ["actor-0", "actor-1", "critic-0", "critic-1"]
    if run.cluster.apart:
        hosts = [who[name]["host"] for name in sorted(who)]
        assert hosts == ["node1", "node1", "node2", "node3"]


def test_what_waits_for_two_hetjobs_starts_after_both(submit, slurm):
    first, second = two_groups(nodes=(1, 1)), two_groups(nodes=(1, 1), steps=60)
    second = replace(second, name="ppo2", stage="ppo2", hash="hash-of-ppo2")
    run = submit(first, second, job("after", after=("ppo", "ppo2")), attempts=2, **QUICK)
    assert run.states() == ["COMPLETED", "CANCELLED", "COMPLETED", "CANCELLED", "COMPLETED"]
    ends = [slurm.job(run.ids[place])["EndTime"] for place in (0, 2)]
    assert max(ends) <= slurm.job(run.ids[4])["StartTime"]


def test_no_attempt_starts_when_what_the_hetjob_waits_for_fails(submit):
    waiting = replace(two_groups(), depends_on=("sft",))
    run = submit(job(steps=400, crash_rank=0), waiting, **QUICK)
    assert run.states() == ["FAILED", "CANCELLED", "CANCELLED", "CANCELLED"]
    assert not run.attempts("ppo")
