"""Source: YAML text -> plain values, and the place of every key and value.

YAML 1.2 core scalars (`1e-6` is a number, `on` and `4:00:00` are text), duplicate keys refused, and
bounds on size, depth and what aliases may grow to, so that a hostile file is refused in
milliseconds. The text is read from the parser's events with a stack of our own: nothing recurses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from specc.diagnostics import Diagnostic, Span

LARGEST = 1 << 20
"""A spec of more bytes than this is refused."""
DEEPEST = 40
"""Levels of nesting at most."""
MOST_VALUES = 20_000
"""Values at most, aliases counted as often as they are used."""

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INT = re.compile(r"[-+]?[0-9]+")
_HEX_OR_OCTAL = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {"": None, "~": None, "true": True, "false": False}
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Place:
    """Where a key and its value stand: in the spec's own text, or in that of a `--set`."""

    text: str  # name of the text, a key of `Source.texts`
    key: Span | None
    value: Span


@dataclass(frozen=True)
class Source:
    """A spec as text: its values, and the place of each by path (`stages.sft.train.lr`, `a.0.b`)."""

    name: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    def text_of(self, place: Place) -> str:
        """The text that a place stands in."""
        return self.text if place.text == self.name else place.text

    def place(self, path: str) -> Place | None:
        """The place of `path`, or of its nearest parent that the text has."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path.rpartition(".")[0]
        return self.places.get("")


def read(path: str | Path) -> tuple[Source, list[Diagnostic]]:
    """Read a spec file. Raises OSError when it cannot be opened."""
    with Path(path).open("rb") as file:
        raw = file.read(LARGEST + 1)
    name = str(path)
    if len(raw) > LARGEST:
        message = f"the file is larger than {LARGEST // 1024} KiB, which no spec is"
        return Source(name, ""), [Diagnostic("S004", "error", message, help="data belongs into files of its own")]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"the file is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}"
        column = error.start - raw.rfind(b"\n", 0, error.start)
        shown = raw.decode("utf-8", errors="replace")
        at = Span(line, column, line, column + 1)
        return Source(name, shown), [Diagnostic("S002", "error", message, span=at, help="save the file as UTF-8")]
    return parse(text, name)


def parse(text: str, name: str = "<text>") -> tuple[Source, list[Diagnostic]]:
    """YAML text -> its values and places; every duplicate key at once, or the first thing that is no YAML."""
    source = Source(name, text)
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        message = f"the text is larger than {LARGEST // 1024} KiB, which no spec is"
        return source, [Diagnostic("S004", "error", message, help="data belongs into files of its own")]
    reader = _Reader(text, name)
    try:
        reader.read(yaml.parse(text, Loader=Loader))
    except _Refused as refused:
        return source, [*reader.found, refused.diagnostic]
    except yaml.reader.ReaderError as error:
        message = f"the text holds a character that YAML does not allow: {_character(error)}"
        return source, [Diagnostic("S001", "error", message, span=_span_at(text, error.position), help="remove it")]
    except yaml.MarkedYAMLError as error:
        return source, [_not_yaml(error)]
    if not isinstance(reader.root, dict):
        said = "is empty" if reader.root is None else "is not a mapping of keys to values"
        help = "begin with `name: my-experiment` and `algorithm: sft`; `specc init` copies a shipped spec"
        return source, [Diagnostic("S005", "error", f"the spec {said}", span=Span(1, 1, 1, 2), help=help)]
    return replace(source, data=reader.root, places=reader.places), reader.found


def with_overrides(source: Source, overrides: Sequence[str]) -> tuple[Source, list[Diagnostic]]:
    """The source with each `path=value` put in; the place of such a value is in the text `--set path=value`."""
    data, places, found = _copied(source.data), dict(source.places), []
    for override in overrides:
        path, equals, value = override.partition("=")
        shown = f"--set {override}"
        place = Place(shown, Span(1, 7, 1, 7 + len(path)), Span(1, 8 + len(path), 1, 8 + len(path) + max(1, len(value))))
        if not equals or not all(path.split(".")) or "\n" in override:
            at = replace(place.value, column=7, end_column=7 + max(1, len(override)))
            places["--set"] = replace(place, key=None, value=at)
            message = f"`{override}` is not of the form path=value"
            found.append(Diagnostic("S006", "error", message, "--set", help="for instance --set train.lr=1e-5"))
            continue
        reader = _Reader(value, shown)
        try:
            reader.read(yaml.parse(value, Loader=Loader))
        except (_Refused, yaml.YAMLError):
            places["--set"] = place
            message = f"the value of --set {path} is not YAML"
            found.append(Diagnostic("S006", "error", message, "--set", help="quote it, for instance --set 'name=\"a: b\"'"))
            continue
        problem = _put(data, path.split("."), reader.root)
        for gone in [p for p in places if p == path or p.startswith(path + ".")]:
            del places[gone]
        places[path] = place
        if problem:
            found.append(Diagnostic("S006", "error", f"--set {path}: {problem}", path, on="key"))
        for below, at in reader.places.items():
            if below:
                shifted = [_shifted(s, 7 + len(path)) if s else None for s in (at.key, at.value)]
                places[f"{path}.{below}"] = Place(shown, shifted[0], shifted[1] or place.value)
    return replace(source, data=data, places=places, overrides=(*source.overrides, *overrides)), found


# --- from events to values -------------------------------------------------------------------------


class _Refused(Exception):
    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic


@dataclass
class _Frame:
    """A mapping or a sequence that is being read."""

    path: str
    values: Any
    begun: Any  # the event's start mark
    anchor: str | None
    count_before: int
    key: Any = None
    key_span: Span | None = None
    has_key: bool = False
    dropped: bool = False  # the value belongs to a key that was refused
    merges: list[dict[str, Any]] = field(default_factory=list)


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.root: Any = None
        self.places: dict[str, Place] = {}
        self.found: list[Diagnostic] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.count = 0
        self.stack: list[_Frame] = []
        self.documents = 0

    def read(self, events: Iterator[Any]) -> None:
        for event in events:
            kind = type(event).__name__
            if kind == "ScalarEvent":
                self.scalar(event)
            elif kind in ("MappingStartEvent", "SequenceStartEvent"):
                self.begin(event, {} if kind == "MappingStartEvent" else [])
            elif kind in ("MappingEndEvent", "SequenceEndEvent"):
                self.end(event)
            elif kind == "AliasEvent":
                self.alias(event)
            elif kind == "DocumentStartEvent":
                self.documents += 1
                if self.documents > 1:
                    help = "write one file per spec"
                    raise self.refused("S001", "the file holds more than one YAML document", event, help)

    def refused(self, code: str, message: str, event: Any, help: str = "") -> _Refused:
        return _Refused(Diagnostic(code, "error", message, span=_span(event), help=help))

    def counted(self, event: Any, values: int = 1) -> None:
        self.count += values
        if self.count > MOST_VALUES:
            message = f"the file unfolds to more than {MOST_VALUES} values"
            raise self.refused("S004", message, event, "write fewer aliases; data belongs into files of its own")

    def path_here(self) -> str:
        if not self.stack:
            return ""
        top = self.stack[-1]
        last = top.key if isinstance(top.values, dict) else len(top.values)
        return f"{top.path}.{last}" if top.path else str(last)

    def awaits_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].values, dict) and not self.stack[-1].has_key

    def scalar(self, event: Any) -> None:
        self.counted(event)
        if self.awaits_key():
            return self.take_key(event)
        value = self.resolved(event)
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)
        self.put(value, _span(event))
        return None

    def resolved(self, event: Any) -> Any:
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            raise self.refused("S001", f"the tag `{event.tag}` means nothing in a spec", event, "remove the tag")
        if event.tag or event.style not in (None, ""):
            return event.value
        return scalar(event.value)

    def take_key(self, event: Any) -> None:
        top, span = self.stack[-1], _span(event)
        if event.style in (None, "") and not isinstance(scalar(event.value), str) and event.value != "<<":
            message = f"the key `{event.value}` is not text"
            self.found.append(Diagnostic("S001", "error", message, span=span, help=f'write "{event.value}" in quotes'))
        top.dropped = event.value in top.values
        if top.dropped:
            path = f"{top.path}.{event.value}" if top.path else event.value
            first = self.places[path].key
            where = f"first on line {first.line}" if first else ""
            message = f"duplicate key `{event.value}`"
            help = "keep one of the two"
            self.found.append(Diagnostic("S003", "error", message, span=span, label=where, help=help))
        top.key, top.key_span, top.has_key = event.value, span, True

    def begin(self, event: Any, values: Any) -> None:
        self.counted(event)
        if self.awaits_key():
            raise self.refused("S001", "a key must be text, not a list or a mapping", event, "quote it if it is meant as text")
        if event.tag not in (None, "!"):
            raise self.refused("S001", f"the tag `{event.tag}` means nothing in a spec", event, "remove the tag")
        if len(self.stack) >= DEEPEST:
            raise self.refused("S004", f"values are nested more than {DEEPEST} levels deep", event, "no spec needs that")
        self.stack.append(_Frame(self.path_here(), values, event.start_mark, event.anchor, self.count))

    def end(self, event: Any) -> None:
        frame = self.stack.pop()
        values = frame.values
        for merged in frame.merges:
            for key, value in merged.items():
                values.setdefault(key, value)
        if frame.anchor:
            self.anchors[frame.anchor] = (values, self.count - frame.count_before + 1)
        self.put(values, _between(frame.begun, event.end_mark))

    def alias(self, event: Any) -> None:
        if self.awaits_key():
            raise self.refused("S001", "an alias cannot be a key", event, "write the key out")
        if event.anchor not in self.anchors:
            raise self.refused("S001", f"there is no anchor `&{event.anchor}` above", event, "anchors come before their aliases")
        value, values = self.anchors[event.anchor]
        self.counted(event, values)
        self.put(_copied(value), _span(event))

    def put(self, value: Any, span: Span) -> None:
        if not self.stack:
            self.root = value
            self.places[""] = Place(self.name, None, span)
            return
        top, path = self.stack[-1], self.path_here()
        if isinstance(top.values, list):
            self.places[path] = Place(self.name, None, span)
            top.values.append(value)
            return
        key, top.has_key = top.key, False
        if key == "<<" and isinstance(value, dict):
            top.merges.append(value)
        elif not top.dropped:
            self.places[path] = Place(self.name, top.key_span, span)
            top.values[key] = value


def scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema: null, true, false, a number, or text."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if text.lower() in ("null", "true", "false") and text in (text.upper(), text.capitalize(), text.lower()):
        return {"null": None, "true": True, "false": False}[text.lower()]
    if _INT.fullmatch(text):
        return int(text) if len(text) < 400 else text
    if _HEX_OR_OCTAL.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if match := _INFINITE.fullmatch(text):
        return float("nan") if match.group(3) else float(f"{match.group(1)}inf")
    return text


def _put(data: dict[str, Any], keys: list[str], value: Any) -> str:
    """Put a value at a path, making mappings on the way; what is in the way when it cannot."""
    here: Any = data
    for depth, key in enumerate(keys[:-1]):
        below = here.get(key)
        if isinstance(below, list) and keys[depth + 1].isdigit() and int(keys[depth + 1]) >= len(below):
            return f"`{'.'.join(keys[: depth + 1])}` has {len(below)} entries"
        if isinstance(below, list):
            return f"`{'.'.join(keys[: depth + 1])}` is a list: give the whole list, for instance [a, b]"
        if isinstance(below, str) and key in ("model", "train", "validation", "prompts"):
            below = {"name" if key == "model" else "path": below}  # the long form of what was said in short
        if not isinstance(below, dict):
            below = {}
        here[key] = below
        here = below
    here[keys[-1]] = value
    return ""


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


# --- places ----------------------------------------------------------------------------------------


def _span(event: Any) -> Span:
    return _between(event.start_mark, event.end_mark)


def _between(start: Any, end: Any) -> Span:
    end_column = max(end.column + 1, start.column + 2 if end.line == start.line else 1)
    return Span(start.line + 1, start.column + 1, end.line + 1, end_column)


def _shifted(span: Span, columns: int) -> Span:
    return replace(span, column=span.column + columns, end_column=span.end_column + columns)


def _span_at(text: str, position: int) -> Span:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return Span(line, column, line, column + 1)


def _character(error: Any) -> str:
    return f"U+{error.character:04X}" if isinstance(error.character, int) else repr(error.character)


def _not_yaml(error: Any) -> Diagnostic:
    mark = error.problem_mark or error.context_mark
    span = Span(mark.line + 1, mark.column + 1, mark.line + 1, mark.column + 2) if mark else None
    problem = (error.problem or "it cannot be read").replace("'", "`")
    help = "look for a missing colon, quote or bracket, or a wrong indentation, here or on the line above"
    if "\\t" in problem or "tab" in problem:
        help = "indent with spaces: YAML allows no tabs"
    return Diagnostic("S001", "error", f"not YAML: {problem}", span=span, help=help)
