"""The jinja2 environment, and how a value may enter a script.

Three doors, and no value takes another: `| sh` quotes for the shell, `directive` writes an #SBATCH line
(which no shell reads), and `plain_name` lets through what is safe bare, in a file name or a comment.
"""

from __future__ import annotations

import functools
import re
import shlex
from typing import Any

import jinja2

from specc import shipped

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FLAG = re.compile(r"--[a-z][a-z0-9-]*|-[A-Za-z]")
_BARE = re.compile(r"[A-Za-z0-9_.,:;/=+@%*()\[\]&|!~{}<>^?$-]*")


class EmitError(ValueError):
    """The plan holds a value that cannot be written into a script; the message says which."""


def sh(value: Any) -> str:
    """One shell word: `shlex.split(sh(x)) == [x]`. EmitError for a control character."""
    text = str(value)
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise EmitError(f"{text!r} holds a control character, which cannot go into a script")
    return shlex.quote(text)


def plain_name(name: str, what: str) -> str:
    """The name itself when it is safe bare; EmitError otherwise."""
    if not _NAME.fullmatch(name):
        raise EmitError(f"{what} `{name!r}` cannot be a file name; use letters, digits, `.`, `_` and `-`")
    return name


def variable(name: str) -> str:
    """The name of an environment variable; EmitError when a shell would not take it."""
    if not _VARIABLE.fullmatch(name):
        raise EmitError(f"{name!r} cannot be an environment variable; use letters, digits and `_`")
    return name


def directive(flag: str, value: str = "") -> str:
    """`--flag=value` as sbatch reads it from a comment: it knows double quotes and backslashes, no shell.

    EmitError for a bad flag, or for a value of more than one line.
    """
    if not _FLAG.fullmatch(flag):
        raise EmitError(f"{flag!r} is not an sbatch flag; write it as `--flag=value`")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise EmitError(f"the value of `{flag}` holds a control character; an #SBATCH line is one line")
    if not value:
        return flag
    joint = "=" if flag.startswith("--") else " "
    if _BARE.fullmatch(value):
        return f"{flag}{joint}{value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{flag}{joint}"{escaped}"'


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(shipped.templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["sh"] = sh
    return environment


def render(template: str, **values: Any) -> str:
    """The text of one template; a name that is missing is an error, never an empty string."""
    return _environment().get_template(template).render(values)
