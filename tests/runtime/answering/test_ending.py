"""When a server ends by itself, and what it asks itself at the start; over a parrot, without torch."""

import parrot
import pytest

from runtime.answering import ending as endings
from runtime.answering import rehearsal
from runtime.answering.ending import Ending
from runtime.answering.exchange import Exchange
from runtime.answering.stream import Patient
from runtime.serving.server import bound, serving
from runtime.stop import StopFlag


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(endings.time, "monotonic", lambda: now[0])
    return now


class Asked(Exchange):
    """Of which a test says how many wait."""

    waiting = 0

    def __len__(self):
        return self.waiting


def test_it_ends_when_nobody_has_asked_for_so_long(clock, tmp_path):
    exchange = Asked()
    ending = Ending(StopFlag(tmp_path / "stop", tmp_path, 0), exchange, 60)
    clock[0] += 59
    assert not ending.is_due()
    exchange.waiting = 1  # an answer that takes ten minutes
    clock[0] += 600
    assert not ending.is_due()
    exchange.waiting = 0
    clock[0] += 59
    assert not ending.is_due()
    clock[0] += 2
    assert ending.is_due()
    assert ending.is_over
    assert ending.why == "nobody asked for 60 s"
    exchange.waiting = 1  # too late: it takes nothing more
    assert ending.is_due()


def test_answers_that_are_done_within_a_step_were_asked_for_too(clock, tmp_path):
    exchange = Asked()  # nobody waits whenever it is looked at
    ending = Ending(StopFlag(tmp_path / "stop", tmp_path, 0), exchange, 60)
    for _ in range(5):
        clock[0] += 50
        exchange.asked += 1
        assert not ending.is_due()
    clock[0] += 61
    assert ending.is_due()


def test_a_rehearsal_is_waited_for(clock, tmp_path):
    rehearsing = [True]
    ending = Ending(StopFlag(tmp_path / "stop", tmp_path, 0), Asked(), 2, lambda: rehearsing[0])
    clock[0] += 30
    assert not ending.is_due()
    rehearsing[0] = False
    clock[0] += 3
    assert ending.is_due()


def test_without_a_limit_it_ends_only_when_it_is_told(clock, tmp_path):
    ending = Ending(StopFlag(tmp_path / "stop", tmp_path, 0), Asked())
    clock[0] += 10**6
    assert not ending.is_due()
    (tmp_path / "stop").touch()
    clock[0] += 1
    assert ending.is_due()
    assert not ending.is_over
    assert ending.why == "told to stop"


def test_a_rehearsal_asks_as_a_client_does_and_what_was_answered_is_counted(capsys):
    door = bound("0.0.0.0", 0)
    with (
        parrot.answering(key="s3cret") as (answering, ranks),
        serving(answering.application(), door, Patient) as url,
    ):
        rehearsal.rehearse(url, "s3cret", 3)
        assert capsys.readouterr().out == "rehearsed: 3 requests answered with 24 tokens\n"
        exchange = answering.exchange
        assert (exchange.asked, exchange.answered, exchange.tokens) == (3, 3, 24)
        assert bytes(ranks.asked[2].prompt) == b"2 + 2 ="
        rehearsal.rehearse(url, "wrong", 3)
        assert "ended at request 1 of 3: HTTP Error 401" in capsys.readouterr().out
    assert rehearsal.begin("http://127.0.0.1:1", "", 0) is None
