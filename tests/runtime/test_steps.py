"""Step folders: how one appears, which stay, and what a kill leaves behind."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import manifest, steps
from runtime.manifest import Manifest

METRICS = st.dictionaries(
    st.integers(0, 30), st.none() | st.floats(allow_nan=True, allow_infinity=True, width=16), max_size=12
)


def saved(folder: Path, step: int, metric: float | None = None, content: bytes = b"weights") -> Path:
    """A checkpoint of one file."""
    saving = steps.begin(folder, step)
    (saving / "file").write_bytes(content)
    files = {"file": manifest.record(saving / "file")}
    return steps.publish(saving, folder, Manifest(step=step, metric=metric, files=files))


def test_a_published_step_has_its_name_and_nothing_is_left_over(tmp_path):
    assert saved(tmp_path, 20) == tmp_path / "step-20"
    assert os.listdir(tmp_path) == ["step-20"]
    assert list(steps.whole(tmp_path)) == [20]


def test_a_step_saved_again_replaces_the_first(tmp_path):
    saved(tmp_path, 20, content=b"old")
    saved(tmp_path, 20, content=b"new")
    assert (tmp_path / "step-20" / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["step-20"]


def test_a_step_killed_while_it_was_replaced_comes_back(tmp_path):
    saved(tmp_path, 20)
    (tmp_path / "step-20").rename(tmp_path / ".replaced-step-20")
    steps.clean(tmp_path)
    assert list(steps.whole(tmp_path)) == [20]


def test_what_killed_saves_and_prunes_left_is_removed(tmp_path):
    saved(tmp_path, 20)
    for name in (".saving-step-30-ab12", ".deleting-step-10", ".replaced-step-20"):
        shutil.copytree(tmp_path / "step-20", tmp_path / name)
    steps.clean(tmp_path)
    assert os.listdir(tmp_path) == ["step-20"]


def test_a_file_that_nobody_recorded_is_not_published(tmp_path):
    saving = steps.begin(tmp_path, 1)
    (saving / "stranger").write_bytes(b"")
    with pytest.raises(OSError, match="somebody else wrote"):
        steps.publish(saving, tmp_path, Manifest(step=1))


def test_a_file_that_only_another_machine_sees_is_not_published(tmp_path):
    saving = steps.begin(tmp_path, 1)
    described = Manifest(step=1, files={"__8_0.distcp": manifest.FileRecord(3, "00")})
    with pytest.raises(OSError, match=r"do all machines share the folder\?"):
        steps.publish(saving, tmp_path, described)
    assert steps.steps_in(tmp_path) == []


def test_other_names_are_not_steps(tmp_path):
    for name in ("step-", "step-x", "step-007", "step--1", "best.json"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-5").write_text("a file")
    assert steps.steps_in(tmp_path) == []


def test_pruning_keeps_the_newest_and_the_best_and_names_the_best(tmp_path):
    for step, metric in {1: 0.9, 2: 0.1, 3: 0.5, 4: 0.7, 5: None}.items():
        saved(tmp_path, step, metric)
    assert steps.prune(tmp_path, keep_last=2, keep_best=1) == [1, 3]
    assert steps.steps_in(tmp_path) == [2, 4, 5]
    assert steps.best_of(tmp_path) == 2


def test_pruning_can_prefer_the_highest(tmp_path):
    for step, metric in {1: 0.9, 2: 0.1, 3: 0.5}.items():
        saved(tmp_path, step, metric)
    assert steps.prune(tmp_path, keep_last=1, keep_best=1, lower_is_better=False) == [2]
    assert steps.best_of(tmp_path) == 1


def test_pruning_leaves_broken_steps_alone_and_does_not_count_them(tmp_path):
    for step in (1, 2, 3):
        saved(tmp_path, step)
    (tmp_path / "step-3" / "file").write_bytes(b"short")
    assert steps.prune(tmp_path, keep_last=1, keep_best=None) == [1]
    assert steps.steps_in(tmp_path) == [2, 3]


def test_the_spared_step_stays_though_newer_ones_are_there(tmp_path):
    for step in (10, 30):
        saved(tmp_path, step)
    assert steps.prune(tmp_path, keep_last=1, keep_best=None, spare=10) == []


def test_a_best_step_that_is_gone_is_not_named(tmp_path):
    (tmp_path / steps.BEST).write_text('{"step": 3, "metric": 1.0}')
    assert steps.best_of(tmp_path) is None


@given(METRICS, st.integers(1, 4), st.integers(0, 4), st.booleans())
def test_the_newest_and_the_best_are_never_removed(metrics, last, best, lower):
    gone = steps.doomed(metrics, last, best, lower)
    stays = [step for step in metrics if step not in gone]
    assert set(sorted(metrics)[-last:]) <= set(stays)
    assert set(steps.ranked(metrics, lower)[:best]) <= set(stays)
    assert len(stays) <= last + best


@given(METRICS, st.integers(0, 4))
def test_without_a_number_to_keep_all_stay(metrics, best):
    assert steps.doomed(metrics, None, best) == []
    assert steps.doomed(metrics, 0, best) == []


@given(METRICS, st.booleans())
def test_the_first_of_a_ranking_is_not_beaten(metrics, lower):
    order = steps.ranked(metrics, lower)
    values = [metrics[step] for step in order]
    assert values == sorted(values, reverse=not lower)


@given(METRICS, st.integers(1, 4), st.integers(0, 4))
def test_pruning_twice_removes_nothing_more(metrics, last, best):
    gone = steps.doomed(metrics, last, best)
    assert steps.doomed({s: m for s, m in metrics.items() if s not in gone}, last, best) == []
