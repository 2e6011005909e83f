"""Values with units, and names: text in a spec, checked and held in one unit."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

LONGEST = 366 * 86400
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {
    "B": 1,
    **{f"{p}B": 1000**i for i, p in enumerate("KMGTP", 1)},
    **{f"{p}iB": 1024**i for i, p in enumerate("KMGTP", 1)},
}


def refused(code: str, expected: str, help: str = "") -> PydanticCustomError:
    """The error of a value; `expected` completes `... must be`, and `help` says what to write."""
    return PydanticCustomError("spec", "{expected}", {"code": code, "expected": expected, "help": help})


def conflict(message: str, key: str = "", help: str = "") -> PydanticCustomError:
    """The error of fields that do not go together; `key` is the one to point at."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "key": key, "help": help})


def parse_time(value: Any) -> int:
    """Seconds of `4h`, `90m`, `30s`, `2d`, `1h30m`, `HH:MM:SS` or `D-HH:MM:SS`."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise refused("T007", "a time with a unit", f"write {value}h or {value}m")
    text = value.strip() if isinstance(value, str) else ""
    seconds = _clock(text) if ":" in text else _counted(text)
    if seconds is None:
        help = f"write {text}:00 for hours and minutes" if re.fullmatch(r"\d+:[0-5]\d", text) else ""
        raise refused("T007", "a time such as 4h, 90m, 1h30m, 04:00:00 or 1-00:00:00", help)
    if not 1 <= seconds <= LONGEST:
        raise refused("T007", "between 1s and 366d")
    return seconds


def _clock(text: str) -> int | None:
    match = re.fullmatch(r"(?:(\d{1,3})-)?(\d{1,4}):([0-5]\d):([0-5]\d)", text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def _counted(text: str) -> int | None:
    match = re.fullmatch(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?:in)?)?(?:(\d{1,9})s)?", text)
    if not text or not match:
        return None
    return sum(int(part or 0) * size for part, size in zip(match.groups(), (86400, 3600, 60, 1), strict=True))


def format_time(seconds: int) -> str:
    """Seconds in the largest unit that divides them; `parse_time` reads it back."""
    unit = next(u for u in ("d", "h", "m", "s") if seconds % _SECONDS[u] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def parse_size(value: Any) -> int:
    """Bytes of `80GB` (powers of 1000) or `80GiB` (powers of 1024)."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise refused("T007", "a size with a unit", f"write {value}GB")
    match = (
        re.fullmatch(r"(\d{1,18}(?:\.\d{1,6})?) ?([A-Za-z]{1,3})", value.strip())
        if isinstance(value, str)
        else None
    )
    spelled = {unit.lower(): unit for unit in _BYTES}
    if not match or match[2].lower() not in spelled:
        raise refused("T007", "a size such as 80GB, 512MB or 2TiB")
    number = float(match[1]) if "." in match[1] else int(match[1])
    size = int(number * _BYTES[spelled[match[2].lower()]])
    if size < 1:
        raise refused("T007", "more than nothing")
    return size


def format_size(size: int) -> str:
    """Bytes in the largest unit that divides them; `parse_size` reads it back."""
    unit = max((u for u in _BYTES if size % _BYTES[u] == 0), key=lambda u: _BYTES[u])
    count = size // _BYTES[unit]
    return f"{count}{unit}"


NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
STAGE = r"[a-z0-9][a-z0-9_-]{0,62}"
"""Like a name, without dots, since paths such as `stages.NAME.train.lr` use them."""

VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"


def name_like(text: str, pattern: str) -> str:
    """The name nearest to `text` that the pattern allows, or ''."""
    allowed = "a-z0-9._-" if "." in pattern else "a-z0-9_-"
    near = re.sub(f"[^{allowed}]+", "-", text.lower()).strip("-._")[:63]
    return near if re.fullmatch(pattern, near) else ""


def _name(value: str) -> str:
    if re.fullmatch(NAME, value):
        return value
    near = name_like(value, NAME)
    expected = "made of small letters, digits, `.`, `_` and `-`, at most 63"
    raise refused("T006", expected, f"write `{near}`" if near else "")


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME}$"})]
"""A name that is safe as a folder and as a job's name."""

Time = Annotated[
    int,
    BeforeValidator(parse_time),
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["4h", "90m", "1-00:00:00"]}),
]
"""Whole seconds."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["80GB", "2TB"]}),
]
"""Bytes."""


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise refused("T012", "one line of text without control characters")
    return value


def _given(value: str) -> str:
    if not value.strip():
        raise refused("T012", "text", "give it a value, or remove it")
    return _one_line(value)


def _some(value: str) -> str:
    if not value:
        raise refused("T012", "text", "give it a value, or remove it")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(VARIABLE, value):
        raise refused("T006", "the name of an environment variable: letters, digits and `_`")
    return value


def _as_text(value: Any) -> Any:
    """Whole numbers are common as values of variables; they mean their digits."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Line = Annotated[str, AfterValidator(_one_line)]
"""Text that may go into a script or a file name."""

Given = Annotated[str, AfterValidator(_given)]
"""A line that is not empty."""

Ending = Annotated[str, AfterValidator(_some)]
"""Text that is not empty; line breaks and spaces are as good as letters."""

Variable = Annotated[
    str, AfterValidator(_variable), WithJsonSchema({"type": "string", "pattern": f"^{VARIABLE}$"})
]
Environment = dict[
    Variable, Annotated[Line, BeforeValidator(_as_text), WithJsonSchema({"type": ["string", "integer"]})]
]
