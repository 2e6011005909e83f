"""Who does what when: a lane for each, blocks along one axis of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specc.pages.markup import Element, element, picture, text
from specc.pages.scale import Scale, linear, number, ticks

WIDTH, LEFT, RIGHT, BAR, PITCH, TOP = 960.0, 150.0, 20.0, 26.0, 40.0, 28.0


@dataclass(frozen=True)
class Block:
    """Something that `lane` does from `start` to `end`, in seconds."""

    lane: str
    name: str
    start: float
    end: float


def lanes(blocks: Sequence[Block], colours: Mapping[str, str], label: str) -> Element:
    """The picture; lanes in the order in which they first appear."""
    names = list(dict.fromkeys(block.lane for block in blocks))
    scale = linear(max(block.end for block in blocks), LEFT, WIDTH - RIGHT)
    height = TOP + PITCH * len(names)
    grid = [_tick(scale, value, height) for value in ticks(scale)]
    heads = [text(LEFT - 10, TOP + PITCH * i + 17, name, "", "end") for i, name in enumerate(names)]
    drawn = [_block(block, TOP + PITCH * names.index(block.lane), scale, colours) for block in blocks]
    return picture(WIDTH, height + 4, label, grid, heads, drawn)


def _tick(scale: Scale, value: float, height: float) -> Element:
    x = scale.at(value)
    line = element("line", x1=x, x2=x, y1=TOP - 6, y2=height, class_="grid")
    return element("g", line, text(x, TOP - 12, f"{number(value)} s" if value else "0", "soft", "middle"))


def _block(block: Block, y: float, scale: Scale, colours: Mapping[str, str]) -> Element:
    x, end = scale.at(block.start), scale.at(block.end)
    said = element("title", f"{block.lane}: {block.name}, {block.end - block.start:.1f} s")
    width = max(end - x, 1.0)
    drawn = [element("rect", said, x=x, y=y, width=width, height=BAR, rx=3, fill=colours[block.name])]
    if width > 7.5 * len(block.name):
        drawn.append(text(x + width / 2, y + 17, block.name, "inside", "middle"))
    return element("g", drawn)
