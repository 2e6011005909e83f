"""Elements of HTML and SVG as values. Text is escaped when it is written, so no name can break out."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass

VOID = frozenset({"meta", "br", "line", "rect", "circle", "path", "polyline", "polygon"})
"""Elements that are written without content when they have none."""


@dataclass(frozen=True)
class Element:
    """A tag with attributes and content."""

    tag: str
    attributes: tuple[tuple[str, str], ...]
    content: tuple[Element | str, ...]

    def __str__(self) -> str:
        said = "".join(f' {name}="{html.escape(value)}"' for name, value in self.attributes)
        if not self.content and self.tag in VOID:
            return f"<{self.tag}{said}/>"
        inner = "".join(str(c) if isinstance(c, Element) else html.escape(c) for c in self.content)
        return f"<{self.tag}{said}>{inner}</{self.tag}>"


Content = Element | str | Iterable["Element | str"]


def element(tag: str, *content: Content, **attributes: str | float) -> Element:
    """`element("text", "weights", x=3, class_="name")`; a trailing `_` is dropped, inner ones become `-`."""
    flat: list[Element | str] = []
    for one in content:
        flat += [one] if isinstance(one, (Element, str)) else one
    named = tuple((name.rstrip("_").replace("_", "-"), _value(value)) for name, value in attributes.items())
    return Element(tag, named, tuple(flat))


def _value(value: str | float) -> str:
    """Numbers as short as a tenth of a pixel needs them."""
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, said: str, class_: str = "", anchor: str = "start") -> Element:
    """A line of SVG text."""
    return element("text", said, x=x, y=y, class_=class_, text_anchor=anchor)


def picture(width: float, height: float, label: str, *content: Content) -> Element:
    """An SVG that grows with the page; `label` is what a screen reader says."""
    box = f"0 0 {_value(width)} {_value(height)}"
    return element("svg", *content, viewBox=box, role="img", aria_label=label, style=f"max-width:{width:g}px")


def rows(heads: Iterable[str], lines: Iterable[Iterable[str | Element]]) -> Element:
    """An HTML table."""
    top = element("tr", [element("th", head) for head in heads])
    return element("table", element("thead", top), element("tbody", [_row(line) for line in lines]))


def _row(line: Iterable[str | Element]) -> Element:
    return element("tr", [element("td", cell) for cell in line])
