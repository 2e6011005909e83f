"""Stages as boxes from left to right, each after those it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specc.pages.markup import Element, element, picture, text

BOX, GAP_X, GAP_Y, LINE = 200.0, 46.0, 18.0, 17.0
PER_LINE = 27
"""Characters that fit into a box."""


@dataclass(frozen=True)
class Box:
    """A stage: its name, a few lines about it, and the names of those it comes after."""

    name: str
    lines: tuple[str, ...]
    after: tuple[str, ...] = ()


def flow(boxes: Sequence[Box]) -> Element:
    """The picture. A box stands one column right of the last of those it comes after."""
    columns: dict[str, int] = {}
    for box in boxes:
        columns[box.name] = 1 + max((columns.get(name, 0) for name in box.after), default=-1)
    height = 34 + LINE * max(len(box.lines) for box in boxes)
    places: dict[str, tuple[float, float]] = {}
    filled: dict[int, int] = {}
    for box in boxes:
        column = columns[box.name]
        row = filled[column] = filled.get(column, -1) + 1
        places[box.name] = (column * (BOX + GAP_X), row * (height + GAP_Y))
    width = max(x for x, _ in places.values()) + BOX
    deep = max(y for _, y in places.values()) + height
    arrows = [_arrow(places[name], places[box.name], height) for box in boxes for name in box.after]
    return picture(
        width, deep, "stages and their order", arrows, [_box(box, *places[box.name], height) for box in boxes]
    )


def _box(box: Box, x: float, y: float, height: float) -> Element:
    lines = [text(x + 12, y + 42 + LINE * i, cut(line), "soft") for i, line in enumerate(box.lines)]
    frame = element("rect", x=x, y=y, width=BOX, height=height, rx=8, class_="card")
    return element(
        "g", element("title", box.name), frame, text(x + 12, y + 22, cut(box.name), "strong"), lines
    )


def cut(line: str) -> str:
    """The line, shortened where it would leave its box."""
    return line if len(line) <= PER_LINE else line[: PER_LINE - 1] + "…"


def _arrow(start: tuple[float, float], end: tuple[float, float], height: float) -> Element:
    x1, y1, x2, y2 = start[0] + BOX, start[1] + height / 2, end[0], end[1] + height / 2
    middle = (x1 + x2) / 2
    curve = f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2 - 7:.1f} {y2:.1f}"
    head = f"M{x2 - 8:.1f} {y2 - 4:.1f}L{x2 - 1:.1f} {y2:.1f}L{x2 - 8:.1f} {y2 + 4:.1f}"
    return element("g", element("path", d=curve, class_="edge"), element("path", d=head, class_="edge"))
