"""YAML text -> plain values, and the span of every key and value.

Scalars follow the core schema of YAML 1.2 (`1e-6` is a number, `4:00:00` and `on` are text), since that
is what people expect and PyYAML's 1.1 is not. Duplicate keys are refused. Size, depth and the expansion of
aliases are bounded before anything is built, so a hostile file costs milliseconds. Mistakes come as
diagnostics, all of them at once; only a file that cannot be opened raises OSError.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from specc.compose import Composer, Node, scalar
from specc.diagnostics import Diagnostic, Origin, Span

MAX_BYTES = 1 << 20

Spans = dict[str, tuple[Span, Span]]


@dataclass(frozen=True)
class Source:
    """A spec's text and what it says. `spans` holds for each path the spans of its key and its value."""

    name: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)
    spans: Spans = field(default_factory=dict)
    overrides: tuple[str, ...] = ()  # --set, as given


def read(path: str | Path) -> tuple[Source, list[Diagnostic]]:
    """The spec in a file. Raises OSError when it cannot be opened."""
    with Path(path).open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    name = str(path)
    if len(raw) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES >> 20} MiB"
        help = "a spec is a page of text; put data into a file of its own and name its path"
        return Source(name, ""), [Diagnostic("S005", "error", message, help=help, span=Span(1, 1, 1, 2))]
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _undecodable(name, raw, error)
    return parse(text, name)


def _undecodable(name: str, raw: bytes, error: UnicodeDecodeError) -> tuple[Source, list[Diagnostic]]:
    text = raw.decode("utf-8", errors="replace")
    before = raw[: error.start].decode("utf-8")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    message = f"byte {error.start + 1} of the file is 0x{raw[error.start]:02x}, which is not UTF-8"
    utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    help = f"save the file as UTF-8{', not UTF-16' if utf16 else ''}"
    span = Span(line, column, line, column + 1)
    return Source(name, text), [Diagnostic("S001", "error", message, label="here", help=help, span=span)]


def parse(text: str, name: str) -> tuple[Source, list[Diagnostic]]:
    """The spec in a text; `name` is what diagnostics call it."""
    text = text.removeprefix("\ufeff")
    composer = Composer(text)
    root = composer.document()
    spans: Spans = {}
    data: Any = {}
    if root is not None and not composer.diagnostics:
        data = _value(root, "", spans)
    return Source(name, text, data if isinstance(data, dict) else {}, spans), composer.diagnostics


def elsewhere(source: Source, said: Sequence[Diagnostic], name: str) -> tuple[Source, list[Diagnostic]]:
    """A text that is not the spec, and what was said of it, renamed: its spans say where they lie."""
    origin = Origin(name, source.text)

    def moved(span: Span) -> Span:
        return replace(span, origin=origin)

    spans = {path: (moved(key), moved(value)) for path, (key, value) in source.spans.items()}
    located = [replace(d, span=moved(d.span or Span(1, 1, 1, 2))) for d in said]
    return replace(source, name=name, spans=spans), located


def _value(node: Node, path: str, spans: Spans, key: Span | None = None) -> Any:
    """The plain value of a node; notes its span and those below."""
    spans[path] = (key or node.span, node.span)
    if node.kind == "scalar":
        return node.value
    if node.kind == "list":
        return [_value(item, f"{path}[{i}]", spans) for i, item in enumerate(node.items)]
    return {name: _value(item, join(path, name), spans, where) for name, where, item in node.pairs}


def join(path: str, key: str) -> str:
    """The path of `key` in the section at `path`."""
    return f"{path}.{key}" if path else key


# --- --set -------------------------------------------------------------------------------------------

_SEGMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*|[A-Za-z0-9][A-Za-z0-9_-]*)((?:\[\d{1,4}\])*)")
_PREFIX = "--set "


def with_overrides(source: Source, overrides: Sequence[str]) -> tuple[Source, list[Diagnostic]]:
    """The source with each `a.b=value` put in its place; the value is YAML, as in the file."""
    data, spans = copy.deepcopy(source.data), dict(source.spans)
    said: list[Diagnostic] = []
    for text in overrides:
        said += _Override(text).apply(data, spans)
    return replace(source, data=data, spans=spans, overrides=(*source.overrides, *overrides)), said


class _Override:
    """One `--set`: its path in segments, and its value."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.origin = Origin("--set", _PREFIX + text)
        self.path, self.equals, self.value = text.partition("=")

    def apply(self, data: dict[str, Any], spans: Spans) -> list[Diagnostic]:
        if not self.equals:
            return [
                self._wrong(
                    "it has no `=`", 0, len(self.text), "write --set path=value, e.g. --set train.lr=1e-5"
                )
            ]
        segments = list(self._segments())
        if not segments or segments[-1][2] != len(self.path):
            return [
                self._wrong(
                    f"`{self.path}` is not a path", 0, len(self.path), "write keys with dots between them"
                )
            ]
        node, said = self._node()
        if node is None:
            return said
        return self._put(data, spans, segments, node)

    def _segments(self) -> Iterator[tuple[str, int, int]]:
        """Keys and list positions (as `[2]`) with where they begin and end in the text."""
        at = 0
        while at < len(self.path):
            match = _SEGMENT.match(self.path, at)
            if match is None:
                return
            yield match[1], match.start(1), match.end(1)
            for index in re.finditer(r"\[\d+\]", match[2]):
                start = match.start(2) + index.start()
                yield index[0], start, start + len(index[0])
            at = match.end()
            if at < len(self.path):
                if self.path[at] != "." or at + 1 == len(self.path):
                    return
                at += 1

    def _node(self) -> tuple[Node | None, list[Diagnostic]]:
        """The value as a node whose spans lie in the text of the argument."""
        shift = len(_PREFIX) + len(self.path) + 1
        composer = Composer(self.value)
        node = composer.value()
        said = [replace(d, span=_shifted(d.span, shift, self.origin)) for d in composer.diagnostics]
        if said:
            return None, said
        if node is None:  # nothing after the `=` is nothing, as in the file
            node = Node("scalar", Span(1, 1, 1, 1))
        return _moved(node, shift, self.origin), []

    def _put(
        self, data: Any, spans: Spans, segments: list[tuple[str, int, int]], node: Node
    ) -> list[Diagnostic]:
        path, here = "", data
        for position, (key, start, end) in enumerate(segments):
            is_last = position == len(segments) - 1
            inner = f"{path}{key}" if key.startswith("[") else join(path, key)
            if key.startswith("["):
                index = int(key[1:-1])
                if not isinstance(here, list) or index >= len(here):
                    return [
                        self._wrong(f"`{path}` has no element {index}", start, end, f"set `{path}` itself")
                    ]
                key = index  # type: ignore[assignment]
            elif not isinstance(here, dict):
                shown = f"`{here}`" if isinstance(here, str | int | float) else "a list"
                help = f"set `{path}` itself, e.g. --set '{path}={{{key}: ...}}'"
                return [self._wrong(f"`{path}` is {shown} here, not a section", start, end, help)]
            if is_last:
                self._forget(spans, inner)
                here[key] = _value(node, inner, spans, self._span(start, end))  # type: ignore[index]
                return []
            if isinstance(here, dict) and here.get(key) is None:
                here[key] = {}
                self._forget(spans, inner)
                spans[inner] = (self._span(start, end), self._span(start, end))
            path, here = inner, here[key]  # type: ignore[index]
        return []

    def _forget(self, spans: Spans, path: str) -> None:
        for known in [p for p in spans if p == path or p.startswith((f"{path}.", f"{path}["))]:
            del spans[known]

    def _span(self, start: int, end: int) -> Span:
        return Span(1, len(_PREFIX) + start + 1, 1, len(_PREFIX) + end + 1, self.origin)

    def _wrong(self, why: str, start: int, end: int, help: str) -> Diagnostic:
        span = self._span(start, max(end, start + 1))
        return Diagnostic("S010", "error", f"--set cannot be applied: {why}", help=help, span=span)


def _shifted(span: Span | None, columns: int, origin: Origin) -> Span:
    if span is None:
        return Span(1, columns + 1, 1, columns + 2, origin)
    start = span.column + (columns if span.line == 1 else 0)
    end = span.end_column + (columns if span.end_line == 1 else 0)
    return Span(span.line, start, span.end_line, end, origin)


def _moved(node: Node, columns: int, origin: Origin) -> Node:
    return replace(
        node,
        span=_shifted(node.span, columns, origin),
        items=[_moved(item, columns, origin) for item in node.items],
        pairs=[
            (key, _shifted(span, columns, origin), _moved(item, columns, origin))
            for key, span, item in node.pairs
        ],
    )


# --- canonical YAML ------------------------------------------------------------------------------------

_PLAIN = re.compile(r"[A-Za-z0-9_/.~][A-Za-z0-9_/.~@+=:() -]*")
_WORD = re.compile(r"[A-Za-z0-9_/.@+-]+")


def dump(value: Any) -> str:
    """Plain data as canonical YAML that `parse` reads back unchanged; ends in a newline."""
    return "\n".join(_lines(value, "")) + "\n"


def _lines(value: Any, indent: str) -> list[str]:
    if isinstance(value, dict) and value:
        return [
            line
            for key, item in value.items()
            for line in _entry(f"{indent}{_text(str(key))}:", item, indent)
        ]
    if isinstance(value, list | tuple) and not _is_flat(value):
        return [line for item in value for line in _entry(f"{indent}-", item, indent)]
    return [indent + _inline(value)]


def _entry(head: str, item: Any, indent: str) -> list[str]:
    if (isinstance(item, dict) and item) or (isinstance(item, list | tuple) and not _is_flat(item)):
        below = _lines(item, indent + "  ")
        if head.endswith("-"):
            return [f"{head} {below[0].lstrip(' ')}", *below[1:]]
        return [head, *below]
    return [f"{head} {_inline(item)}"]


def _is_flat(value: Sequence[Any]) -> bool:
    return not any(isinstance(item, dict | list | tuple) for item in value)


def _inline(value: Any) -> str:
    if isinstance(value, list | tuple):
        return (
            "["
            + ", ".join(_text(item, _WORD) if isinstance(item, str) else _inline(item) for item in value)
            + "]"
        )
    if isinstance(value, dict):
        return "{}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    return str(value) if isinstance(value, int) else _text(str(value))


def _text(text: str, plain: re.Pattern[str] = _PLAIN) -> str:
    """A text as a plain scalar where that reads back as the same text, else in double quotes."""
    safe = plain.fullmatch(text) and isinstance(scalar(text), str)
    if safe and ": " not in text and not text.endswith((":", " ")) and not text.startswith("..."):
        return text
    escaped = "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escape(c)) for c in text)
    return f'"{escaped}"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def _escape(character: str) -> str:
    return f"\\U{ord(character):08X}"
