"""Shards on the disk: what a kill, a torn byte or a full disk leaves, and what is made of it."""

import errno
import hashlib
import json

import pytest

from runtime import rowstore
from runtime.rowstore import Store

SOURCE = {"rows": 4, "sha256": "abc"}


def stored(folder, upto):
    """A store with one shard of two rows for each of the first `upto` steps."""
    store = Store(folder)
    store.open(SOURCE, folder / "attempt")
    for step in range(len(store.shards) + 1, upto + 1):
        store.put([{"step": step, "row": i} for i in range(2)])
        store.flush(step, 2 * step, {"cut": step})
    return store


def opened(folder):
    store = Store(folder)
    return store, store.open(SOURCE, folder / "attempt")


def names(folder):
    return sorted(path.name for path in (folder / "shards").iterdir())


def test_rows_are_there_again_in_their_order(tmp_path):
    first = list(stored(tmp_path, 3).rows())
    store, broken = opened(tmp_path)
    assert not broken
    assert list(store.rows()) == first == [{"step": s, "row": i} for s in (1, 2, 3) for i in (0, 1)]
    assert (store.last.step, store.last.done, store.last.counts) == (3, 6, {"cut": 3})


def test_what_was_not_entered_does_not_count(tmp_path):
    stored(tmp_path, 2)
    (tmp_path / "shards" / "000002.jsonl").write_text('{"step": 3}\n')  # killed before the journal's line
    (tmp_path / "shards" / ".000003.jsonl.writing").write_text('{"st')
    store, broken = opened(tmp_path)
    assert (store.last.step, broken) == (2, [])
    assert names(tmp_path) == ["000000.jsonl", "000001.jsonl", "journal.jsonl"]


@pytest.mark.parametrize("tail", [b'{"name": "0000', b'{"name": "000002.jsonl"}\n', b"\xff\n", b"[1]\n"])
def test_a_torn_line_of_the_journal_does_not_count(tmp_path, tail):
    stored(tmp_path, 2)
    with (tmp_path / "shards" / "journal.jsonl").open("ab") as journal:
        journal.write(tail)
    assert opened(tmp_path)[0].last.step == 2
    assert stored(tmp_path, 3).last.step == 3  # what comes next is entered on a line of its own
    assert opened(tmp_path)[0].last.step == 3


def test_a_torn_shard_and_those_behind_it_are_made_again(tmp_path):
    whole = list(stored(tmp_path, 4).rows())
    (tmp_path / "shards" / "000001.jsonl").write_text('{"step": 2, "ro')
    store, broken = opened(tmp_path)
    assert (store.last.step, broken) == (1, ["000001.jsonl", "000002.jsonl", "000003.jsonl"])
    assert (tmp_path / "attempt" / "shards" / "000001.jsonl").read_text() == '{"step": 2, "ro'
    assert list(stored(tmp_path, 4).rows()) == whole


def test_a_shard_that_is_gone_is_made_again(tmp_path):
    stored(tmp_path, 3)
    (tmp_path / "shards" / "000002.jsonl").unlink()
    assert opened(tmp_path)[0].last.step == 2


def test_rows_of_another_source_are_refused(tmp_path):
    stored(tmp_path, 1)
    with pytest.raises(ValueError, match="sha256"):
        Store(tmp_path).open(SOURCE | {"sha256": "other"}, tmp_path / "attempt")
    assert opened(tmp_path)[0].last.step == 1  # nothing was touched


def test_the_file_is_its_hash_and_appears_whole(tmp_path):
    store = stored(tmp_path, 2)
    said = store.write(store.rows(), lambda: None)
    content = (tmp_path / "rows.jsonl").read_bytes()
    assert said == {"rows": 4, "sha256": hashlib.sha256(content).hexdigest()}
    assert [json.loads(line) for line in content.splitlines()] == list(store.rows())


def test_a_file_that_cannot_be_finished_does_not_appear(tmp_path):
    store = stored(tmp_path, 1)

    def breaking():
        yield {"row": 1}
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.write(breaking(), lambda: None)
    assert not (tmp_path / "rows.jsonl").exists()


def test_rows_wait_when_the_disk_is_full(tmp_path, monkeypatch):
    store = stored(tmp_path, 1)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rowstore, "replace_durably", full)
    store.put([{"row": 1}])
    with pytest.raises(OSError, match="No space"):
        store.flush(2, 4, {})
    monkeypatch.undo()
    store.flush(2, 4, {})
    assert list(store.rows())[-1] == {"row": 1}


@pytest.mark.parametrize("text", ["ä", "\u2028", "\ud800 half", "line\nbreak", "\x00"])
def test_any_text_is_one_line_and_comes_back(text):
    line = rowstore.line_of({"text": text})
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"text": text}
