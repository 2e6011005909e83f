"""One run in a folder at a time, and whatever ends it leaves the folder free."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import toy_runs  # noqa: E402

from runtime import lock  # noqa: E402
from runtime.place import place_of  # noqa: E402
from runtime.problem import Problem  # noqa: E402

HOLD = "import sys, time; from runtime import lock; {take}; print('held', flush=True); time.sleep(60)"


@pytest.fixture
def place(tmp_path):
    (tmp_path / "sft").mkdir()
    job = toy_runs.plan().jobs[0]
    return place_of(tmp_path / "plan.json", job, "model", {"SPECC_ATTEMPT": "7"})


@pytest.fixture
def holder(place):
    """Another process that has locked the folder."""
    take = (
        "from runtime.place import Place; from pathlib import Path; stage = Path(sys.argv[1]); "
        "held = lock.take(Place(stage.parent, stage, stage, stage / 'attempts' / '3', 0, 1, 0, 1))"
    )
    command = [sys.executable, "-c", HOLD.format(take=take), str(place.stage)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_in_a_folder_is_told_who_is_there(place, holder, monkeypatch):
    monkeypatch.setattr(lock, "SECONDS_HERE", 0.3)
    with pytest.raises(
        Problem, match=f"another run .* attempt `3`, process {holder.pid} on .*; wait"
    ) as caught:
        lock.take(place)
    assert (caught.value.code, caught.value.outside) == ("R023", True)


def test_a_holder_that_is_killed_leaves_the_folder_free(place, holder):
    os.kill(holder.pid, signal.SIGKILL)
    began = time.monotonic()
    held = lock.take(place)
    assert held is not None
    assert time.monotonic() - began < lock.SECONDS_HERE
    held.close()


def test_a_run_that_ends_leaves_the_folder_free(place):
    for _ in range(2):
        held = lock.take(place)
        assert held is not None
        held.close()


def test_a_dead_machine_is_waited_for_longer_than_its_locks_live(place, holder, monkeypatch):
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "elsewhere")
    monkeypatch.setattr(lock, "SECONDS_HERE", 0.0)
    monkeypatch.setattr(lock, "SECONDS_ELSEWHERE", 0.8)
    began = time.monotonic()
    with pytest.raises(Problem, match="R023"):
        lock.take(place)
    assert time.monotonic() - began > 0.8


def test_a_disk_without_locks_is_a_warning(place, monkeypatch, capsys):
    def refuse(*given):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert lock.take(place) is None
    assert "cannot be locked (No locks available)" in capsys.readouterr().err


def test_a_second_launch_leaves_the_first_one_alone(world, tmp_path, place, holder):
    file = toy_runs.written(tmp_path, toy_runs.plan())
    assert world(1, toy_runs.attempt, str(file), "8") == [3]
    said = json.loads((place.stage / "attempts" / "8" / "error-0.json").read_text())
    assert said["code"] == "R023"
    assert sorted(path.name for path in place.stage.iterdir()) == [".lock", "attempts"]
