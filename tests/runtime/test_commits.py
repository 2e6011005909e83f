"""A step of two roles counts when both have saved it and its commit says so, and never for one alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime import manifest, steps
from runtime.commits import ASIDE, Commits, set_aside
from runtime.manifest import Manifest

ROLES = ("actor", "critic")


def saved(stage: Path, role: str, step: int, content: bytes = b"w") -> Path:
    """A checkpoint as `checkpoint.save` leaves one, without a model in it."""
    folder = stage / role / "checkpoint"
    saving = steps.begin(folder, step)
    manifest.write_durably(saving / "weights", content)
    return steps.publish(
        saving, folder, Manifest(step, files={"weights": manifest.record(saving / "weights")})
    )


def committed(stage: Path, *numbers: int) -> Commits:
    commits = Commits(stage, ROLES)
    for number in numbers:
        for role in ROLES:
            saved(stage, role, number)
        commits.write(number)
    return commits


def test_a_commit_names_both_manifests_with_their_checksums(tmp_path: Path) -> None:
    commits = committed(tmp_path, 20)
    said = json.loads((tmp_path / "commits" / "20.json").read_text())
    assert said["step"] == 20
    for role in ROLES:
        named = said["manifests"][role]
        file = tmp_path / named["path"]
        assert file == tmp_path / role / "checkpoint" / "step-20" / "MANIFEST.json"
        assert (named["bytes"], named["sha256"]) == (
            file.stat().st_size,
            manifest.record(file).sha256,
        )
    assert commits.whole() == [20]


def test_a_step_that_one_role_has_not_saved_cannot_be_committed(tmp_path: Path) -> None:
    saved(tmp_path, "critic", 5)
    with pytest.raises(OSError, match="actor"):
        Commits(tmp_path, ROLES).write(5)
    assert Commits(tmp_path, ROLES).written() == []


@pytest.mark.parametrize("harm", ["gone", "another", "torn", "form", "other step", "lacks"])
def test_a_commit_that_does_not_name_what_is_there_does_not_count(tmp_path: Path, harm: str) -> None:
    commits = committed(tmp_path, 4, 8)
    file = tmp_path / "commits" / "8.json"
    said: dict[str, Any] = json.loads(file.read_text())
    if harm == "gone":
        (tmp_path / "critic" / "checkpoint" / "step-8" / "MANIFEST.json").unlink()
    elif harm == "another":
        saved(tmp_path, "critic", 8, b"others")
    elif harm == "torn":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        said |= {"form": {"format": 2}, "other step": {"step": 4}, "lacks": {"manifests": {}}}[harm]
        file.write_text(json.dumps(said))
    assert commits.whole() == [4]
    assert commits.problem(8)


def test_a_commit_goes_when_its_checkpoints_are_pruned_and_the_newest_stays(tmp_path: Path) -> None:
    commits = committed(tmp_path, 1, 2)
    steps.prune(tmp_path / "actor" / "checkpoint", 1, None)
    assert (commits.written(), commits.whole()) == ([1, 2], [2])
    committed(tmp_path, 3)
    assert commits.written() == [2, 3]


def test_what_was_set_aside_goes_with_the_next_commit(tmp_path: Path) -> None:
    committed(tmp_path, 1)
    saved(tmp_path, "critic", 2)
    folder = tmp_path / "critic" / "checkpoint"
    assert set_aside(folder, 1) == [2]
    assert [path.name for path in sorted(folder.glob("step-*"))] == ["step-1", f"step-2{ASIDE}"]
    saved(tmp_path, "critic", 2)
    assert set_aside(folder, 1) == [2]  # again: the older one makes room
    committed(tmp_path, 2)
    assert [path.name for path in sorted(folder.glob("step-*"))] == ["step-1", "step-2"]


# ── with models ──────────────────────────────────────────────────────────────────────────────────


def resumed_after(stage: str, events: list[str]) -> dict[str, Any]:
    """What both roles resume when a run was killed after these events: `critic 2`, `actor 2`, `commit 2`."""
    import saves
    import toys

    from runtime import checkpoint
    from runtime.problem import Problem

    engine = saves.opened(toys.role())
    commits = Commits(Path(stage), ROLES)
    for event in events:
        who, number = event.split()
        if who == "commit":
            commits.write(int(number))
        elif who == "tear":
            path = commits.checkpoints("critic") / f"step-{number}" / "state.json"
            path.write_bytes(path.read_bytes() + b" ")
        else:
            checkpoint.save(commits.checkpoints(who), int(number), engine, {"seed": 1, "who": who})
    found: dict[str, Any] = {}
    for role in ROLES:
        folder = commits.checkpoints(role)
        try:
            step = checkpoint.resume(folder, engine, commits)
        except Problem as problem:
            step = (problem.code, problem.message)
        found[role] = step
        found[f"{role} has"] = steps.steps_in(folder)
    return found


FIRST = ["critic 2", "actor 2", "commit 2"]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("events", "step"),
    [
        ([], None),
        (FIRST[:1], None),
        (FIRST[:2], None),
        (FIRST, 2),
        ([*FIRST, "critic 4"], 2),
        ([*FIRST, "critic 4", "actor 4"], 2),
        ([*FIRST, "critic 4", "actor 4", "commit 4"], 4),
        ([*FIRST, "critic 4", "actor 4", "commit 4", "critic 6"], 4),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else None,
)
def test_killed_between_any_two_saves_both_roles_resume_the_same_step(
    world: Any, tmp_path: Path, events: list[str], step: int | None
) -> None:
    [found] = world(1, resumed_after, str(tmp_path), events)
    for role in ROLES:
        assert found[role] == (None if step is None else (step, {"seed": 1, "who": role}))
        assert [n for n in found[f"{role} has"] if step is None or n > step] == []


@pytest.mark.torch
def test_a_committed_checkpoint_that_is_torn_gives_way_to_the_one_before(world: Any, tmp_path: Path) -> None:
    events = [*FIRST, "critic 4", "actor 4", "commit 4", "tear 4"]
    [found] = world(1, resumed_after, str(tmp_path), events)
    assert found["critic"][0] == 2


@pytest.mark.torch
def test_a_run_whose_commits_cannot_be_resumed_does_not_begin_anew(world: Any, tmp_path: Path) -> None:
    [found] = world(1, resumed_after, str(tmp_path), [*FIRST, "tear 2"])
    assert found["critic"][0] == "R021"
    assert "no step in" in found["critic"][1]
    assert found["critic has"] == [2]
