"""Ranks forked from one warm process, watched and ended; only the imports and the ranks are pretended."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from test_launch import fake_torchrun, job, plan, press, two, wait_for  # noqa: F401

from specc import groups, launch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks ranks")

WARM = """
import os, pathlib, sys
from runtime import warm

def work(asked, rank, world):
    os.environ.update({**warm.place(rank, world, asked["port"]), **asked["environment"]})
    code = {}
    try:
        sys.argv[1:] = asked["arguments"]
        exec(pathlib.Path(os.environ["FORKED_RANK"]).read_text(), code)
    except SystemExit as end:
        return int(end.code or 0)
    return 0

def load():
    with open(os.environ["FORKED_RANK"] + ".loads", "a") as loads:
        print(os.getpid(), os.environ.get("COLOUR"), file=loads)
    if "SLOW" in os.environ:
        import time; time.sleep(600)
    if "BROKEN" in os.environ:
        print("a library is missing", file=sys.stderr); sys.exit(1)

warm.load, warm.work, warm.store, warm.CLOSE_SECONDS = load, work, lambda port: None, 0.5
sys.exit(warm.main())
"""

RANK = """
import json, os, pathlib, signal, sys, time
plan, job, role = sys.argv[1:]
stage, rank = pathlib.Path(plan).parent / job, os.environ["RANK"]
attempt = stage / "attempts" / os.environ["SPECC_ATTEMPT"]
found = dict(os.environ, pid=os.getpid(), leader=os.getppid(), cwd=os.getcwd())
(stage / f"{role}-{rank}.new").write_text(json.dumps(found))
(stage / f"{role}-{rank}.new").rename(stage / f"{role}-{rank}.json")
(stage / "heartbeat").touch()
print("said by", role, rank, "of", job)
if "fails" in job and rank == "1":
    (attempt / "error-1.json").write_text(json.dumps(
        {"code": "R010", "message": "row 3 has no key `output`", "rank": 1, "step": 2, "echo": False}))
    sys.exit(1)
if "outside" in job and rank == "1":
    sys.exit(3)
if "crashes" in job and rank == "1":
    os.kill(os.getpid(), signal.SIGKILL)
if "deaf" in job or role == "critic":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
many = any(word in job for word in ("long", "deaf", "fails", "crashes", "outside"))
for step in range(1, 1000 if many or role == "critic" else 4):
    if role == "critic":
        time.sleep(0.05)
        continue
    if rank == "0":
        (stage / "metrics.jsonl").open("a").write(json.dumps({"step": step, "loss": 1 / step}) + "\\n")
    if (stage / "stop").exists() and "deaf" not in job:
        sys.exit(0)
    time.sleep(0.02)
known = {j["name"]: j["hash"] for j in json.load(open(plan))["jobs"]}
(stage / "output.json").write_text(json.dumps({"hash": known[job]}))
"""


@pytest.fixture(autouse=True)
def warm_process(tmp_path, monkeypatch):
    (tmp_path / "warm.py").write_text(WARM)
    (tmp_path / "forked.py").write_text(RANK)
    monkeypatch.setenv("FORKED_RANK", str(tmp_path / "forked.py"))
    monkeypatch.delenv("SPECC_WARM", raising=False)
    monkeypatch.setattr("specc.warm.PROGRAM", (str(tmp_path / "warm.py"),))


def run(what, tmp_path, switch=None, begin=lambda job, attempt: lambda: None):
    """How each stage ended; nothing that was started for it is left."""
    with launch.run_folder(what, tmp_path / "run", []) as folder:
        ended = list(launch.run_jobs(what, folder, tmp_path, switch or launch.Switch(), begin, warm=True))
    assert not [
        child for child in psutil.Process().children(recursive=True) if "warm.py" in " ".join(words(child))
    ]
    return ended


def words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def pair(name, after=(), **more):
    """A stage of two ranks."""
    one = job(name, after, **more)
    return replace(one, roles=(replace(one.roles[0], gpus=2),))


def seen(tmp_path, stage, rank=0, role="model"):
    """What a rank has seen of the world."""
    return json.loads((tmp_path / "run" / stage / f"{role}-{rank}.json").read_text())


def loads(tmp_path):
    """Who has imported everything, and in which colour."""
    return [line.split() for line in (tmp_path / "forked.py.loads").read_text().splitlines()]


def test_stages_that_follow_one_another_come_from_one_process_that_imports_once(tmp_path):
    ended = run(plan(pair("first"), pair("second", after=["first"])), tmp_path)
    assert [(end.stage, end.how, end.code) for end in ended] == [
        ("first", "finished", 0),
        ("second", "finished", 0),
    ]
    assert len(loads(tmp_path)) == 1
    ids = [seen(tmp_path, stage, rank)["pid"] for stage in ("first", "second") for rank in (0, 1)]
    assert len(set(ids)) == 4  # and yet no process sees two stages
    for stage in ("first", "second"):
        log = (tmp_path / "run" / stage / "attempts/1/model.log").read_text()
        assert sorted(log.splitlines()) == [f"said by model {rank} of {stage}" for rank in (0, 1)]
    assert not (tmp_path / "run" / "warm.log").exists()


def test_a_rank_finds_the_variables_that_torchrun_sets(tmp_path):
    run(plan(pair("sft", env={"COLOUR": "green"})), tmp_path)
    for rank in (0, 1):
        found = seen(tmp_path, "sft", rank)
        assert [found[name] for name in ("RANK", "LOCAL_RANK")] == [str(rank)] * 2
        assert [found[name] for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")] == ["2"] * 2
        assert (found["MASTER_ADDR"], found["OMP_NUM_THREADS"]) == ("127.0.0.1", "1")
        assert (found["SPECC_ATTEMPT"], found["COLOUR"]) == ("1", "green")
        assert found["cwd"] == str(tmp_path)
    assert seen(tmp_path, "sft", 0)["MASTER_PORT"] == seen(tmp_path, "sft", 1)["MASTER_PORT"]


def test_a_job_of_another_environment_has_a_process_of_its_own(tmp_path):
    run(plan(job("red", env={"COLOUR": "red"}), job("blue", after=["red"], env={"COLOUR": "blue"})), tmp_path)
    assert [colour for _, colour in loads(tmp_path)] == ["red", "blue"]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("fails", 1, "error[R010]: row 3 has no key `output` (rank 1)"),
        ("crashes", 3, "error: a rank was ended by SIGKILL; was there enough memory?"),
        ("outside", 3, "error: exitcode  : 3"),
    ],
)
def test_a_failing_rank_ends_the_others_and_is_quoted(tmp_path, name, code, message):
    ended = run(plan(pair(name), job("after", after=[name])), tmp_path)
    assert [(end.how, end.code) for end in ended] == [("failed", code)]
    assert ended[0].message.startswith(message)
    assert not psutil.pid_exists(seen(tmp_path, name)["pid"])


def test_a_warm_process_that_is_killed_ends_the_run_with_a_word(tmp_path):
    killed = []

    def begin(job, attempt):
        def tick():
            if not killed and (attempt.parents[1] / "metrics.jsonl").exists():
                killed.append(int(loads(tmp_path)[0][0]))
                os.kill(killed[0], signal.SIGKILL)

        return tick

    (ended,) = run(plan(pair("deaf")), tmp_path, begin=begin)
    assert (ended.how, ended.code) == ("failed", 3)
    assert ended.message.startswith(
        "error: the warm process, which the ranks are forked from, was ended by SIGKILL"
    )
    for rank in (0, 1):
        assert not is_alive(seen(tmp_path, "deaf", rank)["pid"])


def is_alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_one_press_asks_the_ranks_to_stop_and_waits(tmp_path):
    switch = launch.Switch()
    ended = run(plan(pair("long"), job("after", after=["long"])), tmp_path, switch, press(switch, 1))
    assert [(end.stage, end.how, end.code) for end in ended] == [("long", "stopped", 130)]
    assert (tmp_path / "run/long/stop").exists()


@pytest.mark.parametrize("times", [1, 2])
def test_a_press_while_everything_is_imported_is_enough(tmp_path, monkeypatch, times):
    monkeypatch.setenv("SLOW", "1")
    switch = launch.Switch()

    def begin(job, attempt):
        def tick():
            switch.presses = times if (tmp_path / "forked.py.loads").exists() else 0

        return tick

    ended = run(plan(pair("sft"), job("after", after=["sft"])), tmp_path, switch, begin)
    assert [(end.stage, end.how, end.code) for end in ended] == [("sft", "stopped", 130)]
    assert not (tmp_path / "run/sft/stop").exists()  # there was nobody to ask
    assert not (tmp_path / "run/sft/pid").exists()


def test_two_presses_end_even_deaf_ranks(tmp_path):
    switch = launch.Switch()
    (ended,) = run(plan(pair("deaf")), tmp_path, switch, press(switch, 2))
    assert (ended.how, ended.code) == ("stopped", 130)
    assert not is_alive(seen(tmp_path, "deaf", 1)["pid"])


def test_groups_have_leaders_of_their_own_and_a_deaf_server_does_not_end_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "LEAVE_SECONDS", 0.3)
    ended = run(plan(two("ppo"), job("sft", after=["ppo"])), tmp_path)
    assert [end.how for end in ended] == ["finished", "finished"]
    assert len(loads(tmp_path)) == 1
    actor, critic = (seen(tmp_path, "ppo", role=role) for role in ("actor", "critic"))
    assert actor["leader"] != critic["leader"]
    assert actor["SPECC_PEERS"] == f"critic={critic['SPECC_LISTEN']}"
    assert not is_alive(critic["pid"])
    assert "SPECC_LISTEN" not in actor
    assert "SPECC_PEERS" not in seen(tmp_path, "sft")


def test_torchrun_does_the_work_where_no_process_gets_warm(tmp_path, monkeypatch):
    monkeypatch.setenv("BROKEN", "1")
    ended = run(plan(job("sft"), job("second", after=["sft"])), tmp_path)
    assert [end.how for end in ended] == ["finished", "finished"]
    assert len(loads(tmp_path)) == 1  # tried once
    assert "a library is missing" in (tmp_path / "run/warm.log").read_text()
    assert (tmp_path / "run/sft/pid").exists()  # written by the ranks of the pretended torchrun


def test_torchrun_does_the_work_when_asked_to(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECC_WARM", "0")
    assert [end.how for end in run(plan(job("sft")), tmp_path)] == ["finished"]
    assert not (tmp_path / "forked.py.loads").exists()


@pytest.mark.slow
def test_all_processes_die_with_specc(tmp_path):
    """`specc` itself is killed with SIGKILL: nothing it could do about it."""
    script = (
        "import pathlib, sys; sys.path.insert(0, 'tests/specc')\n"
        "import test_warm, specc.warm\n"
        f"specc.warm.PROGRAM = ({str(tmp_path / 'warm.py')!r},)\n"
        f"test_warm.run(test_warm.plan(test_warm.pair('long')), pathlib.Path({str(tmp_path)!r}))"
    )
    killed = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    wait_for(lambda: all((tmp_path / f"run/long/model-{rank}.json").exists() for rank in (0, 1)), 20)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    family = [int(loads(tmp_path)[0][0]), seen(tmp_path, "long")["leader"]]
    family += [seen(tmp_path, "long", rank)["pid"] for rank in (0, 1)]
    assert wait_for(lambda: not any(map(is_alive, family)), 10), time.monotonic()
