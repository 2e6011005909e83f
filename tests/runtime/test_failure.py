"""How a failing rank reports: one line for a person, the lowest rank, and the cause rather than its echo."""

import errno
import json

import pytest

from runtime import failure
from runtime.problem import Problem

LOST = RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]:38293")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(failure.time, "sleep", lambda seconds: None)


def test_a_problem_is_its_code_and_sentence(tmp_path, capsys):
    code = failure.report(Problem("R005", "no data here", outside=True), tmp_path, 0, None)
    assert (code, capsys.readouterr().err) == (3, "error[R005]: no data here\n")
    assert json.loads((tmp_path / "error-0.json").read_text()) == {
        "code": "R005",
        "message": "no data here",
        "rank": 0,
        "step": None,
        "echo": False,
        "exit_code": 3,
    }
    assert not list(tmp_path.glob("traceback*"))


def test_a_defect_keeps_its_traceback_and_shows_one_line(tmp_path, capsys):
    with pytest.raises(KeyError) as caught:
        {}["x"]
    assert failure.report(caught.value, tmp_path, 3, 7) == 1
    said = capsys.readouterr().err
    assert said == f"error[R099]: KeyError: 'x' (traceback in {tmp_path}/traceback-3.txt)\n"
    assert '{}["x"]' in (tmp_path / "traceback-3.txt").read_text()


def test_only_the_lowest_of_several_ranks_speaks(tmp_path, capsys):
    failure.report(Problem("R010", "bad"), tmp_path, 1, 4)
    failure.report(Problem("R010", "bad"), tmp_path, 2, 4)
    assert capsys.readouterr().err == "error[R010]: bad\n"


def test_an_echo_is_silent_when_the_cause_is_known_whatever_its_rank(tmp_path, capsys):
    failure.report(Problem("R013", "gradient norm is nan"), tmp_path, 5, 4)
    failure.report(LOST, tmp_path, 0, 4)
    failure.report(Problem("R017", "rank 0 gave no word", outside=True), tmp_path, 1, 4)
    assert capsys.readouterr().err == "error[R013]: gradient norm is nan\n"


def test_an_echo_speaks_when_nobody_else_does(tmp_path, capsys):
    assert failure.report(LOST, tmp_path, 1, 4) == 3
    assert failure.report(LOST, tmp_path, 2, 4) == 3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error[R057]: another rank of this group went away")
    assert "connection closed by peer" in said[0]


def test_those_that_say_nothing_are_named_as_the_ones_that_went_away(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    attempt = tmp_path / "critic"
    failure.report(Problem("R017", "rank 1 waits", outside=True), attempt, 2, 4)
    capsys.readouterr()
    failure.report(LOST, attempt, 1, 4)
    said = capsys.readouterr().err
    assert "rank 0 of this group went away while rank 1 worked with it" in said
    assert "last checkpoint" in said
    fact = json.loads((attempt / "error-1.json").read_text())
    assert (fact["code"], fact["exit_code"], fact["echo"]) == ("R057", 3, True)
    assert "Connection closed by peer" in (attempt / "traceback-1.txt").read_text()  # torch's own words


class EngineError(RuntimeError):
    """As the engine's own."""


class DistNetworkError(RuntimeError):
    """As torch's own."""


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (ValueError("R021: torn"), "R021", 1),
        (EngineError("gradient norm is nan at step 3"), "R013", 1),
        (OSError(errno.ENOSPC, "No space left on device", "/x/metrics.jsonl"), "R007", 3),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/x/metrics.jsonl"), "R006", 3),
        (DistNetworkError("timed out\nException raised from doIt (most recent call first)"), "R017", 3),
        (MemoryError("2 GiB"), "R018", 3),
        (ValueError("anything"), "R099", 1),
        (LOST, "R057", 3),
        (RuntimeError("NCCL error: remote process exited or there was a network error"), "R057", 3),
        (RuntimeError("NCCL error: invalid usage"), "R099", 1),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "R099", 1),
        (type("GenerateError", (ValueError,), {})("prompt 3 has 900 tokens"), "R025", 1),
        (type("SamplingError", (ValueError,), {})("max_tokens 0 is below 1"), "R025", 1),
    ],
)
def test_exceptions_of_other_modules_get_their_code(error, code, exit_code):
    found = failure.as_problem(error)
    assert (found.code, failure.exit_code(found)) == (code, exit_code)


def test_a_folder_that_cannot_be_written_does_not_hide_the_problem(tmp_path, capsys):
    (tmp_path / "attempt").write_text("")
    assert failure.report(Problem("R006", "cannot write"), tmp_path / "attempt", 0, None) == 1
    assert capsys.readouterr().err == "error[R006]: cannot write\n"
