"""Stacked bars, one below the other, against a capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specc.pages.markup import Element, element, picture, text
from specc.pages.scale import Scale, linear, number, ticks

WIDTH, LEFT, RIGHT, BAR, PITCH, TOP = 960.0, 210.0, 90.0, 22.0, 34.0, 26.0


@dataclass(frozen=True)
class Bar:
    """Parts by name, in the order in which they are stacked. `limit` 0: none; between `sure` and `lost`,
    shares of it, lies the band in which it may or may not do.
    """

    name: str
    parts: Mapping[str, float]
    limit: float = 0.0
    sure: float = 1.0
    lost: float = 1.0
    note: str = ""

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def bars(items: Sequence[Bar], unit: str, colours: Mapping[str, str], label: str) -> Element:
    """The picture."""
    scale = linear(max(max(bar.total, bar.limit) for bar in items), LEFT, WIDTH - RIGHT)
    height = TOP + PITCH * len(items)
    grid = [_tick(scale, value, height, unit) for value in ticks(scale)]
    drawn = [_bar(bar, TOP + PITCH * i, scale, unit, colours) for i, bar in enumerate(items)]
    return picture(WIDTH, height + 4, label, grid, drawn)


def _tick(scale: Scale, value: float, height: float, unit: str) -> Element:
    x = scale.at(value)
    line = element("line", x1=x, x2=x, y1=TOP - 6, y2=height, class_="grid")
    return element(
        "g", line, text(x, TOP - 12, f"{number(value)} {unit}" if value else "0", "soft", "middle")
    )


def _bar(bar: Bar, y: float, scale: Scale, unit: str, colours: Mapping[str, str]) -> Element:
    drawn: list[Element] = [text(LEFT - 10, y + 16, bar.name, "", "end")]
    at = 0.0
    for name, value in bar.parts.items():
        if value <= 0:
            continue
        x, end = scale.at(at), scale.at(at + value)
        said = element("title", f"{bar.name}: {name} {value:.2f} {unit}")
        drawn.append(element("rect", said, x=x, y=y, width=max(end - x, 0.5), height=BAR, fill=colours[name]))
        if end - x > 34:
            drawn.append(text((x + end) / 2, y + 15, number(round(value, 1)), "inside", "middle"))
        at += value
    if bar.limit:
        left, right, edge = (scale.at(bar.limit * share) for share in (bar.sure, bar.lost, 1.0))
        drawn.append(
            element("rect", x=left, y=y - 4, width=max(right - left, 0), height=BAR + 8, class_="band")
        )
        drawn.append(element("line", x1=edge, x2=edge, y1=y - 4, y2=y + BAR + 4, class_="limit"))
    drawn.append(text(WIDTH - RIGHT + 8, y + 16, bar.note or f"{bar.total:.1f} {unit}", "soft"))
    return element("g", drawn)
