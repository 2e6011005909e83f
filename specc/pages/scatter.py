"""Choices as points: a number and a time on logarithmic axes, a third as the size, one of them taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from specc.pages.markup import Element, element, picture, text
from specc.pages.scale import Scale, moments, number, spanning, ticks

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 960.0, 360.0, 80.0, 46.0, 16.0, 150.0
SMALL, LARGE = 5.0, 15.0


@dataclass(frozen=True)
class Point:
    """A choice; `x` and `y` (seconds) are positive, `weight` is what its area shows."""

    name: str
    x: float
    y: float
    weight: float
    about: str = ""
    taken: bool = False


def scatter(
    points: Sequence[Point], x_label: str, y_label: str, label: str, y_said: Callable[[float], str]
) -> Element:
    """The picture, with a line through the points from left to right."""
    across = spanning([p.x for p in points], LEFT, WIDTH - RIGHT)
    up = spanning([p.y for p in points], HEIGHT - BOTTOM, TOP)
    ordered = sorted(points, key=lambda p: (p.x, p.y))
    heaviest = max(p.weight for p in points) or 1.0
    way = " ".join(f"{across.at(p.x):.1f},{up.at(p.y):.1f}" for p in ordered)
    return picture(
        WIDTH,
        HEIGHT,
        label,
        _grid(across, up, y_said),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "soft", "middle"),
        text(LEFT - 66, TOP - 2, y_label, "soft"),
        element("polyline", points=way, class_="grid", fill="none"),
        [_point(p, across, up, heaviest) for p in ordered],
    )


def _grid(across: Scale, up: Scale, y_said: Callable[[float], str]) -> list[Element]:
    drawn = []
    for value in ticks(across):
        x = across.at(value)
        drawn.append(element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"))
        drawn.append(text(x, HEIGHT - BOTTOM + 18, number(value), "soft", "middle"))
    for value in moments(up):
        y = up.at(value)
        drawn.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        drawn.append(text(LEFT - 8, y + 4, y_said(value), "soft", "end"))
    return drawn


def _point(point: Point, across: Scale, up: Scale, heaviest: float) -> Element:
    radius = SMALL + (LARGE - SMALL) * math.sqrt(point.weight / heaviest)
    x, y = across.at(point.x), up.at(point.y)
    colour = "#ff725c" if point.taken else "#4269d0"
    circle = element("circle", cx=x, cy=y, r=radius, fill=colour, opacity=0.85)
    said = element("title", f"{point.name}: {point.about}" if point.about else point.name)
    return element(
        "g", said, circle, text(x + radius + 4, y + 4, point.name, "strong" if point.taken else "soft")
    )
