"""PPO as the compiler emits it for Slurm, with the real runtime: a node for the actor, two for its judges."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from typing import Any

import pytest
from cluster import until
from plans import ppo

pytestmark = [pytest.mark.slurm, pytest.mark.torch]

STEPS, SAVE_EVERY = 10, 2
OTHER = "name: tiny\nseed: 77"  # the same experiment with other random numbers
ROLES = ("actor", "critic")
Series = dict[str, list[dict[str, float]]]


@pytest.fixture(scope="module")
def known() -> Series:
    """What a run says that nothing interrupted; the first test that needs it makes that run."""
    return {}


@pytest.fixture
def undisturbed(train, known: Series) -> Series:
    if not known:
        run = train(ppo(STEPS, SAVE_EVERY), inside="undisturbed")
        assert run.states(240) == ["COMPLETED", "CANCELLED", "CANCELLED"]
        known.update({role: series(run, role) for role in ROLES})
    return known


def series(run: Any, role: str) -> list[dict[str, float]]:
    """All numbers of a role's steps in the order of the file, but for those of clock and memory."""
    file = run.run / "ppo" / role / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    measured = ("_seconds", "_per_second", "_gib")
    return [{name: value for name, value in row.items() if not name.endswith(measured)} for row in rows]


def resumed_after(run: Any, role: str, attempt: str) -> list[int]:
    """The steps after which a role went on in an attempt, as it says itself."""
    logs = sorted((run.run / "ppo" / "attempts" / attempt).glob(f"{role}-node-*.log"))
    return [int(step) for log in logs for step in re.findall(r"resuming after step (\d+)", log.read_text())]


def resumed_together(run: Any, attempt: str) -> int:
    """The one step after which both roles went on."""
    (step,) = resumed_after(run, "actor", attempt)
    assert resumed_after(run, "critic", attempt) == [step]
    return step


def test_actor_and_critic_finish_on_three_nodes_and_commit_together(train, known, slurm):
    run = train(ppo(STEPS, SAVE_EVERY))
    (job,) = json.loads((run.run / "plan.json").read_text())["jobs"]
    assert {role["name"]: (role["group"], role["nodes"]) for role in job["roles"]} == {
        "actor": ("actor", 1),
        "reference": ("actor", 1),
        "critic": ("critic", 2),
        "reward": ("critic", 2),
    }
    assert run.states(90) == ["COMPLETED", "CANCELLED", "CANCELLED"]
    stage = run.run / "ppo"
    assert json.loads((stage / "output.json").read_text())["step"] == STEPS
    assert run.committed()[-1] == STEPS
    for step in run.committed():
        manifests = json.loads((stage / "commits" / f"{step}.json").read_text())["manifests"]
        assert sorted(manifests) == sorted(ROLES)
        for role, named in manifests.items():
            assert named["path"] == f"{role}/checkpoint/step-{step}/MANIFEST.json"
            assert hashlib.sha256((stage / named["path"]).read_bytes()).hexdigest() == named["sha256"]
    known.update({role: series(run, role) for role in ROLES})
    for role in ROLES:
        assert [row["step"] for row in known[role]] == list(range(1, STEPS + 1))
    for actor, critic in zip(known["actor"], known["critic"], strict=True):
        assert {"loss", "reward", "kl"} <= actor.keys()
        assert actor["critic_loss"] == pytest.approx(critic["loss"], rel=1e-6)
    assert known["actor"][0]["kl"] == 0
    assert all(row["kl"] for row in known["actor"][1:]), "the actor moves away from the reference"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_critic_fails_ppo_within_30_seconds_by_name(train, rank):
    run = train(ppo(steps=400, save_every=1))
    run.until_committed(2)
    os.kill(run.process_of(rank, "critic"), signal.SIGKILL)
    killed = time.monotonic()
    assert run.states(40) == ["FAILED", "CANCELLED", "CANCELLED"]
    assert time.monotonic() - killed < 30
    assert re.search(r"stage ppo failed: group critic ended with exit code \d+;", run.job_log("ppo"))
    assert len(run.attempts("ppo")) == 1


@pytest.mark.slow
def test_preempted_and_then_without_a_node_both_roles_go_on_as_if_nothing_had_happened(
    train, slurm, undisturbed
):
    if not slurm.apart:
        pytest.skip("without namespaces a node's jobs outlive its slurmd")
    run = train(ppo(STEPS, SAVE_EVERY))
    until(lambda: (run.run / "ppo" / "actor" / "metrics.jsonl").exists(), "the actor makes steps", 60)
    slurm.run("scancel", "--signal=TERM", run.ids[0])
    preempted, second, third = (f"{run.ids[0]}-0", f"{run.ids[0]}-1", f"{run.ids[1]}-0")
    until(lambda: slurm.job(run.ids[0])["Reason"] == "BeginTime", "the job is queued again", 60)
    slurm.scontrol("update", f"jobid={run.ids[0]}", "StartTime=now+2")
    until(lambda: run.attempts("ppo") == [preempted, second], "the job starts again", 60)
    saved = run.committed()[-1]
    assert 0 < saved < STEPS - SAVE_EVERY
    run.until_committed(saved + 1)
    slurm.lose_node("node3", noticed=True)
    assert run.states(90) == ["NODE_FAIL", "COMPLETED", "CANCELLED"]
    assert run.attempts("ppo") == [preempted, second, third]
    assert resumed_together(run, second) == saved
    assert saved < resumed_together(run, third) < STEPS
    for role in ROLES:
        assert series(run, role) == undisturbed[role]


def environment(run: Any, role: str) -> dict[str, str]:
    """The environment of a role's first process while it runs."""
    with open(f"/proc/{run.process_of(0, role)}/environ", "rb") as file:
        words = file.read().decode().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def span(slurm: Any, run: Any) -> tuple[str, str]:
    """When the first attempt started and ended."""
    job = slurm.job(run.ids[0])
    return job["StartTime"], job["EndTime"]


@pytest.mark.slow
def test_two_ppos_at_once_on_the_same_nodes_never_talk_to_each_other(train, slurm, undisturbed):
    """Their servers would answer each other's actors: the models have the same shapes."""
    specs = {"one": ppo(STEPS, SAVE_EVERY), "two": ppo(STEPS, SAVE_EVERY).replace("name: tiny", OTHER)}
    runs = {name: train(spec, inside=name) for name, spec in specs.items()}
    for run in runs.values():
        run.until_committed(1, timeout=180)
    said = {name: {role: environment(run, role) for role in ROLES} for name, run in runs.items()}
    tokens = {next((run.run / "ppo" / "attempts").glob("*/token")).read_text() for run in runs.values()}
    states = [run.states(300) for run in runs.values()]
    assert states == [["COMPLETED", "CANCELLED", "CANCELLED"]] * 2
    (first, second), (begun, ended) = (span(slurm, run) for run in runs.values())
    assert begun < second, f"one ran {first} to {second}, two {begun} to {ended}: they did not meet"
    nodes = [{environment["SLURMD_NODENAME"] for environment in roles.values()} for roles in said.values()]
    assert nodes[0] & nodes[1] or not slurm.apart
    assert len(tokens) == 2
    for variable in ("SPECC_PEERS", "MASTER_PORT"):
        assert len({roles["actor"][variable] for roles in said.values()}) == 2
    for roles in said.values():
        assert roles["actor"]["SPECC_PEERS"] == f"critic={roles['critic']['SPECC_LISTEN']}"
    alone = train(specs["two"], inside="alone")
    assert alone.states(240) == ["COMPLETED", "CANCELLED", "CANCELLED"]
    for role in ROLES:
        assert series(runs["one"], role) == undisturbed[role]
        assert series(runs["two"], role) == series(alone, role)
        assert series(runs["two"], role) != undisturbed[role]
