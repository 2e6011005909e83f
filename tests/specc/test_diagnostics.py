"""How diagnostics look, and where they point."""

import pytest

from specc import source
from specc.diagnostics import Diagnostic, as_json, parent, render

TEXT = "name: toy\ntrain:\n  lr: 1e-5\nparallel: {tp: 8, pp: 3}\n"


def spec(text=TEXT):
    return source.parse(text, "specs/toy.yaml")[0]


def shown(path, text=TEXT, **more):
    return render([Diagnostic("P011", "error", "it does not fit", path, **more)], spec(text))


def test_a_diagnostic_shows_the_line_the_caret_and_the_way_out():
    assert shown("parallel", label="8 is not 24", help="use nodes: 3") == (
        "error[P011]: it does not fit\n"
        " --> specs/toy.yaml:4:11\n"
        "  |\n"
        "4 | parallel: {tp: 8, pp: 3}\n"
        "  |           ^^^^^^^^^^^^^^ 8 is not 24\n"
        "  |\n"
        "  = help: use nodes: 3\n"
    )


def test_a_value_of_several_lines_is_shown_by_its_key():
    assert "2 | train:\n  | ^^^^^\n" in shown("train")


def test_a_path_that_is_not_there_points_at_the_nearest_parent():
    assert "4 | parallel: {tp: 8, pp: 3}\n  |           ^^^^^^^^^^^^^^\n" in shown("parallel.cp")


def test_a_key_can_be_pointed_at():
    assert "  |            ^^\n" in shown("parallel.tp", of_key=True)


def test_the_margin_grows_with_the_line_number():
    text = "# line\n" * 99 + "name: toy\n"
    assert "   --> specs/toy.yaml:100:7\n    |\n100 | name: toy\n    |       ^^^\n" in shown("name", text)


def test_wide_characters_keep_the_caret_in_its_place():
    assert '1 | {日本: 1, b: "x"}\n  |              ^^^\n' in shown("b", '{日本: 1, b: "x"}\n')


def test_a_long_line_is_cut_around_the_caret():
    text = "a: " + "x" * 300 + "\n"
    longest = max(len(line) for line in shown("a", text).splitlines())
    assert longest < 125


def test_nothing_in_a_message_can_move_the_cursor():
    text = render([Diagnostic("T002", "error", "bad `\x1b[2Jvalue`\n", "name")], spec())
    assert "\x1b" not in text
    assert "bad `\\x1b[2Jvalue`" in text


def test_colour_only_adds_to_the_text():
    import re

    said = [Diagnostic("P011", "warning", "a: b", "train.lr", "here", "do that")]
    painted = render(said, spec(), color=True)
    assert "\x1b[" in painted
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == render(said, spec())


def test_several_diagnostics_have_an_empty_line_between():
    both = render(
        [Diagnostic("T001", "error", "a", "name"), Diagnostic("T002", "error", "b", "train")], spec()
    )
    assert both.count("\n\n") == 1
    assert not both.endswith("\n\n")


def test_no_diagnostics_are_no_text():
    assert render([], spec()) == ""


def test_json_has_the_keys_of_the_contract():
    (one,) = as_json([Diagnostic("P011", "error", "no", "parallel.tp", help="x")], spec())
    assert one == {
        "code": "P011",
        "severity": "error",
        "message": "no",
        "path": "parallel.tp",
        "file": "specs/toy.yaml",
        "line": 4,
        "column": 16,
        "end_line": 4,
        "end_column": 17,
        "help": "x",
    }


def test_the_parent_of_a_path():
    assert [parent(p) for p in ("a.b.c", "a.b[2]", "a[0].b", "a", "")] == ["a.b", "a.b", "a[0]", "", ""]


@pytest.mark.parametrize("path", ["a.b[0].c", "a.b['c']", "a.b[[0]]", "a.b]", "a[0]]", "]", "[", "..", "a."])
def test_the_way_up_from_a_path_ends(path):
    seen = [path]
    while seen[-1]:
        seen.append(parent(seen[-1]))
        assert len(seen[-1]) < len(seen[-2])
