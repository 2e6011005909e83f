"""Elements, axes and pictures: what holds for any numbers and names."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from specc.pages.bars import Bar, bars
from specc.pages.flow import Box, flow
from specc.pages.frame import Section, coloured, page
from specc.pages.lanes import Block, lanes
from specc.pages.markup import Element, element
from specc.pages.scale import Scale, linear, rounded_up, spanning, ticks
from specc.pages.scatter import Point, scatter

printable = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc", "Cn"]), max_size=12)
positive = st.floats(1e-3, 1e7)


class Texts(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(printable, printable)
def test_no_text_and_no_attribute_breaks_out(said: str, attribute: str) -> None:
    tree = ElementTree.fromstring(str(element("p", said, title=attribute)))
    assert (tree.text or "", tree.get("title"), len(tree)) == (said, attribute, 0)


def test_a_hostile_name_is_text_in_the_page() -> None:
    name = "</title><script>alert(1)</script>"
    source = page(name, name, [], [Section(name, name, [element("p", name)])])
    found = Texts(source)
    assert "script" not in found.tags
    assert found.texts.count(name) == 6


@given(positive)
def test_an_axis_from_nought_holds_its_highest_value_and_ends_on_a_round_number(highest: float) -> None:
    scale = linear(highest, 0, 100)
    assert scale.high >= highest
    assert scale.high <= 2.5 * highest
    marks = ticks(scale)
    assert 3 <= len(marks) <= 11
    assert all(mark <= scale.high * (1 + 1e-9) for mark in marks)


@given(st.lists(positive, min_size=1, max_size=6))
def test_a_logarithmic_axis_keeps_the_order_and_stays_inside(values: list[float]) -> None:
    scale = spanning(values, 0, 100)
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)
    assert math.isclose(scale.at(scale.low), 0, abs_tol=1e-9)


def test_round_numbers() -> None:
    assert [rounded_up(x) for x in (0, 1, 1.1, 3, 79.1, 0.03)] == [1, 1, 2, 5, 100, 0.05]
    assert ticks(Scale(0, 100, 0, 1)) == [0, 20, 40, 60, 80, 100]


def numbers(drawn: Element, tag: str, attribute: str) -> list[float]:
    return [float(e.get(attribute, "0")) for e in ElementTree.fromstring(str(drawn)).iter(tag)]


@given(st.lists(st.lists(st.floats(0, 100), min_size=1, max_size=4), min_size=1, max_size=4), positive)
def test_bars_are_as_long_as_their_numbers(values: list[list[float]], limit: float) -> None:
    items = [Bar(f"b{i}", {f"p{j}": v for j, v in enumerate(row)}, limit) for i, row in enumerate(values)]
    colours = coloured([name for bar in items for name in bar.parts])
    drawn = bars(items, "GiB", colours, "x")
    widths = numbers(drawn, "rect", "width")
    assert len(widths) == sum(v > 0 for row in values for v in row) + len(items)  # and a band each
    highest = max(limit, *(sum(row) for row in values))
    unit = (960 - 90 - 210) / linear(highest, 0, 1).high
    shown = [v * unit for row in values for v in row if v > 0]
    bands = len(items)
    assert sum(widths) <= sum(max(v, 0.5) for v in shown) + 0.1 * len(widths) + bands * limit * unit


def test_stages_stand_right_of_what_they_come_after() -> None:
    boxes = [Box("a", ("x",)), Box("b", (), ("a",)), Box("c", (), ("a",)), Box("d", (), ("b", "c"))]
    drawn = flow(boxes)
    assert numbers(drawn, "rect", "x") == [0, 246, 246, 492]
    ys = numbers(drawn, "rect", "y")
    assert ys[1] != ys[2]
    assert len(numbers(drawn, "path", "x")) == 8  # four arrows, each a curve and a head


def test_a_long_name_is_cut_and_told_in_full() -> None:
    drawn = str(flow([Box("s", ("a" * 60,))]))
    assert "a" * 26 + "…" in drawn
    assert "a" * 28 not in drawn


def test_the_choice_that_is_taken_stands_out() -> None:
    points = [Point("2 nodes", 2, 100, 1), Point("4 nodes", 4, 60, 1, taken=True)]
    drawn = str(scatter(points, "nodes", "time", "x", lambda s: f"{s} s"))
    assert drawn.count("#ff725c") == 1
    assert "50 s" not in drawn  # below the lowest point's room
    assert "60 s" in drawn


def test_lanes_keep_the_order_in_which_they_come() -> None:
    blocks = [
        Block("actor", "generate", 0, 60),
        Block("critic", "score", 10, 62),
        Block("actor", "train", 62, 90),
    ]
    drawn = lanes(blocks, coloured(["generate", "score", "train"]), "x")
    ys = numbers(drawn, "rect", "y")
    assert ys[0] == ys[2] < ys[1]
    xs, widths = numbers(drawn, "rect", "x"), numbers(drawn, "rect", "width")
    assert xs[0] < xs[1] < xs[2]
    assert abs(widths[0] / widths[2] - 60 / 28) < 0.02
