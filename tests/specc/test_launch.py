"""Starting and watching the processes of a job, with a torchrun that only pretends."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from specc import launch
from specc.plan import NO_MODEL, Cluster, Job, Layout, Model, Plan, Role, Shape, Weights

TORCHRUN = '''
"""Stands in for torch.distributed.run: starts one child that does what the stage's name says."""
import os, subprocess, sys
rank = [sys.executable, os.environ["FAKE_RANK"], *sys.argv[-3:]]
sys.exit(subprocess.call(rank, start_new_session=True) and 1)
'''

RANK = """
import json, os, pathlib, sys, time
plan, job, role = sys.argv[1:]
stage = pathlib.Path(plan).parent / job
attempt = stage / "attempts" / os.environ["SPECC_ATTEMPT"]
(stage / "pid").write_text(str(os.getpid()))
(stage / "heartbeat").touch()
if "fails" in job:
    (attempt / "error-1.json").write_text(json.dumps(
        {"code": "R010", "message": "row 3 has no key `output`", "rank": 1, "step": 2, "echo": False}))
    print("  exitcode  : 1 (pid: 7)"); sys.exit(1)
if "crashes" in job:
    print("  exitcode  : -9 (pid: 7)"); sys.exit(1)
if "mute" in job:
    print("last words"); sys.exit(1)
for step in range(1, 500 if "long" in job or "deaf" in job else 4):
    (stage / "metrics.jsonl").open("a").write(json.dumps({"step": step, "loss": 1 / step}) + "\\n")
    if (stage / "stop").exists() and "deaf" not in job:
        sys.exit(0)
    time.sleep(0.02 if step < 4 else 0.1)
known = {j["name"]: j["hash"] for j in json.load(open(plan))["jobs"]}
(stage / "output.json").write_text(json.dumps({"hash": known[job]}))
"""


@pytest.fixture(autouse=True)
def fake_torchrun(tmp_path, monkeypatch):
    package = tmp_path / "fake" / "torch" / "distributed"
    package.mkdir(parents=True)
    for file in (package / "__init__.py", package.parent / "__init__.py"):
        file.touch()
    (package / "run.py").write_text(TORCHRUN)
    (tmp_path / "fake" / "rank.py").write_text(RANK)
    monkeypatch.setenv("FAKE_RANK", str(tmp_path / "fake" / "rank.py"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))


def job(name, after=(), identity=None, **more):
    shape = Shape("llama", 2, 64, 128, 4, 4, 16, 256, 128)
    model = Model("tiny", shape, Weights())
    role = Role("model", "sft", 1, 1, Layout(), 1, 1, model)
    identity = identity or {"train.lr": 0.1}
    return Job(
        name, name, 1, tuple(after), (role,), {"train": {"steps": 3}}, {}, identity=identity,
        hash=json.dumps(identity), **more,
    )  # fmt: skip


def plan(*jobs):
    return Plan(1, "test", "0", 0, Cluster("here", "none", "cpu", 1, "cpu", "gloo"), jobs)


def run(what, tmp_path, fresh=(), switch=None, begin=lambda job, attempt: lambda: None):
    """How each stage ended."""
    with launch.run_folder(what, tmp_path / "run", list(fresh)) as folder:
        return list(launch.run_jobs(what, folder, tmp_path, switch or launch.Switch(), begin))


def test_a_stage_that_writes_its_output_is_finished(tmp_path):
    (ended,) = run(plan(job("sft")), tmp_path)
    assert (ended.how, ended.code) == ("finished", 0)


@pytest.mark.slow
def test_stages_run_in_the_order_they_depend_on_each_other(tmp_path):
    ended = run(plan(job("second", after=["first"]), job("first")), tmp_path)
    assert [end.stage for end in ended] == ["first", "second"]


def test_a_finished_stage_is_skipped(tmp_path):
    run(plan(job("sft")), tmp_path)
    assert [end.how for end in run(plan(job("sft")), tmp_path)] == ["skipped"]


def test_a_changed_stage_is_refused_with_the_changed_keys(tmp_path):
    (tmp_path / "run/sft").mkdir(parents=True)
    begun = {"hash": "other", "identity": {"train.lr": 0.1, "train.steps": 3}}
    (tmp_path / "run/sft/identity.json").write_text(json.dumps(begun))
    with pytest.raises(launch.Refusal, match=r"train.lr: 0.1 -> 0.2; train.steps: 3 -> absent.*--fresh sft"):
        run(plan(job("sft", identity={"train.lr": 0.2})), tmp_path)


@pytest.mark.slow
def test_fresh_moves_the_old_folder_aside_and_deletes_nothing(tmp_path):
    for _ in range(3):
        (ended,) = run(plan(job("sft")), tmp_path, fresh=["sft"])
        assert ended.how == "finished"
    assert (tmp_path / "run/sft.old-1/metrics.jsonl").exists()
    assert (tmp_path / "run/sft.old-2/metrics.jsonl").exists()


@pytest.mark.slow
def test_logs_of_an_earlier_attempt_are_kept(tmp_path):
    run(plan(job("fails")), tmp_path)
    run(plan(job("fails")), tmp_path)
    assert sorted(p.name for p in (tmp_path / "run/fails/attempts").iterdir()) == ["1", "2"]


def test_the_first_failing_rank_is_quoted_and_later_stages_do_not_start(tmp_path):
    ended = run(plan(job("fails"), job("after", after=["fails"])), tmp_path)
    assert [(end.how, end.code) for end in ended] == [("failed", 1)]
    assert ended[0].message == "error[R010]: row 3 has no key `output` (rank 1)"


def test_a_rank_that_was_killed_is_told_by_the_name_of_its_signal(tmp_path):
    (ended,) = run(plan(job("crashes")), tmp_path)
    assert (ended.code, ended.message) == (3, "error: a rank was ended by SIGKILL; was there enough memory?")


def test_without_an_error_file_the_last_line_of_the_log_is_quoted(tmp_path):
    (ended,) = run(plan(job("mute")), tmp_path)
    assert ended.message == "error: last words"


def test_one_press_asks_the_ranks_to_stop_and_waits(tmp_path):
    switch = launch.Switch()
    ended = run(
        plan(job("long"), job("after", after=["long"])), tmp_path, switch=switch, begin=press(switch, 1)
    )
    assert [(end.stage, end.how, end.code) for end in ended] == [("long", "stopped", 130)]


def test_a_stale_stop_file_does_not_stop_the_next_run(tmp_path):
    (tmp_path / "run/sft").mkdir(parents=True)
    (tmp_path / "run/sft/stop").touch()
    assert run(plan(job("sft")), tmp_path)[0].how == "finished"


@pytest.mark.slow
def test_two_presses_end_even_a_deaf_rank_and_leave_no_process(tmp_path):
    switch = launch.Switch()
    (ended,) = run(plan(job("deaf")), tmp_path, switch=switch, begin=press(switch, 2))
    assert (ended.how, ended.code) == ("stopped", 130)
    assert not psutil.pid_exists(int((tmp_path / "run/deaf/pid").read_text()))


@pytest.mark.slow
def test_a_run_without_a_sign_of_life_is_ended(tmp_path):
    (ended,) = run(plan(job("deaf", heartbeat_seconds=1)), tmp_path)
    assert (ended.how, ended.code, ended.message) == ("failed", 3, "no sign of life for 1 s")


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    with (
        launch.run_folder(plan(job("sft")), tmp_path / "run", []),
        pytest.raises(launch.Refusal, match="in use by another"),
    ):
        run(plan(job("sft")), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_the_processes_die_with_specc(tmp_path):
    """`specc` itself is killed with SIGKILL: nothing it could do about it."""
    script = (
        "from tests.specc.test_launch import *\nimport pathlib\n"
        f"run(plan(job('deaf')), pathlib.Path({str(tmp_path)!r}))"
    )
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    killed = subprocess.Popen([sys.executable, "-c", script], cwd=here)
    torchrun = wait_for(lambda: psutil.Process(killed.pid).children(), 20)[0]
    wait_for(lambda: (tmp_path / "run/deaf/pid").exists(), 20)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert wait_for(lambda: not torchrun.is_running() or torchrun.status() == psutil.STATUS_ZOMBIE, 10)
    psutil.Process(int((tmp_path / "run/deaf/pid").read_text())).kill()  # the pretended rank does not listen


def press(switch, times):
    """Presses once the stage's first step is done."""

    def begin(job, attempt):
        def tick():
            if switch.presses < times and (attempt.parent.parent / "metrics.jsonl").exists():
                switch.presses += 1

        return tick

    return begin


def wait_for(condition, seconds):
    """What the condition gives once it holds; fails after `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        threading.Event().wait(0.05)
    pytest.fail(f"did not happen within {seconds} s")


SERVER = """
import json, os, pathlib, signal, sys, time
plan, job, role = sys.argv[1:]
stage = pathlib.Path(plan).parent / job
attempt = stage / "attempts" / os.environ["SPECC_ATTEMPT"]
(stage / f"{role}.json").write_text(json.dumps(dict(os.environ)))
(stage / f"{role}.pid").write_text(str(os.getpid()))
if role == "critic":
    while "deaf" in job or not (attempt / "over").exists():
        if "broken" in job and (stage / "metrics.jsonl").exists():
            (attempt / "critic").mkdir()
            (attempt / "critic" / "error-0.json").write_text(json.dumps(
                {"code": "R018", "message": "out of memory", "rank": 0, "step": 2, "echo": False}))
            print("  exitcode  : 1 (pid: 7)"); sys.exit(1)
        if "leaves" in job and (stage / "metrics.jsonl").exists():
            sys.exit(0)
        time.sleep(0.02)
    (stage / "critic.left").touch()
    sys.exit(0)
(stage / "heartbeat").touch()
for step in range(1, 500 if "long" in job or "broken" in job or "leaves" in job else 4):
    (stage / "metrics.jsonl").open("a").write(json.dumps({"step": step, "loss": 1 / step}) + "\\n")
    if (stage / "stop").exists():
        (stage / "actor.saved").touch()
        sys.exit(0)
    if step > 20 and ("broken" in job or "leaves" in job):
        print("the critic does not answer"); sys.exit(1)
    if step == 2 and "fails" in job:
        print("error[R013]: the loss is not finite"); sys.exit(1)
    time.sleep(0.02)
known = {j["name"]: j["hash"] for j in json.load(open(plan))["jobs"]}
(stage / "output.json").write_text(json.dumps({"hash": known[job]}))
"""


@pytest.fixture
def with_server(tmp_path, monkeypatch):
    """Ranks of an actor, and of a critic that serves it."""
    (tmp_path / "fake" / "server.py").write_text(SERVER)
    monkeypatch.setenv("FAKE_RANK", str(tmp_path / "fake" / "server.py"))
    monkeypatch.setattr("specc.groups.LEAVE_SECONDS", 2.0)


def two(name, after=()):
    """A job of two groups."""
    whole = job(name, after)
    model = whole.roles[0].model
    roles = [Role(n, program, 1, 1, Layout(), 1, 1, model) for n, program in SERVED.items()]
    return dataclasses.replace(whole, roles=tuple(roles), nodes=2)


SERVED = {"actor": "ppo", "critic": "serve"}


@pytest.mark.slow
def test_servers_leave_after_a_clean_end_of_the_first_group(tmp_path, with_server):
    (ended,) = run(plan(two("ppo")), tmp_path)
    assert (ended.how, ended.code) == ("finished", 0)
    assert (tmp_path / "run/ppo/critic.left").exists()


@pytest.mark.slow
def test_groups_know_where_the_servers_listen(tmp_path, with_server):
    run(plan(two("ppo")), tmp_path)
    actor, critic = (json.loads((tmp_path / f"run/ppo/{name}.json").read_text()) for name in SERVED)
    host, port = critic["SPECC_LISTEN"].split(":")
    assert host == "127.0.0.1"
    assert int(port) > 1023
    assert actor["SPECC_PEERS"] == critic["SPECC_PEERS"] == f"critic=127.0.0.1:{port}"
    assert "SPECC_LISTEN" not in actor
    assert "127.0.0.1" in actor["no_proxy"].split(",")
    assert actor["SPECC_ATTEMPT"] == critic["SPECC_ATTEMPT"]


@pytest.mark.slow
def test_a_server_that_overlooks_the_end_is_ended_and_the_stage_is_finished(tmp_path, with_server):
    (ended,) = run(plan(two("deaf")), tmp_path)
    assert ended.how == "finished"
    assert not psutil.pid_exists(int((tmp_path / "run/deaf/critic.pid").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "error[R018]: out of memory (critic rank 0)"),
        ("fails", "error: actor: error[R013]: the loss is not finite"),
        ("leaves", "error: the critic ranks ended without a word"),
    ],
)
def test_a_failing_group_ends_all_and_is_named(tmp_path, with_server, name, message):
    (ended,) = run(plan(two(name)), tmp_path)
    assert (ended.how, ended.message) == ("failed", message)
    for role in SERVED:
        assert not psutil.pid_exists(int((tmp_path / f"run/{name}/{role}.pid").read_text()))


@pytest.mark.slow
def test_one_press_lets_the_actor_save_with_its_servers(tmp_path, with_server):
    switch = launch.Switch()
    (ended,) = run(plan(two("long")), tmp_path, switch=switch, begin=press(switch, 1))
    assert (ended.how, ended.code) == ("stopped", 130)
    assert (tmp_path / "run/long/actor.saved").exists()
    assert (tmp_path / "run/long/critic.left").exists()


# --- stages without a model, and what was discarded

PLAIN = """
import json, os, pathlib, sys
plan, job, role = sys.argv[1:]
attempt = pathlib.Path(plan).parent / job / "attempts" / os.environ["SPECC_ATTEMPT"]
if "signal" in job:
    os.kill(os.getpid(), 9)
if "outside" in job:
    fact = {"code": "R024", "message": "the rows are gone", "rank": 0, "step": 0, "echo": False}
    (attempt / "error-0.json").write_text(json.dumps(fact))
    sys.exit(3)
if "wrong" in job:
    print("no such row"); sys.exit(1)
if "stops" not in job:
    known = {j["name"]: j["hash"] for j in json.load(open(plan))["jobs"]}
    (attempt.parents[1] / "output.json").write_text(json.dumps({"hash": known[job], "rows": 1}))
"""


@pytest.fixture
def plainly(tmp_path, monkeypatch):
    """How a stage of a clerk ends; another module `runtime` stands in for ours, and torchrun would fail."""
    (tmp_path / "fake" / "runtime").mkdir()
    (tmp_path / "fake" / "runtime" / "__init__.py").touch()
    (tmp_path / "fake" / "runtime" / "__main__.py").write_text(PLAIN)
    (tmp_path / "fake" / "torch" / "distributed" / "run.py").write_text("raise SystemExit(9)")
    own = launch.environment

    def environment(*args):
        return own(*args) | {"PYTHONPATH": str(tmp_path / "fake")}

    monkeypatch.setattr(launch, "environment", environment)

    def ended(name):
        (found,) = run(plan(clerk(name)), tmp_path)
        return found

    return ended


def clerk(name, after=(), **more):
    role = Role("clerk", "above", 1, 0, Layout(), 8, 8, NO_MODEL, trains=False)
    return dataclasses.replace(job(name, after, **more), roles=(role,))


@pytest.mark.parametrize(
    ("name", "how", "code", "message"),
    [
        ("good", "finished", 0, ""),
        ("outside", "failed", 3, "error[R024]: the rows are gone (rank 0)"),
        ("wrong", "failed", 1, "error: no such row"),
        ("signal", "failed", 3, "error: a rank was ended by SIGKILL; was there enough memory?"),
        ("stops", "stopped", 130, ""),
    ],
)
def test_a_clerk_is_one_plain_process_whose_exit_code_counts(plainly, name, how, code, message):
    ended = plainly(name)
    assert (ended.how, ended.code, ended.message) == (how, code, message)


def finished(folder, *jobs, discarded=()):
    """The run folder after these stages; the rows of some were discarded."""
    for one in jobs:
        (folder / one.stage).mkdir(parents=True)
        output = {"hash": one.hash} | ({"discarded": True} if one.name in discarded else {})
        (folder / one.stage / "output.json").write_text(json.dumps(output))
    return folder


def loop():
    """Answers, their scores, the best of them, and what learns these."""
    names = ("ask", "score", "best", "learn")
    return [
        job(name, after=[before] if before else []) for before, name in zip(("", *names), names, strict=False)
    ]


def test_what_is_made_anew_is_not_thrown_away_before_it_is_read(tmp_path, monkeypatch):
    """A later stage that had finished long ago discards what was begun anew, and the run was killed."""
    ask, score, later = job("ask"), job("score", after=["ask"]), job("later", discards=("ask",))
    folder, tidied = finished(tmp_path / "run", ask, later), []
    (folder / "ask/rows.jsonl").touch()
    monkeypatch.setattr(launch.subprocess, "run", lambda words, **how: tidied.append(words[-2]))
    with launch.run_folder(plan(ask, score, later), folder, []):
        assert tidied == []
    finished(folder, score)
    with launch.run_folder(plan(ask, score, later), folder, []):
        assert tidied == ["later"]


def refusal(jobs, folder, *fresh):
    with pytest.raises(launch.Refusal) as refused, launch.run_folder(plan(*jobs), folder, list(fresh)):
        pass
    return str(refused.value)


def test_a_stage_begun_anew_whose_rows_were_discarded_names_all_that_makes_them(tmp_path):
    jobs = loop()
    folder = finished(tmp_path / "run", *jobs, discarded=("ask", "score", "best"))
    said = refusal(jobs, folder, "learn")
    assert said.startswith("stage `learn` needs what `best` made, which was discarded")
    assert "--fresh ask --fresh score --fresh best --fresh learn" in said
    assert (folder / "learn" / "output.json").exists()  # nothing was moved aside
    with launch.run_folder(plan(*jobs), folder, ["ask", "score", "best", "learn"]):
        assert (folder / "ask.old-1").is_dir()


def test_only_what_is_gone_has_to_be_made_again(tmp_path):
    jobs = loop()
    folder = finished(tmp_path / "run", *jobs, discarded=("score", "best"))
    assert "with --fresh score --fresh best --fresh learn," in refusal(jobs, folder, "learn")


def test_what_was_discarded_and_nobody_needs_any_more_is_no_trouble(tmp_path):
    jobs = loop()
    folder = finished(tmp_path / "run", *jobs, discarded=("ask", "score", "best"))
    with launch.run_folder(plan(*jobs), folder, []) as opened:
        assert opened == folder
    assert all(launch.is_finished(one, folder) for one in jobs)
