"""The script's own decisions, with Slurm's commands replaced: when to queue again and when to give up."""

import subprocess
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
