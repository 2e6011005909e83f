"""Curves of one number over the steps, one per run, with what is noisy drawn faintly behind its average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from specc.pages.markup import Element, element, picture, text
from specc.pages.scale import Scale, number, rounded_up

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460.0, 220.0, 58.0, 14.0, 28.0, 30.0
MOST_POINTS = 300
SMOOTH_FROM, SMOOTHING = 40, 0.9
"""From so many points on, an average is drawn: each point's weight is 0.9 of the next one's."""


@dataclass(frozen=True)
class Curve:
    """Points (step, value) of one run, by step. What is not finite is left out of the picture."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: str


def lines(title: str, curves: Sequence[Curve]) -> Element | None:
    """The picture, or None when no point can be drawn."""
    kept = [(curve, [p for p in curve.points if math.isfinite(p[1])]) for curve in curves]
    kept = [(curve, points) for curve, points in kept if points]
    if not kept:
        return None
    values = [value for _, points in kept for _, value in points]
    steps = [step for _, points in kept for step, _ in points]
    across = Scale(min(steps), max(steps) if max(steps) > min(steps) else min(steps) + 1, LEFT, WIDTH - RIGHT)
    low, high, gap = rounded_range(min(values), max(values))
    up = Scale(low, high, HEIGHT - BOTTOM, TOP)
    drawn = [part for curve, points in kept for part in _curve(curve, points, across, up)]
    return picture(
        WIDTH,
        HEIGHT,
        f"{title} over the steps",
        text(LEFT, 14, title, "strong"),
        _grid(across, up, gap),
        drawn,
    )


def rounded_range(low: float, high: float) -> tuple[float, float, float]:
    """Round numbers around a range, and the gap between two marks: about four of them."""
    span = high - low or abs(high) or 1.0
    gap = rounded_up(span / 4)
    return math.floor(low / gap + 1e-9) * gap, math.ceil(high / gap - 1e-9) * gap + (high == low) * gap, gap


def _grid(across: Scale, up: Scale, gap: float) -> list[Element]:
    drawn = []
    for i in range(round((up.high - up.low) / gap) + 1):
        value = up.low + i * gap
        y = up.at(value)
        drawn.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        drawn.append(text(LEFT - 6, y + 4, number(round(value, 12)), "soft", "end"))
    for step, anchor in ((across.low, "start"), (across.high, "end")):
        drawn.append(text(across.at(step), HEIGHT - 8, f"step {number(step)}", "soft", anchor))
    return drawn


def _curve(curve: Curve, points: list[tuple[float, float]], across: Scale, up: Scale) -> list[Element]:
    if len(points) == 1:
        return [element("circle", cx=across.at(points[0][0]), cy=up.at(points[0][1]), r=3, fill=curve.colour)]
    noisy = len(points) >= SMOOTH_FROM
    drawn = [_way(thinned(points), across, up, curve.colour, 0.3 if noisy else 1.0, curve.name)]
    if noisy:
        drawn.append(_way(thinned(smoothed(points)), across, up, curve.colour, 1.0, curve.name))
    return drawn


def _way(
    points: list[tuple[float, float]], across: Scale, up: Scale, colour: str, opacity: float, name: str
) -> Element:
    way = " ".join(f"{across.at(step):.1f},{up.at(value):.1f}" for step, value in points)
    last = element("title", f"{name}: {points[-1][1]:.4g} at step {points[-1][0]:g}")
    style = {"stroke": colour, "stroke_width": 1.6, "opacity": f"{opacity:g}"}
    return element("polyline", last, points=way, fill="none", stroke_linejoin="round", **style)


def smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The average of all points so far, earlier ones weighing less, without a bias at the beginning."""
    total = weight = 0.0
    found = []
    for step, value in points:
        total, weight = SMOOTHING * total + value, SMOOTHING * weight + 1.0
        found.append((step, total / weight))
    return found


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS or so: of each stretch its lowest and highest point, so that no spike is lost."""
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(2 * (len(points) - 2) / (MOST_POINTS - 2))
    found = [points[0]]
    for start in range(1, len(points) - 1, size):
        stretch = points[start : min(start + size, len(points) - 1)]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        found += sorted(ends)
    return [*found, points[-1]]
