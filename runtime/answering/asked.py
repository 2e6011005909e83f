"""A continuation that a client wants, and how the fields of a JSON body become one.

Whatever a body holds, reading it ends in a value or in `BadRequest`, which says the field and the limit.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_STOP, MOST_STOPS = 256, 16
"""Characters of a stop text, and how many there may be."""

MOST_DEEP = 32
"""Levels of nesting of a body."""


class BadRequest(Exception):
    """The client's fault: told with this HTTP status, the field, and what to change."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, message, field


@dataclass(frozen=True)
class Wanted:
    """One continuation, in plain data that crosses processes; the names are those of `Sampling`."""

    prompt: tuple[int, ...]
    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    sequence: int = 0
    stream: bool = False  # whether each token is wanted as it comes
    top: int = 0  # so many of the most likely tokens beside each
    heard: bool = False  # the prompt's own log-probabilities, too


class Fields:
    """The fields of one JSON object, each asked for by name, kind and limits."""

    def __init__(self, data: Mapping[str, Any], status: int = 400) -> None:
        self.data, self.status = data, status
        self.asked: set[str] = set()

    def get(self, name: str) -> Any:
        """The value as it is; None where it is not said."""
        self.asked.add(name)
        return self.data.get(name)

    def wrong(self, name: str, wanted: str) -> BadRequest:
        """The refusal of a field; long values are cut."""
        shown = json.dumps(self.data.get(name), ensure_ascii=True, default=str)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return BadRequest(self.status, f"`{name}` is {shown}, but must be {wanted}", name)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(name, f"a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float, least: float, most: float, open_low: bool = False) -> float:
        value = self.get(name)
        if value is None:
            return default
        fits = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
        if not fits or not math.isfinite(value) or (open_low and value == least):
            low = f"above {least:g}" if open_low else f"from {least:g}"
            raise self.wrong(name, f"a number {low} to {most:g}")
        return float(value)

    def text(self, name: str, default: str = "") -> str:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return value

    def texts(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A text or a list of texts, none of them empty: what ends an answer."""
        value = self.get(name)
        if value is None:
            return default
        found = [value] if isinstance(value, str) else value
        fits = isinstance(found, list) and len(found) <= MOST_STOPS
        if not fits or not all(isinstance(t, str) and 0 < len(t) <= LONGEST_STOP for t in found):
            raise self.wrong(
                name, f"a text of 1 to {LONGEST_STOP} characters or a list of up to {MOST_STOPS}"
            )
        return tuple(found)

    def seed(self, name: str) -> int:
        """As given; without one another each time."""
        value = self.whole(name, -1 if self.data.get(name) is None else 0, -(2**63), 2**64 - 1)
        return secrets.randbits(63) if self.data.get(name) is None else value

    def refuse(self, name: str, unless: Iterable[Any], why: str) -> None:
        """What this server does not do is refused, not passed over; `unless` it says nothing."""
        value = self.get(name)
        if value is not None and not any(
            value is u or (value == u and type(value) is type(u)) for u in unless
        ):
            raise BadRequest(self.status, f"`{name}` is not supported here; {why}", name)

    def unknown(self) -> list[str]:
        """Names that nobody asked for."""
        return [name for name in self.data if name not in self.asked]


def body_of(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request. BadRequest 400 when there is none."""
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise BadRequest(400, "the body is not UTF-8") from None
    except RecursionError:
        raise BadRequest(400, "the body is nested too deep") from None
    except ValueError as error:
        raise BadRequest(400, f"the body is not JSON: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(data, dict):
        raise BadRequest(400, "the body must be a JSON object")
    _check(data)
    return data


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _check(data: Any) -> None:
    """Half characters (lone surrogates) cannot be encoded, and depth is for attackers; without recursion."""
    level, depth = [data], 0
    while level:
        depth += 1
        if depth > MOST_DEEP:
            raise BadRequest(400, f"the body is nested more than {MOST_DEEP} levels deep")
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += [*value, *value.values()]
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not value.isascii():
                _whole(value)
        level = below


def _whole(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRequest(400, "a text holds half of a character (a lone surrogate)") from None
