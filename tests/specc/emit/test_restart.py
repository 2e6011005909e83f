"""The script's own decisions, with Slurm's commands replaced: when to queue again and when to give up."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from specc import emit


@pytest.fixture
def restart(plan_of, tmp_path):
    """restart(times, state=...): call the script's `restart` so often; its output of the last call."""
    script = emit.bundle(plan_of(), "slurm")["00-sft.sbatch"]
    functions = script[script.index("# Asked to stop") : script.index('echo "rendezvous')]
    (tmp_path / "attempts").mkdir()

    def restart(times: int = 1, state: str = "RUNNING") -> str:
        fake = f'scontrol() {{ [[ $1 == requeue ]] && echo "scontrol $*" || echo " JobState={state} "; }}'
        program = (
            f'{fake}\nset -uo pipefail\nSLURM_JOB_ID=7 stage={tmp_path}\n{functions}\nrestart "lost a node"'
        )
        done = [subprocess.run(["bash", "-c", program], capture_output=True, text=True) for _ in range(times)]
        assert done[-1].returncode == 1, "never 0: the next job of the chain would start"
        return done[-1].stdout + done[-1].stderr

    return restart


def saved(folder: Path, step: int) -> None:
    (folder / "checkpoint" / f"step-{step}").mkdir(parents=True)
    (folder / "checkpoint" / f"step-{step}" / "MANIFEST.json").touch()


def test_a_job_that_can_go_on_is_queued_again(restart):
    assert "scontrol requeue 7" in restart()


def test_a_job_that_was_cancelled_is_not_queued_again(restart):
    assert restart(state="CANCELLED") == "lost a node; the job is CANCELLED\n"


def test_restarts_that_save_nothing_new_come_to_an_end(restart):
    assert "scontrol requeue" in restart(times=3)
    assert restart() == "lost a node, and three restarts saved no further step; not queueing again\n"


def test_a_restart_that_got_further_counts_anew(restart, tmp_path):
    saved(tmp_path, 8)
    restart(times=3)
    saved(tmp_path, 10)
    assert "scontrol requeue" in restart(times=3)


def test_a_folder_without_its_manifest_is_no_saved_step(restart, tmp_path):
    saved(tmp_path, 9)
    restart(times=3)
    (tmp_path / "checkpoint" / "step-12").mkdir()
    assert "not queueing again" in restart()


@pytest.fixture
def interrupted(plan_of, tmp_path):
    """interrupted(state of the job, of its second component): what a hetjob's script does and says."""
    plan = plan_of()
    (job,) = plan.jobs
    model = job.roles[0]
    roles = (replace(model, name="actor"), replace(model, name="critic", program="serve"))
    plan = replace(plan, jobs=(replace(job, roles=roles),))
    script = emit.bundle(plan, "slurm")["00-sft.sbatch"]
    attempts = script[script.index("first=${2:-") : script.index("if [[ $first != ")]
    functions = script[script.index("saved_step()") : script.index("step=() # process ids")]
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "7.queued").write_text("9\n11\n")

    def interrupted(own: str, other: str) -> str:
        fake = (
            f'scontrol() {{ case "$*" in *show*8) echo " JobState={other} ";; '
            f'*show*) echo " JobState={own} ";; *) echo "scontrol $*";; esac; }}\n'
            'scancel() { echo "scancel $*"; }\nsleep() { :; }\n'
        )
        program = f"{fake}set -uo pipefail\nSLURM_JOB_ID=7 SLURM_JOB_ID_HET_GROUP_1=8 stage={tmp_path}\n"
        program += f'{attempts}{functions}\nrestart "lost a node"'
        done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
        assert done.returncode == 1
        return done.stdout + done.stderr

    return interrupted


def test_a_hetjob_that_still_runs_lets_itself_be_queued_again(interrupted):
    said = interrupted("RUNNING", "RUNNING")
    assert said.index("scontrol update jobid=7 requeue=1") < said.index("scontrol requeue 7")
    assert "scancel" not in said


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED", "TIMEOUT"])
def test_after_a_hetjob_that_slurm_ended_the_next_attempt_goes_on(interrupted, state):
    assert interrupted("COMPLETING", state) == f"lost a node; the job is {state}\n"


def test_with_a_hetjob_that_a_person_cancelled_the_attempts_behind_it_go(interrupted):
    assert interrupted("COMPLETING", "CANCELLED").endswith("the job is CANCELLED\nscancel 9 11\n")


def test_a_hetjob_that_gets_nowhere_takes_the_attempts_behind_it_with_it(interrupted):
    for _ in range(3):
        interrupted("RUNNING", "RUNNING")
    said = interrupted("RUNNING", "RUNNING")
    assert "three restarts saved no further step; not queueing again" in said
    assert "scancel 9 11" in said
    assert "requeue 7" not in said
