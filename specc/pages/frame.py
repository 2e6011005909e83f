"""The page around its sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specc.pages.markup import Element, element

NOTHING = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What the browser may load: the style in the page, and nothing from anywhere."""

COLOURS = (
    *("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7"),
    *("#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"),
)
"""Ten colours that stay apart on white and on dark grey, also for most colour-blind readers."""

STYLE = """
:root{--ink:#1b1e23;--soft:#667085;--line:#d5d9e0;--paper:#fff;--card:#f7f8fa;--warn:#c4320a}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ec;--soft:#98a2b3;--line:#3a4150;--paper:#14171c;
--card:#1c2027;--warn:#ff9c66}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1000px;padding:32px 20px 64px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:26px;margin:0 0 4px}h2{font-size:18px;margin:40px 0 4px}p{margin:4px 0 12px}
.about,.note{color:var(--soft)}svg{display:block;width:100%;height:auto;margin:12px 0;overflow:visible}
svg text{fill:var(--ink);font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
svg .soft{fill:var(--soft);font-size:12px}svg .strong{font-weight:600}svg .inside{fill:#14171c;font-size:11px}
svg .grid{stroke:var(--line);stroke-width:1}svg .edge{stroke:var(--soft);stroke-width:1.5;fill:none}
svg .card{fill:var(--card);stroke:var(--line)}svg .limit{stroke:var(--warn);stroke-width:1.5}
svg .band{fill:var(--warn);opacity:.13}svg .warn{fill:var(--warn);font-size:12px}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 16px;min-width:130px}
.tile b{display:block;font-size:20px}.tile span{color:var(--soft);font-size:13px}
.key{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--soft)}
.key i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:5px}
.pair{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(440px,100%),1fr));gap:8px 24px}
.samples td{white-space:pre-wrap;vertical-align:top;min-width:60px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;margin:8px 0;width:100%}
th{text-align:left;color:var(--soft);font-weight:500}th,td{padding:5px 12px 5px 0;
border-bottom:1px solid var(--line);white-space:nowrap}td:last-child{white-space:normal}
"""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence about what is seen, and what is seen."""

    title: str
    about: str
    content: Sequence[Element]


def page(title: str, about: str, top: Sequence[Element], sections: Sequence[Section]) -> str:
    """The whole file."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width,initial-scale=1"),
        Element("meta", (("http-equiv", "Content-Security-Policy"), ("content", NOTHING)), ()),
        element("title", title),
        _style(),
    )
    blocks: list[Element] = []
    for section in sections:
        blocks += [element("h2", section.title), element("p", section.about, class_="about")]
        blocks += section.content
    body = element("body", element("h1", title), element("p", about, class_="about"), top, blocks)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _style() -> Element:
    """The one text that is not escaped: ours, without `<`."""
    return Element("style", (), (_Raw("style", (), (STYLE,)),))


class _Raw(Element):
    def __str__(self) -> str:
        return "".join(str(text) for text in self.content)


def tiles(values: Sequence[tuple[str, str]]) -> Element:
    """Large numbers with what they are below."""
    made = [
        element("div", element("b", value), element("span", what), class_="tile") for value, what in values
    ]
    return element("div", made, class_="tiles")


def key(names: Sequence[str], colours: dict[str, str]) -> Element:
    """Which colour is what."""
    entries = [element("span", element("i", style=f"background:{colours[name]}"), name) for name in names]
    return element("div", entries, class_="key")


def coloured(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, in order; they begin again after the tenth."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(names))}
