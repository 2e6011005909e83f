"""Weights in memory go with whoever handed them over, or with the next one who comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.engines.shelf import PREFIX, Shelf, sweep, taken

ROOT = Path(__file__).parents[3]
OWNER = """
import sys, time
from pathlib import Path
from runtime.engines.shelf import taken
shelf = taken("mine", lambda: True, Path(sys.argv[1]))
(shelf.folder / "weights").mkdir()
(shelf.folder / "weights" / "model.safetensors").write_bytes(bytes(1 << 20))
print(shelf.folder, flush=True)
time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with weights on its shelf, and where they lie."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    yield process, folder
    process.kill()
    process.wait()
    process.stdout.close()


def named(name: str) -> str:
    return PREFIX.format(user=os.getuid()) + name


def test_weights_of_a_process_that_was_killed_go_when_the_next_one_comes(
    owner: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, folder = owner
    weights = folder / "weights" / "model.safetensors"
    assert sweep(tmp_path) == []  # it lives
    assert taken("mine", lambda: True, tmp_path) is None
    assert weights.stat().st_size == 1 << 20
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert weights.exists()  # memory that nobody frees
    room: list[bool] = []
    other = taken("other", lambda: not room.append(weights.exists()), tmp_path)
    assert room == [False]  # it is gone before room is asked for
    assert other is not None
    assert sorted(found.name for found in tmp_path.iterdir()) == [named("other")]
    other.close()
    other.close()
    assert not list(tmp_path.iterdir())


def test_a_shelf_of_the_same_name_is_empty_when_it_is_taken_again(tmp_path: Path) -> None:
    left = tmp_path / named("mine")
    (left / "weights").mkdir(parents=True)
    (left / "weights" / "model.safetensors").write_bytes(b"old")
    shelf = taken("mine", lambda: True, tmp_path)
    assert shelf is not None
    assert [found.name for found in shelf.folder.iterdir()] == [".owner"]
    assert shelf.folder.stat().st_mode & 0o077 == 0
    shelf.close()


def test_nothing_is_taken_without_room_and_nothing_of_others_is_touched(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").touch()
    (tmp_path / named("linked")).symlink_to(theirs)
    (tmp_path / "specc-99999-theirs").mkdir()
    assert taken("full", lambda: False, tmp_path) is None
    assert taken("linked", lambda: True, tmp_path) is None
    assert taken("any", lambda: True, tmp_path / "absent") is None
    assert sweep(tmp_path) == []
    assert {found.name for found in tmp_path.iterdir()} == {"theirs", named("linked"), "specc-99999-theirs"}
    assert (theirs / "file").exists()


def test_a_folder_on_a_disk_goes_too(tmp_path: Path) -> None:
    (tmp_path / "handed" / "weights").mkdir(parents=True)
    Shelf(tmp_path / "handed").close()
    assert not list(tmp_path.iterdir())
