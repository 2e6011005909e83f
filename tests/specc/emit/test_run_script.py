"""`run.sh` of the local target, with a stand-in for the runtime: finish, fail, stop and go on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from specc import emit
from specc.plan import Layout

pytestmark = pytest.mark.torch

STAND_IN = Path(__file__).parents[2] / "slurm" / "stand_in"
QUICK = f"{STAND_IN}:{STAND_IN.parent / 'stand_in_torchrun'}"


@pytest.fixture
def local(plan_of, tmp_path):
    """local({stage: settings}): emit, and hand back the command that runs it in `tmp_path / "run"`."""

    def local(**stages: dict) -> list[str]:
        names = list(stages)
        plan = plan_of(
            {name: tuple(names[:index]) for index, name in enumerate(names)},
            device="cpu",
            python=sys.executable,
            path=str(STAND_IN),
        )
        jobs = tuple(
            replace(
                job,
                settings=stages[job.name],
                port=_free_port(),
                roles=(replace(job.roles[0], nodes=1, gpus=2, layout=Layout(dp=2)),),
            )
            for job in plan.jobs
        )
        emit.write(emit.bundle(replace(plan, jobs=jobs), "local"), tmp_path / "bundle")
        return ["bash", str(tmp_path / "bundle" / "run.sh"), str(tmp_path / "run")]

    return local


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_stages_run_one_after_the_other_and_not_again(local, tmp_path):
    command = local(first={}, second={})
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.index("stage first is finished") < done.stdout.index("stage second: attempt 1")
    assert run(command).stdout == "stage first is finished already\nstage second is finished already\n"
    assert len(list((tmp_path / "run").glob("*/attempts/*/who-*.json"))) == 4


def test_a_failing_rank_ends_the_run_with_its_code(local, tmp_path):
    done = run(local(first={"crash_rank": 1, "steps": 400}, second={}))
    assert done.returncode == 1  # torchrun's own
    assert "error[R900]: rank 1 was told to fail" in done.stdout
    assert not (tmp_path / "run" / "second").exists()


def test_ctrl_c_saves_and_the_next_call_goes_on(local, tmp_path):
    command = local(first={"steps": 60, "step_seconds": 0.1, "save_every": 10})
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    stage = tmp_path / "run" / "first"
    end = time.monotonic() + 60
    while not (stage / "checkpoint").exists() and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stage first is stopped and saved; run again to continue" in output
    again = run(command)
    assert again.returncode == 0
    assert "rank 0 starts at step 0" not in again.stdout
    assert sorted(path.name for path in (stage / "attempts").iterdir()) == ["1", "2"]


def test_a_port_that_is_taken_is_passed_over(local, tmp_path):
    command = local(first={})
    script = (tmp_path / "bundle" / "run.sh").read_text()
    port = int(script.splitlines()[-1].split()[4])
    with socket.create_server(("127.0.0.1", port)):
        assert run(command).returncode == 0
    who = next((tmp_path / "run").glob("*/attempts/1/who-0.json")).read_text()
    assert f'"MASTER_PORT": "{port + 1}"' in who


@pytest.fixture
def groups(plan_of, tmp_path):
    """groups(path, settings...): the command that runs a stage of an actor and a critic that serves it."""

    def groups(path: str = QUICK, **settings) -> list[str]:
        plan = plan_of({"ppo": ()}, device="cpu", python=sys.executable, path=path)
        (job,) = plan.jobs
        model = job.roles[0]
        roles = (
            replace(model, name="actor", program="ppo", nodes=1, gpus=2, layout=Layout(dp=2)),
            replace(model, name="critic", program="serve", nodes=1, gpus=1, layout=Layout()),
        )
        job = replace(job, roles=roles, settings=settings, port=_free_port(), nodes=2)
        emit.write(emit.bundle(replace(plan, jobs=(job,)), "local"), tmp_path / "bundle")
        return ["bash", str(tmp_path / "bundle" / "run.sh"), str(tmp_path / "run")]

    return groups


def variables(tmp_path, who: str, attempt: int = 1) -> dict[str, str]:
    file = tmp_path / "run" / "ppo" / "attempts" / str(attempt) / f"who-{who}.json"
    return json.loads(file.read_text())["environment"]


def test_groups_run_together_and_the_servers_leave_after_the_actor(groups, tmp_path):
    command = groups(path=str(STAND_IN))
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rank 0 of critic leaves" in done.stdout
    assert "stage ppo is finished" in done.stdout
    actor, critic = variables(tmp_path, "actor-1"), variables(tmp_path, "critic-0")
    assert actor["SPECC_PEERS"] == f"critic={critic['SPECC_LISTEN']}"
    assert critic["SPECC_LISTEN"].startswith("127.0.0.1:")
    assert len({actor["MASTER_PORT"], critic["MASTER_PORT"], critic["SPECC_LISTEN"][10:]}) == 3
    assert run(command).stdout == "stage ppo is finished already\n"


def test_a_port_of_a_server_that_is_taken_is_passed_over(groups, tmp_path):
    command = groups()
    first = int((tmp_path / "bundle" / "run.sh").read_text().splitlines()[-1].split()[3])
    with socket.create_server(("127.0.0.1", first + 2)):
        assert run(command).returncode == 0
    assert variables(tmp_path, "critic-0")["SPECC_LISTEN"] == f"127.0.0.1:{first + 3}"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"steps": 400, "crash_serving": 3},
            "error[R903]: critic was told to fail\nstage ppo failed: group critic",
        ),
        (
            {"steps": 400, "crash_rank": 1},
            "error[R900]: rank 1 was told to fail\nstage ppo failed: group actor",
        ),
    ],
)
def test_a_failing_group_ends_the_others_and_is_named(groups, settings, said):
    done = run(groups(**settings))
    assert done.returncode == 1
    assert said in done.stderr


def test_ctrl_c_lets_the_actor_save_with_its_servers_and_the_next_call_goes_on(groups, tmp_path):
    command = groups(steps=60, step_seconds=0.1, save_every=5)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    stage = tmp_path / "run" / "ppo"
    end = time.monotonic() + 60
    while not (stage / "commits").exists() and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "rank 0 of critic leaves" in output
    assert "stage ppo is stopped and saved; run again to continue" in output
    again = run(command)
    assert again.returncode == 0
    assert "rank 0 starts at step 0" not in again.stdout
