"""What the compiler has to say about a spec, and the one function that prints it.

A diagnostic is data: a code, a sentence, the path of a value (`train.lr`, as the user wrote it) and a
way out. Only source and type checks know spans; every later stage names a path, and the renderer finds
the text: the value itself, its key when the value fills several lines, or the nearest parent.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Severity = Literal["error", "warning", "note"]

WIDTH = 110
"""Columns of source text that are shown; a longer line is cut around the caret."""

_COLORS = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "note": "\x1b[1;36m"}
_BOLD, _BLUE, _PLAIN = "\x1b[1m", "\x1b[1;34m", "\x1b[0m"


@dataclass(frozen=True)
class Origin:
    """A text other than the spec that a span may lie in: a `--set` argument, a cluster profile."""

    name: str
    text: str


@dataclass(frozen=True)
class Span:
    """A stretch of text: lines and columns count characters from 1, the end is not part of it."""

    line: int
    column: int
    end_line: int
    end_column: int
    origin: Origin | None = None  # None: the spec itself


class Source(Protocol):
    """What is asked of a spec's text here; `specc.source` makes them."""

    @property
    def name(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def spans(self) -> Mapping[str, tuple[Span, Span]]: ...


@dataclass(frozen=True)
class Diagnostic:
    """One thing to say about a spec."""

    code: str  # a letter and three digits, explained in specc.codes
    severity: Severity
    message: str  # one sentence, lower case, no full stop
    path: str = ""  # of the value it is about; empty for the whole spec
    label: str = ""  # a few words beside the caret
    help: str = ""  # what to change
    span: Span | None = None  # known to source and type checks; else found from the path
    of_key: bool = False  # it is about the key at `path`, not about its value


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Whether any of them is an error."""
    return any(d.severity == "error" for d in diagnostics)


def render(diagnostics: Iterable[Diagnostic], source: Source | None = None, color: bool = False) -> str:
    """All diagnostics as text for a person; empty for none, else it ends in a newline."""
    texts = [_rendered(d, source) for d in diagnostics]
    lines = [line for text in texts for line in (*text, ("", ""))]
    if color:
        return "".join(f"{_painted(kind, line)}\n" for kind, line in lines[:-1])
    return "".join(f"{line}\n" for _, line in lines[:-1])


def as_json(diagnostics: Iterable[Diagnostic], source: Source | None = None) -> list[dict[str, Any]]:
    """The diagnostics as plain data; line and column are null when the place is not known."""
    return [_as_dict(d, source) for d in diagnostics]


def _as_dict(diagnostic: Diagnostic, source: Source | None) -> dict[str, Any]:
    span = span_of(diagnostic, source)
    origin = span.origin if span else None
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": printable(diagnostic.message),
        "path": diagnostic.path,
        "file": origin.name if origin else (source.name if source else ""),
        "line": span.line if span else None,
        "column": span.column if span else None,
        "end_line": span.end_line if span else None,
        "end_column": span.end_column if span else None,
        "help": printable(diagnostic.help),
    }


def span_of(diagnostic: Diagnostic, source: Source | None) -> Span | None:
    """Where the diagnostic points: its own span, else the text at its path or at the nearest parent."""
    if diagnostic.span is not None or source is None:
        return diagnostic.span
    path = diagnostic.path
    while path:
        if path in source.spans:
            key, value = source.spans[path]
            about_key = diagnostic.of_key and path == diagnostic.path
            return value if key.line == value.line == value.end_line and not about_key else key
        path = parent(path)
    first = next((known for known in ("algorithm", "stages", "name") if known in source.spans), None)
    return source.spans[first][0] if diagnostic.path and first else None


def parent(path: str) -> str:
    """The path of the section or list that holds `path`; empty at the top, and of what is no path."""
    shorter = re.sub(r"(\.|^)[^.\[\]]*$|\[[^\[\]]*\]$", "", path)
    return shorter if len(shorter) < len(path) else ""


# --- as text -----------------------------------------------------------------------------------------


def _rendered(diagnostic: Diagnostic, source: Source | None) -> list[tuple[str, str]]:
    """Lines, each with the kind that decides its colour."""
    message = printable(diagnostic.message)
    head = (diagnostic.severity, f"{diagnostic.severity}[{diagnostic.code}]: {message}")
    span = span_of(diagnostic, source)
    name = span.origin.name if span and span.origin else (source.name if source else "")
    if span is None:
        place = [("frame", f" --> {printable(name)}")] if name else []
        return [head, *place, *_notes(diagnostic, "")]
    text = span.origin.text if span.origin else (source.text if source else "")
    lines = text.splitlines()
    line = lines[span.line - 1] if span.line <= len(lines) else ""
    margin = " " * len(str(span.line))
    shown, start, width = _excerpt(line, span)
    label = printable(diagnostic.label)
    return [
        head,
        ("frame", f"{margin}--> {printable(name)}:{span.line}:{span.column}"),
        ("frame", f"{margin} |"),
        ("source", f"{span.line} | {shown}".rstrip()),
        (f"caret {diagnostic.severity}", f"{margin} | {' ' * start}{'^' * width} {label}".rstrip()),
        *([("frame", f"{margin} |")] if diagnostic.help else []),
        *_notes(diagnostic, margin),
    ]


def _notes(diagnostic: Diagnostic, margin: str) -> list[tuple[str, str]]:
    return [("help", f"{margin} = help: {printable(diagnostic.help)}")] if diagnostic.help else []


def _excerpt(line: str, span: Span) -> tuple[str, int, int]:
    """The line as shown, where its carets begin, and how many there are (at least one)."""
    first = min(span.column - 1, len(line))
    last = min(span.end_column - 1, len(line)) if span.end_line == span.line else len(line.rstrip())
    cut = 0
    if len(line) > WIDTH:
        cut = max(0, min(first - WIDTH // 3, len(line) - WIDTH))
        last = min(last, cut + WIDTH)
    before, marked = _flat(line[cut:first]), _flat(line[first:last])
    lead = "…" if cut else ""
    tail = "…" if len(line) > cut + WIDTH else ""
    shown = lead + _flat(line[cut : cut + WIDTH]) + tail
    return shown, _columns(lead + before), max(1, _columns(marked))


def _flat(text: str) -> str:
    """Text that a terminal shows in one line: tabs as four spaces, other control characters as `?`."""
    return "".join(c if c.isprintable() else "?" for c in text.replace("\t", "    "))


def _columns(text: str) -> int:
    """How many columns a terminal gives the text."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def printable(text: str) -> str:
    """The text without characters that could move a terminal's cursor or end the line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _painted(kind: str, line: str) -> str:
    if kind in _COLORS:
        name, _, rest = line.partition(": ")
        return f"{_COLORS[kind]}{name}{_PLAIN}{_BOLD}: {rest}{_PLAIN}"
    if kind in ("frame", "help"):
        sign, _, rest = line.partition(" = help:")
        return (
            f"{_BLUE}{line}{_PLAIN}"
            if kind == "frame"
            else f"{sign}{_BLUE} = {_PLAIN}{_BOLD}help:{_PLAIN}{rest}"
        )
    if kind == "source":
        number, bar, rest = line.partition(" |")
        return f"{_BLUE}{number}{bar}{_PLAIN}{rest}"
    if kind.startswith("caret "):
        margin, bar, rest = line.partition(" |")
        return f"{_BLUE}{margin}{bar}{_PLAIN}{_COLORS[kind.removeprefix('caret ')]}{rest}{_PLAIN}"
    return line
