"""Chat templates in jinja2, run as transformers runs them, but with bounds.

A template comes with downloaded weights, so it is a stranger's program: it runs in jinja2's
immutable sandbox, may not build huge texts, and sees nothing but the messages and the names of
special tokens.

What an assistant says is learnt. Templates that mark it with `{% generation %}` are taken at their
word. For others the conversation is rendered up to each answer and past it; what lies between is
the answer, as long as the template renders the beginning of a conversation the same however it
goes on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes

from runtime.conversation import messages_of
from runtime.problem import Problem

LONGEST = 10_000_000
"""Characters a template may build with `*` in one go."""

_OPEN, _CLOSE = "\ue000\ue001", "\ue001\ue000"
"""Marks around what a `generation` block renders; two private characters that no text has in this order."""


class JinjaTemplate:
    """One compiled template. `today` is what `strftime_now` formats; else SOURCE_DATE_EPOCH, else now."""

    def __init__(self, source: str, today: datetime | None = None) -> None:
        self.source = source
        self.today = today or _today()
        environment = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = self.today.strftime
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            at = f" (line {line})" if line else ""
            raise Problem("R035", f"the chat template is no jinja2{at}: {_words(error)}") from None
        self._marks_answers = bool(re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", source))

    def pieces(self, row: Mapping[str, Any], specials: Mapping[str, str]) -> list[tuple[str, bool]]:
        messages = messages_of(row)
        if self._marks_answers:
            return _marked_pieces(self._render(messages, row, specials, marked=True))
        return self._pieces_by_prefix(messages, row, specials)

    def prompt(self, row: Mapping[str, Any], specials: Mapping[str, str]) -> list[tuple[str, bool]]:
        return [(self._render(messages_of(row), row, specials, ask=True), False)]

    def _pieces_by_prefix(
        self, messages: Sequence[Mapping[str, Any]], row: Mapping[str, Any], specials: Mapping[str, str]
    ) -> list[tuple[str, bool]]:
        whole = self._render(messages, row, specials)
        pieces: list[tuple[str, bool]] = []
        done = 0
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or index == 0:
                continue
            asked = self._render(messages[:index], row, specials, ask=True)
            answered = self._render(messages[: index + 1], row, specials)
            if not (whole.startswith(answered) and answered.startswith(asked) and len(asked) >= done):
                raise Problem(
                    "R035",
                    f"the chat template renders turn {index + 1} otherwise when the conversation goes on, so "
                    "what is learnt cannot be told; mark it with {% generation %} in the template, or split "
                    "the row",
                )
            end = len(asked) + _spoken(answered[len(asked) :], specials.get("eos_token", ""))
            pieces += [(whole[done : len(asked)], False), (whole[len(asked) : end], True)]
            done = end
        pieces.append((whole[done:], False))
        return [piece for piece in pieces if piece[0]]

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        row: Mapping[str, Any],
        specials: Mapping[str, str],
        *,
        ask: bool = False,
        marked: bool = False,
    ) -> str:
        if marked and _holds_marks(messages):
            raise Problem(
                "R036", "the conversation holds the private characters U+E000 U+E001; take them out"
            )
        try:
            return self._template.render(
                messages=messages,
                tools=row.get("tools"),
                documents=row.get("documents"),
                add_generation_prompt=ask,
                **specials,
                **{_Generation.MARKED: marked},
            )
        except (
            jinja2.TemplateError,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            raise Problem("R036", f"the chat template refuses the conversation: {_words(error)}") from None
        except (RecursionError, MemoryError):
            raise Problem("R035", "the chat template does not end; use another one") from None


def _spoken(text: str, eos: str) -> int:
    """Length of what the model says of a rendered answer: blanks after its end token are not said."""
    if eos and eos in text:
        end = text.rindex(eos) + len(eos)
        if not text[end:].strip():
            return end
    return len(text)


def _holds_marks(messages: Sequence[Mapping[str, Any]]) -> bool:
    text = json.dumps(messages, ensure_ascii=False, default=str)
    return _OPEN in text or _CLOSE in text


def _marked_pieces(marked: str) -> list[tuple[str, bool]]:
    pieces: list[tuple[str, bool]] = []
    for number, part in enumerate(marked.split(_OPEN)):
        said, found, rest = part.partition(_CLOSE) if number else ("", "", part)
        if number:
            pieces.append((said if found else part, True))
        pieces.append((rest, False))
    return [piece for piece in pieces if piece[0]]


class _Generation(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`: what lies between is what the model says."""

    tags = {"generation"}  # noqa: RUF012
    MARKED = "specc_mark_generation"

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_around", [nodes.Name(self.MARKED, "load")])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _around(self, marked: bool, caller: Any) -> str:
        return f"{_OPEN}{caller()}{_CLOSE}" if marked else caller()


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (abs(left) <= 1_000_000 and abs(right) <= 16):
            raise jinja2.exceptions.SecurityError("a power this large is not allowed")
        for text, times in ((left, right), (right, left)):
            if (
                isinstance(text, str | list | tuple)
                and isinstance(times, int)
                and len(text) * times > LONGEST
            ):
                raise jinja2.exceptions.SecurityError("a text this long is not allowed")
        return super().call_binop(context, operator, left, right)


def _today() -> datetime:
    """SOURCE_DATE_EPOCH (seconds) makes a template that writes the date reproducible."""
    stated = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(stated), UTC) if stated else datetime.now()


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
