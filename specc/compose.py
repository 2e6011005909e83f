"""YAML events -> a tree of nodes with spans: the grammar is PyYAML's, everything above it is ours.

libyaml's parser is used where PyYAML was built with it, the Python one elsewhere; both give the same tree.
Events are pulled one by one, so depth and size are judged before anything grows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
import yaml.parser
import yaml.reader
import yaml.scanner

from specc.diagnostics import Diagnostic, Span

MAX_DEPTH = 40
MAX_NODES = 20_000
"""Values of a document after its aliases are expanded."""

LONG = 64 << 10
"""Characters up to which a syntax error is looked at again with the Python parser, whose words are better."""

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]{1,400}|0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema: null, bool, int, float or the text itself."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text) if _FLOAT.fullmatch(text) else text


@dataclass(frozen=True)
class Node:
    """A value in the text, and where."""

    kind: str  # scalar | list | map
    span: Span
    value: Any = None
    items: list[Node] = field(default_factory=list)
    pairs: list[tuple[str, Span, Node]] = field(default_factory=list)
    plain: bool = False  # a scalar without quotes
    size: int = 1  # values in it, itself included
    depth: int = 1


class _PythonParser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)


def _parser(text: str) -> Any:
    """libyaml's parser when there is one."""
    c_parser = getattr(getattr(yaml, "cyaml", None), "CParser", None)
    return c_parser(text) if c_parser else _PythonParser(text)


class _Stop(Exception):
    """The text cannot be read on."""


class Composer:
    """Reads one text; `diagnostics` holds what is wrong with it."""

    def __init__(self, text: str, parser: Any = None) -> None:
        self.text = text
        self.diagnostics: list[Diagnostic] = []
        self._make = parser or _parser
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0
        self._last_scalar: Any = None

    def document(self) -> Node | None:
        """The one document of the text, which must be a mapping; None when there is none."""
        node = self.value()
        if self.diagnostics:
            return node
        if node is None or (node.kind == "scalar" and node.value is None):
            self._say(
                "S006",
                "the file is empty",
                Span(1, 1, 1, 2),
                help="start from a shipped one: specc ls, then specc init NAME",
            )
        elif node.kind != "map":
            what = "a list" if node.kind == "list" else "plain text"
            help = "write `key: value` lines, with a space after each colon"
            self._say("S006", f"the file is {what}, not keys with values", node.span, "expected a key", help)
        return node

    def value(self) -> Node | None:
        """The one value of the text."""
        odd = _UNPRINTABLE.search(self.text)
        if odd:
            shown = f"U+{ord(odd[0]):04X}"
            self._say(
                "S001",
                f"the text holds the control character {shown}",
                self._at(odd.start()),
                help="remove it",
            )
            return None
        try:
            return self._whole()
        except _Stop:
            return None
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
            return None
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
            self._say("S002", f"this is not YAML: {' '.join(str(error).split())}")
            return None

    def _whole(self) -> Node | None:
        self._events = self._make(self.text)
        self._events.get_event()  # the stream begins
        if self._events.check_event(yaml.StreamEndEvent):
            return None
        self._events.get_event()  # the document begins
        node = self._node(1)
        self._events.get_event()  # the document ends
        if not self._events.check_event(yaml.StreamEndEvent):
            event = self._events.get_event()
            help = "keep one document per file; remove the `---`"
            self._say("S006", "the file holds a second document", _span(event), "begins here", help)
        return node

    def _node(self, depth: int) -> Node:
        event = self._events.get_event()
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        self._count(1, event)
        if depth > MAX_DEPTH:
            help = "a spec is at most a few sections deep"
            self._say("S005", f"values are nested more than {MAX_DEPTH} deep", _span(event), help=help)
            raise _Stop
        if event.tag is not None and event.tag != "!":
            self._tag(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # not complete: an alias to it within would be endless
        if isinstance(event, yaml.ScalarEvent):
            self._last_scalar = event
            node = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._list(event, depth)
        else:
            node = self._map(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _scalar(self, event: Any) -> Node:
        span = _span(event)
        if not event.implicit[0]:
            return Node("scalar", span, event.value)
        value = scalar(event.value)
        if (
            isinstance(value, float)
            and value in (float("inf"), float("-inf"))
            and event.value not in _SPECIAL
        ):
            self._say(
                "S011",
                f"the number `{_short(event.value)}` is too large",
                span,
                help="a number is at most 1.8e308",
            )
        return Node("scalar", span, value, plain=True)

    def _list(self, start: Any, depth: int) -> Node:
        items: list[Node] = []
        while not self._events.check_event(yaml.SequenceEndEvent):
            items.append(self._node(depth + 1))
        end = self._events.get_event()
        span = _span(start, _last(start, end, [item.span for item in items]))
        return Node("list", span, items=items, size=_size(items), depth=_depth(items))

    def _map(self, start: Any, depth: int) -> Node:
        pairs: list[tuple[str, Span, Node]] = []
        seen: dict[str, Span] = {}
        merged: list[Node] = []
        while not self._events.check_event(yaml.MappingEndEvent):
            key = self._node(depth + 1)
            item = self._node(depth + 1)
            if key.plain and key.value == "<<":
                merged.append(item)
            elif self._is_key(key, seen):
                seen[key.value] = key.span
                pairs.append((key.value, key.span, item))
        end = self._events.get_event()
        span = _span(start, _last(start, end, [item.span for _, _, item in pairs] + [m.span for m in merged]))
        for node in merged:
            pairs += self._merged(node, seen)
        values = [item for _, _, item in pairs]
        return Node("map", span, pairs=pairs, size=_size(values), depth=_depth(values))

    def _is_key(self, key: Node, seen: dict[str, Span]) -> bool:
        if key.kind != "scalar" or not isinstance(key.value, str):
            names = {bool: "true or false", type(None): "null", int: "a number", float: "a number"}
            what = names.get(type(key.value), "text") if key.kind == "scalar" else f"a {key.kind}"
            help = "put it in quotes" if key.kind == "scalar" else "write one key per value"
            self._say("S007", f"a key must be text, but this one is {what}", key.span, help=help)
            return False
        if key.value in seen:
            line = seen[key.value].line
            help = f"keep one of them; the first is on line {line}"
            self._say("S003", f"the key `{_short(key.value)}` is given twice", key.span, "again here", help)
            return False
        return True

    def _merged(self, node: Node, seen: dict[str, Span]) -> list[tuple[str, Span, Node]]:
        """The pairs that `<<:` brings in; keys that are there already win."""
        maps = node.items if node.kind == "list" else [node]
        found = []
        for one in maps:
            if one.kind != "map":
                help = "write `<<: *name`, where `&name` marks a section"
                self._say("S009", "`<<` merges a section, and this is none", node.span, help=help)
                return []
            self._count(one.size, None)
            for key, span, item in one.pairs:
                if key not in seen:
                    seen[key] = span
                    found.append((key, span, item))
        return found

    def _alias(self, event: Any, depth: int) -> Node:
        name = event.anchor
        if name not in self._anchors:
            self._say(
                "S009", f"`*{name}` refers to nothing", _span(event), f"no `&{name}` above", "define it first"
            )
            raise _Stop
        node = self._anchors[name]
        if node is None:
            self._say(
                "S009", f"`*{name}` lies within `&{name}` itself", _span(event), help="write the value out"
            )
            raise _Stop
        self._count(node.size, event)
        if depth + node.depth > MAX_DEPTH:
            self._say("S005", f"values are nested more than {MAX_DEPTH} deep", _span(event))
            raise _Stop
        return node

    def _count(self, nodes: int, event: Any) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            message = f"the spec holds more than {MAX_NODES:,} values once its aliases are expanded"
            self._say("S005", message, _span(event) if event else None, help="a spec is a page of text")
            raise _Stop

    def _tag(self, event: Any) -> None:
        tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        message = f"the tag `{_short(tag)}` has no meaning in a spec"
        self._say("S008", message, _span(event), help="remove it; put a value in quotes to make it text")

    # --- mistakes ------------------------------------------------------------------------------------

    def _say(
        self, code: str, message: str, span: Span | None = None, label: str = "", help: str = ""
    ) -> None:
        self.diagnostics.append(Diagnostic(code, "error", message, "", label, help, span))

    def _at(self, index: int) -> Span:
        before = self.text[:index].splitlines(keepends=True)
        ended = not before or before[-1][-1:] in "\n\r\x85\u2028\u2029"
        line = len(before) + 1 if ended else len(before)
        column = 1 if ended else len(before[-1]) + 1
        return Span(line, column, line, column + 1)

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        if self._make is _parser and len(self.text) <= LONG:
            error = _in_python(self.text) or error
        problem = error.problem or "this is not YAML"
        mark = error.problem_mark or error.context_mark
        lines = self.text.splitlines()
        if mark is None:
            self._say("S002", problem)
            return
        line = lines[mark.line] if mark.line < len(lines) else ""
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent:
            column = indent.index("\t") + 1
            span = Span(mark.line + 1, column, mark.line + 1, column + 1)
            self._say("S004", "a tab cannot indent a line in YAML", span, "a tab", "indent with spaces")
            return
        if self._runs_over(mark):
            start = self._last_scalar.start_mark
            span = Span(start.line + 1, start.column + 1, start.line + 1, start.column + 2)
            help = f"close it; it runs on to line {mark.line + 1}"
            self._say("S002", "a quote is opened and not closed on its line", span, "opened here", help)
            return
        message, label, help, at_context = _plain_words(problem, error.context or "", line[mark.column :][:1])
        if at_context and error.context_mark is not None:
            mark = error.context_mark
        number = min(mark.line + 1, max(1, len(lines)))
        column = mark.column + 1 if number == mark.line + 1 else len(lines[-1]) + 1 if lines else 1
        self._say("S002", message, Span(number, column, number, column + 1), label, help)

    def _runs_over(self, mark: Any) -> bool:
        """Whether the value before the error is quoted and of several lines: most often a forgotten quote."""
        last = self._last_scalar
        if last is None or last.implicit[0] or self.text[last.start_mark.index :][:1] not in "\"'":
            return False
        return last.start_mark.line < last.end_mark.line == mark.line


def _in_python(text: str) -> yaml.MarkedYAMLError | None:
    """The error that the Python parser finds in the text."""
    try:
        parser = _PythonParser(text)
        while parser.check_event():
            parser.get_event()
    except yaml.MarkedYAMLError as error:
        return error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return None
    return None


def _plain_words(problem: str, context: str, character: str) -> tuple[str, str, str, bool]:
    """A parser's problem as message, label and help; and whether to point at where its context began."""
    if "mapping values are not allowed" in problem:
        help = "check the indentation, and put a value that contains `: ` in quotes"
        return "a `:` cannot stand here", "", help, False
    if "could not find expected ':'" in problem:
        return "this line has no `:`", "", "write `key: value`", True
    if "end of stream" in problem and "quoted scalar" in context:
        return "a quote is opened and never closed", "opened here", "close it on the same line", True
    if "flow sequence" in context:
        return (
            "the list is not closed",
            "opened here",
            "close it with `]`, and put `,` between its values",
            True,
        )
    if "flow mapping" in context:
        return (
            "the braces are not closed",
            "opened here",
            "close them with `}`, and put `,` between the keys",
            True,
        )
    if "block collection" in context or "block mapping" in context or "expected <block end>" in problem:
        return (
            "this does not line up with the lines above",
            "",
            "give the keys of one section the same indentation",
            False,
        )
    if "cannot start any token" in problem:
        return f"a value cannot begin with `{character}`", "", "put the value in quotes", False
    if "unknown escape character" in problem:
        help = "double the backslash, or use single quotes"
        return f"`\\{character}` means nothing in double quotes", "", help, False
    return f"this is not YAML: {problem}", "", "check the quotes and the indentation around here", False


def _span(event: Any, end: Any = None) -> Span:
    start, stop = event.start_mark, end or event.end_mark
    if isinstance(stop, Span):
        return Span(start.line + 1, start.column + 1, stop.end_line, stop.end_column)
    if (
        end is None and stop.line > start.line and stop.column == 0
    ):  # a block scalar ends where the next line begins
        return Span(start.line + 1, start.column + 1, stop.line, 10_000)
    return Span(start.line + 1, start.column + 1, stop.line + 1, stop.column + 1)


def _last(start: Any, end: Any, spans: list[Span]) -> Any:
    """Where a collection ends: its bracket, or its last value where it has none."""
    if start.flow_style or not spans:
        return end.end_mark
    return max(spans, key=lambda span: (span.end_line, span.end_column))


def _size(items: list[Node]) -> int:
    return 1 + sum(item.size for item in items)


def _depth(items: list[Node]) -> int:
    return 1 + max((item.depth for item in items), default=0)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
