"""What can go wrong with a checkpoint, and that the last good one survives it."""

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
import saves
import toy_runs
import toys
from worlds import WorldFailed

from runtime import manifest
from specc.plan import Layout

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]

ROLE = toys.role(Layout(tp=2), distributed_optimizer=True, shape=toys.shape(layers=2))
KINDS = {
    "shard": "__1_0.distcp",
    "index": ".metadata",
    "settings": "common.pt",
    "form": "metadata.json",
    "state": "state.json",
    "random state": "rng/rank-1.safetensors",
    "manifest": "MANIFEST.json",
}


@pytest.fixture(scope="module")
def two_steps(world, tmp_path_factory):
    """A run with checkpoints at steps 1 and 2."""
    folder = tmp_path_factory.mktemp("run")
    world(2, saves.saved_at, ROLE, folder, [1, 2])
    return folder


@pytest.fixture
def run(two_steps, tmp_path):
    """A copy of that run to do harm to."""
    return shutil.copytree(two_steps, tmp_path / "checkpoint")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [flip, cut, os.unlink], ids=["flipped", "cut", "missing"])
@pytest.mark.parametrize("name", KINDS.values(), ids=KINDS)
def test_a_broken_file_is_named_and_the_step_before_is_used(world, run, name, harm):
    harm(run / "step-2" / name)
    [(step, said)] = world(1, saves.newest, run)
    assert step == 1
    assert said.startswith("warning[R021]: checkpoint `step-2` is refused: ")
    assert name in said


def test_all_ranks_agree_on_the_step_and_one_of_them_speaks(world, run):
    flip(run / "step-2" / "__1_0.distcp")
    flip(run / "step-2" / "__0_0.distcp")
    (first, said), (second, nothing) = world(2, saves.newest, run)
    assert first == second == 1
    assert said.count("\n") == 1
    assert said.count("does not match") == 2
    assert nothing == ""


def test_with_no_good_checkpoint_there_is_none(world, run):
    for step in ("step-1", "step-2"):
        cut(run / step / "common.pt")
    [(step, said)] = world(1, saves.newest, run)
    assert step is None
    assert said.count("is refused") == 2


def test_a_folder_under_another_steps_name_is_refused(world, run):
    (run / "step-2").rename(run / "step-9")
    [(step, said)] = world(1, saves.newest, run)
    assert step == 1
    assert "its manifest says step 2" in said


def test_loading_a_broken_step_by_name_is_refused(world, run):
    flip(run / "step-2" / ".metadata")
    for code, message in world(2, saves.problem_of_loading, ROLE, run, 2):
        assert code == "R021"
        assert "the checksum of `.metadata` does not match" in message


class Attack:
    """What an attacker's pickle calls."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def renewed(step: Path) -> None:
    """Make the manifest right for what lies there now, as an attacker would."""
    described = manifest.read(step)
    files = {name: manifest.record(step / name) for name in described.files}
    manifest.write(step, dataclasses.replace(described, files=files))


@pytest.mark.parametrize("name", [".metadata", "common.pt"])
def test_a_pickle_that_calls_something_is_refused_though_its_checksum_matches(world, run, tmp_path, name):
    torch = pytest.importorskip("torch")
    evil, marker = run / "step-2" / name, tmp_path / "called"
    if name == "common.pt":
        torch.save({"optimizer": Attack(marker)}, evil)
    else:
        index = pickle.loads(evil.read_bytes())  # noqa: S301 - our own file
        index.planner_data = Attack(marker)
        evil.write_bytes(pickle.dumps(index))
    renewed(run / "step-2")
    for code, message in world(2, saves.problem_of_loading, ROLE, run, 2):
        assert code == "R021"
        assert f"`{name}` names `posix.system`, which no checkpoint has a use for" in message
    assert not marker.exists()


def test_a_checkpoint_without_a_tensor_says_which(world, run):
    index = pickle.loads((run / "step-2" / ".metadata").read_bytes())  # noqa: S301 - our own file
    del index.state_dict_metadata["output_layer.weight"]
    (run / "step-2" / ".metadata").write_bytes(pickle.dumps(index))
    renewed(run / "step-2")
    [(code, message), _] = world(2, saves.problem_of_loading, ROLE, run, 2)
    assert (code, message.split(": ")[-1]) == ("R021", "it has no `output_layer.weight`")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_on_any_rank_keeps_the_last_checkpoint_and_is_told_to_all(world, tmp_path, rank):
    ranks = world(2, saves.saved_on_a_full_disk, ROLE, tmp_path, rank)
    for code, message, series in ranks:
        assert code == "R020"
        assert f"on rank {rank}: no space left on device" in message
        assert "`step-2` is kept" in message
        assert len(series) == 1  # the engine still works
    assert os.listdir(tmp_path) == ["step-2"]
    assert world(1, saves.newest, tmp_path)[0][0] == 2


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full_keeps_the_last_checkpoint(world, small_disk):
    folder = small_disk / "checkpoint"
    ranks = world(2, saves.saved_on_a_small_disk, ROLE, folder, small_disk / "filler")
    for code, message, is_outside in ranks:
        assert code == "R020"
        assert "no space left on device" in message
        assert is_outside
    assert os.listdir(folder) == ["step-1"]
    assert world(1, saves.newest, folder)[0][0] == 1


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("before the shards", 2),
        ("before the checksums", 2),
        ("before the manifest", 2),
        ("before the rename", 2),
        ("before pruning", 4),
        ("between prune's rename and removal", 4),
    ],
)
def test_a_save_killed_at_any_moment_leaves_a_good_checkpoint(world, tmp_path, moment, left):
    role = toys.role(distributed_optimizer=True, shape=toys.shape(layers=2))
    with pytest.raises(WorldFailed, match="died without a word"):
        world(1, saves.killed_while_saving, role, tmp_path, moment)
    [(step, said)] = world(1, saves.newest, tmp_path)
    assert (step, said) == (left, "")
    [after] = world(1, saves.resumed, role, tmp_path, left + 1)
    assert after["step"] == left
    hidden = [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert hidden == []


def test_old_checkpoints_go_and_the_best_one_stays(world, tmp_path):
    role = toys.role(shape=toys.shape(layers=2))
    world(1, saves.saved_with_metrics, role, tmp_path, {1: 3.0, 2: 1.0, 3: 2.0, 4: None}, 1, 1)
    assert sorted(os.listdir(tmp_path)) == ["best.json", "step-2", "step-4"]
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 2, "metric": 1.0}
    assert world(1, saves.chosen_step, tmp_path) == [2]
    flip(tmp_path / "step-2" / "common.pt")
    assert world(1, saves.chosen_step, tmp_path) == [4]


def test_a_run_whose_checkpoints_are_all_broken_stops_and_keeps_what_is_there(world, tmp_path):
    plan = toy_runs.written(tmp_path, toy_runs.plan())
    assert world(1, toy_runs.attempt, str(plan)) == [0]
    series = toy_runs.series(tmp_path)
    (tmp_path / "sft" / "output.json").unlink()
    for manifest_file in tmp_path.glob("sft/checkpoint/step-*/MANIFEST.json"):
        cut(manifest_file)
    before = sorted(os.listdir(tmp_path / "sft" / "checkpoint"))
    assert world(1, toy_runs.attempt, str(plan), "2") == [1]
    [said] = tmp_path.glob("sft/attempts/2/error-0.json")
    assert json.loads(said.read_text())["code"] == "R021"
    assert sorted(os.listdir(tmp_path / "sft" / "checkpoint")) == before
    assert toy_runs.series(tmp_path) == series


def test_the_checksums_are_those_of_sha256sum(two_steps):
    described = json.loads((two_steps / "step-1" / "MANIFEST.json").read_text())
    for name, wanted in described["files"].items():
        assert wanted["sha256"] == hashlib.sha256((two_steps / "step-1" / name).read_bytes()).hexdigest()
