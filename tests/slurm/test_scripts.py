"""Emitted scripts on a real Slurm, with a stand-in for the runtime: who runs where, exit codes, restarts."""

from __future__ import annotations

import pytest
from cluster import until
from plans import answering, job

pytestmark = [pytest.mark.slurm, pytest.mark.torch]


def test_two_nodes_start_every_rank_once_in_the_order_of_the_nodes(submit):
    done = submit(job(nodes=2, gpus=2))
    assert done.states() == ["COMPLETED"]
    ranks = done.who()
    assert list(ranks) == ["0", "1", "2", "3"]
    assert len({rank["environment"]["MASTER_PORT"] for rank in ranks.values()}) == 1
    if done.cluster.apart:
        assert [rank["host"] for rank in ranks.values()] == ["node1", "node1", "node2", "node2"]


def test_what_the_plan_sets_arrives_unharmed_and_what_only_the_shell_has_does_not(submit):
    odd = 'it\'s $HOME, "quoted" `date` \\ * ünï'
    done = submit(
        job(env={"ODD": odd}),
        env={"API_TOKEN": "not-a-real-one", "UNRELATED": "x"},
        secrets=("API_TOKEN",),
    )
    assert done.states() == ["COMPLETED"]
    environment = done.who()["0"]["environment"]
    assert environment["ODD"] == odd
    assert environment["API_TOKEN"] == "not-a-real-one"
    assert environment["SPECC_ATTEMPT"] == f"{done.ids[0]}-0"
    assert "UNRELATED" not in environment
    assert "not-a-real-one" not in done.log()


def test_a_variable_named_as_one_of_the_script_s_own_changes_nothing_in_it(submit):
    names = ("run", "stage", "logs", "port", "step", "UID", "IFS", "SECONDS")
    done = submit(job(env=dict.fromkeys(names, "/elsewhere")))
    assert done.states() == ["COMPLETED"]
    environment = done.who()["0"]["environment"]
    assert all(environment[name] == "/elsewhere" for name in ("run", "stage", "logs", "port", "step"))


def test_a_secret_that_is_not_set_stops_the_submission(submit, slurm):
    with pytest.raises(AssertionError, match=r"ended with 3\nerror: \$API_TOKEN is not set"):
        submit(job(), secrets=("API_TOKEN",))
    assert not slurm.run("squeue", "--noheader").stdout


def test_jobs_of_a_chain_run_one_after_the_other(submit):
    done = submit(job("first"), job("second", after=("first",)))
    assert done.states() == ["COMPLETED", "COMPLETED"]
    assert "stage second is finished" in done.log("second")


def test_a_crashing_rank_fails_its_job_and_the_next_one_never_starts(submit):
    done = submit(job("first", nodes=2, steps=400, crash_rank=1), job("second", after=("first",)))
    assert done.states() == ["FAILED", "CANCELLED"]
    assert "error[R900]: rank 1 was told to fail" in done.log("first")
    assert "stage first failed with exit code" in done.job_log("first")
    assert not done.who("second")


def test_preempted_ranks_save_and_the_job_is_queued_again(submit, slurm):
    run = submit(job(steps=30, step_seconds=0.1, save_every=10))
    run.until_saved(10)
    slurm.run("scancel", "--signal=TERM", run.ids[0])  # what Slurm sends to the step when it preempts
    assert run.states() == ["COMPLETED"]
    assert "preempted: queueing again" in run.log()
    assert [step for step in run.saved() if step % 10]


def test_a_cancelled_job_stays_cancelled(submit, slurm):
    run = submit(job(steps=4000, save_every=1))
    run.until_saved(1)
    slurm.run("scancel", run.ids[0])
    assert run.states() == ["CANCELLED"]
    until(lambda: not slurm.run("squeue", "--noheader").stdout, "the queue is empty", 20)
    assert run.cluster.job(run.ids[0])["Restarts"] == "0"


def test_a_person_s_stop_file_saves_and_ends_without_starting_the_next_job(submit):
    run = submit(job("first", steps=4000, save_every=5), job("second", after=("first",)))
    run.until_saved(5, "first")
    (run.run / "first" / "stop").touch()
    assert run.states() == ["FAILED", "CANCELLED"]
    assert "stopped by request; submit again to continue" in run.log("first")


def test_a_job_that_serves_is_queued_again_and_ends_well_when_somebody_stops_it(submit, slurm):
    run = submit(answering(steps=4000))
    stage = run.run / "served"
    until(lambda: len([*stage.glob("attempts/*/who-0.json")]) == 1, "it serves", 60)
    slurm.run("scancel", "--signal=TERM", run.ids[0])  # as when it is preempted
    until(lambda: len([*stage.glob("attempts/*/who-0.json")]) == 2, "it serves again", 90)
    assert (stage / "attempts" / "restarts").read_text() == f"{run.ids[0]} 1\n"  # it served once
    (stage / "stop").touch()
    assert run.states() == ["COMPLETED"]
    assert "stopped by request; submit again to serve again" in run.log("served")
    assert not (stage / "output.json").exists()


def test_a_step_without_a_sign_of_life_is_ended_and_started_again(submit):
    run = submit(job(steps=4, save_every=1, hang=True, at=3, heartbeat_seconds=12))
    assert run.states(120) == ["COMPLETED"]
    assert "no sign of life for 12 s: ending the step" in run.log()
    assert len(run.attempts()) == 2


def test_two_experiments_on_the_same_nodes_do_not_meet(submit):
    runs = [submit(job(nodes=2, steps=40), name=name) for name in ("one", "two")]
    assert [run.states() for run in runs] == [["COMPLETED"], ["COMPLETED"]]
    one, two = (run.who() for run in runs)
    assert {rank["host"] for rank in one.values()} == {rank["host"] for rank in two.values()}
    assert one["0"]["environment"]["MASTER_PORT"] != two["0"]["environment"]["MASTER_PORT"]


def test_a_port_that_somebody_holds_is_passed_over(submit, slurm, tmp_path):
    # Job ids give the ports: hold those of the next twenty jobs on every node, but not the ones after.
    holder = tmp_path / "hold.py"
    holder.write_text(
        "import os, pathlib, socket, time\n"
        "first = 20000 + int(os.environ['SLURM_JOB_ID'])\n"
        "held = [socket.create_server(('', port)) for port in range(first + 1, first + 21)]\n"
        f"pathlib.Path({str(tmp_path)!r}, 'held').write_text(str(first + 20))\n"
        "time.sleep(600)\n"
    )
    script = f"#!/bin/sh\nexec python3 {holder}\n"
    (tmp_path / "hold.sh").write_text(script)
    slurm.run("sbatch", "--nodelist=node1", f"--output={tmp_path}/hold.log", str(tmp_path / "hold.sh"))
    until(lambda: (tmp_path / "held").exists(), "the ports are held", 20)
    run = submit(job(nodes=2))
    assert run.states() == ["COMPLETED"]
    assert "is taken on" in run.log()
    assert int(run.who()["0"]["environment"]["MASTER_PORT"]) == int((tmp_path / "held").read_text()) + 1


def test_a_second_job_in_the_same_run_folder_is_refused_while_the_first_runs(submit, slurm):
    first = submit(job(steps=4000, save_every=1))
    first.until_saved(1)
    second = submit(job(steps=3))
    assert second.states() == ["FAILED"]
    assert f"job {first.ids[0]} is running in" in second.log()


def test_a_finished_stage_is_not_run_again(submit):
    first = submit(job())
    assert first.states() == ["COMPLETED"]
    again = submit(job())
    assert again.states() == ["COMPLETED"]
    assert "this stage is finished already" in again.log()
    assert len(again.who()) == 1
