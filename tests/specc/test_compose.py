"""YAML 1.2 scalars, spans, and bounds."""

import time

import pytest

from specc import compose
from specc.compose import Composer, Node, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("null", None), ("~", None), ("", None), ("true", True), ("FALSE", False)],
        *[("12", 12), ("-3", -3), ("+3", 3), ("017", 17), ("0o17", 15), ("0xff", 255)],
        *[("1e-6", 1e-6), (".5", 0.5), ("1.", 1.0), ("-1.5E3", -1500.0), (".inf", float("inf"))],
        *[("4:00:00", "4:00:00"), ("on", "on"), ("no", "no"), ("yes", "yes"), ("1_000", "1_000")],
        *[("2023-04-12", "2023-04-12"), ("0b11", "0b11"), ("12a", "12a"), ("1e", "1e"), ("nan", "nan")],
    ],
)
def test_a_plain_scalar_is_read_by_the_core_schema(text, value):
    read = scalar(text)
    assert (read, type(read)) == (value, type(value))


def test_not_a_number_is_one():
    assert scalar(".nan") != scalar(".nan")


def test_quotes_make_text_of_anything():
    node = Composer("a: '1'\nb: \"true\"\nc: |\n  2\n").document()
    assert [item.value for _, _, item in node.pairs] == ["1", "true", "2\n"]


TEXTS = [
    "a: 1\nb:\n  - x\n  - {c: 2, d: [1, 2]}\ne: |\n  text\n  more\nf: 'quoted'\n",
    "# comment\n\na:\n    b: {c: d}\n    e:\n\nf: >-\n  folded\n  text\ng: last",
    "top: &x {a: 1}\nother: {<<: *x, b: 2}\nagain: *x\n",
    "ключ: знач\n日本: [語, 🙂]\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_both_parsers_of_yaml_give_the_same_tree(text):
    assert Composer(text).document() == Composer(text, compose._PythonParser).document()


@pytest.mark.parametrize(
    "text", ["a: [1\nb: 2\n", "a: b: c\n", "a: 'x\n", "a: @b\n", "- a\nb\n", "a:\n\tb: 1\n"]
)
def test_both_parsers_of_yaml_give_the_same_mistake(text):
    ours, pythons = Composer(text), Composer(text, compose._PythonParser)
    ours.document()
    pythons.document()
    assert ours.diagnostics == pythons.diagnostics != []


def span_of(node: Node) -> tuple[int, int, int, int]:
    return node.span.line, node.span.column, node.span.end_line, node.span.end_column


def test_a_span_counts_characters_from_one():
    node = Composer("größe: 12\nb:\n  c: [1, 2]\n  d: x\n").document()
    (_, key, value), (_, _, section) = node.pairs
    assert (key.line, key.column, key.end_column) == (1, 1, 6)
    assert span_of(value) == (1, 8, 1, 10)
    assert span_of(section) == (3, 3, 4, 7)  # to its last value, not to where the next line begins


def test_a_billion_laughs_are_refused_in_milliseconds():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, after in zip("abcdefghijklmnopqrstuvwx", "bcdefghijklmnopqrstuvwxy", strict=True):
        lines.append(f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]")
    began = time.perf_counter()
    composer = Composer("\n".join(lines))
    composer.document()
    assert [d.code for d in composer.diagnostics] == ["S005"]
    assert time.perf_counter() - began < 0.2


@pytest.mark.parametrize("text", ["a: " + "[" * 900_000, "a: " + "{a: " * 200_000, "- " * 300_000])
def test_a_deep_text_is_refused_before_it_is_read(text):
    began = time.perf_counter()
    composer = Composer(text)
    composer.document()
    assert composer.diagnostics[0].code in ("S005", "S002")
    assert time.perf_counter() - began < 1


def test_a_merge_brings_in_what_is_not_there():
    composer = Composer("x: &x {a: 1, b: 2}\ny: &y {c: 3}\nz: {<<: [*x, *y], b: 9}\n")
    node = composer.document()
    assert not composer.diagnostics
    assert {key: item.value for key, _, item in node.pairs[2][2].pairs} == {"b": 9, "a": 1, "c": 3}


def test_all_mistakes_of_the_tree_are_told():
    composer = Composer("a: 1\na: 2\n3: x\nb: !!set {}\nc: 1e999\n")
    composer.document()
    assert [d.code for d in composer.diagnostics] == ["S003", "S007", "S008", "S011"]
