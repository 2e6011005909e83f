"""What a finished stage still has to remove, told from what lies in the folder."""

import dataclasses

import pytest

from specc import leftovers
from specc.plan import NO_MODEL, Job, Layout, Role

ROLE = Role("clerk", "best_of_n", 1, 0, Layout(), 1, 1, NO_MODEL, trains=False)
LEARN = Job("learn-2", "learn-2", 1, (), (ROLE,), {}, {}, discards=("ask-1", "learn-1"))


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_what_is_tidy_is_left_alone(tmp_path):
    kept = (
        "ask-1/output.json",
        "ask-1/metrics.jsonl",
        "ask-1/attempts/1/model.log",
        "learn-1/hf/config.json",
    )
    folder = touched(tmp_path, "learn-2/output.json", "learn-2/rows.jsonl", "learn-1/output.json", *kept)
    assert not leftovers.are_left(LEARN, folder)


@pytest.mark.parametrize(
    "file",
    [
        "ask-1/rows.jsonl",
        "ask-1/shards/000000.jsonl",
        "learn-1/checkpoint/step-4/MANIFEST.json",
        "learn-1/.discarded-checkpoint/step-4/MANIFEST.json",
        "learn-1/actor/checkpoint/step-4/MANIFEST.json",
        "learn-1/data/0123/tokens.npy",
        "learn-1/reference/0123/0.npy",
    ],
)
def test_what_a_kill_kept_from_being_discarded_is_left(tmp_path, file):
    folder = touched(tmp_path, "learn-2/output.json", "ask-1/output.json", "learn-1/output.json", file)
    assert leftovers.are_left(LEARN, folder)
    assert not leftovers.are_left(dataclasses.replace(LEARN, discards=()), folder)


def test_a_stage_that_has_not_finished_may_have_to_go_on(tmp_path):
    assert not leftovers.are_left(
        LEARN, touched(tmp_path, "learn-2/output.json", "ask-1/shards/000000.jsonl")
    )


def test_shards_are_left_where_all_rows_are_there(tmp_path):
    folder = touched(tmp_path, "learn-2/output.json", "learn-2/shards/000000.jsonl")
    assert not leftovers.are_left(LEARN, folder)
    assert leftovers.are_left(LEARN, touched(folder, "learn-2/rows.jsonl"))
