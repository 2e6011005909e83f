"""Every mistake in `tests/diagnostics/CODE-SLUG/` is answered with exactly the text in its `expected.txt`.

A folder holds `spec.yaml`, what lies beside it, and perhaps `set.txt` (one --set a line). A new mistake is a
new folder; `pytest tests/test_mistakes.py --update` writes the expected text, and the reader judges it. The
names of all algorithms stand there as `{algorithms}`, so that a new one changes no text.
"""

from __future__ import annotations

import contextlib
import re
from functools import cache
from pathlib import Path

import pytest

from specc import algorithms, codes
from specc.compile import Compilation, compile_spec
from specc.diagnostics import as_json, render
from specc.spec.reading import listed

CASES = sorted(path.parent for path in (Path(__file__).parent / "diagnostics").glob("*/spec.yaml"))
ALL = listed(algorithms.names(), "or")
ROOT = str(Path(__file__).parent.parent)


@cache
def compiled(case: Path) -> Compilation:
    given = case / "set.txt"
    overrides = given.read_text(encoding="utf-8").splitlines() if given.exists() else []
    with contextlib.chdir(case):
        return compile_spec("spec.yaml", overrides)


def test_there_are_at_least_sixty_mistakes():
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_told_in_exactly_these_words(case, request):
    done = compiled(case)
    said = render(done.diagnostics, done.source).replace(ALL, "{algorithms}")
    expected = case / "expected.txt"
    if request.config.getoption("--update"):
        expected.write_text(said, encoding="utf-8")
    assert said == expected.read_text(encoding="utf-8")


def test_all_algorithms_are_named_where_none_is_given():
    done = compiled(Path(__file__).parent / "diagnostics" / "T005-no-algorithm")
    for name in ("sft", "ppo", "rejection", "above"):
        assert f"`{name}`" in render(done.diagnostics, done.source)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_shows_its_place_and_a_way_out_and_as_json_has_the_keys_of_the_contract(case):
    done = compiled(case)
    code = case.name.split("-")[0]
    assert code in [d.code for d in done.diagnostics]
    assert code in codes.CODES
    for diagnostic in done.diagnostics:
        text = render([diagnostic], done.source)
        assert re.search(r"--> \S+:\d+:\d+\n", text), text
        assert "^" in text
        assert "= help: " in text, text
        assert not re.search(r"pydantic|Traceback|[Ii]nput should", text)
        assert ROOT not in text
        head = text.splitlines()[0].split(": ", 1)[1]
        assert not re.match("[A-Z][a-z]", head), head
        assert not head.endswith("."), head
    keys = ["code", "severity", "message", "path", "file", "line", "column", "end_line", "end_column", "help"]
    for one in as_json(done.diagnostics, done.source):
        assert list(one) == keys
        assert one["line"] >= 1
        assert one["column"] >= 1
        assert (one["end_line"], one["end_column"]) >= (one["line"], one["column"])
