"""What the rows of each form must hold, as far as one row at a time can show.

`inputs` reads the head of a file and asks `Form.mistake` about each row. The runtime reads all rows and
checks again; the words for the forms are those of `format` in a spec, and `prompts` for rows that only ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from specc.spec.data import FIELD
from specc.spec.reading import listed, nearest

CHAT_KEYS = ("messages", "conversations")

TURNS = "a turn is {role, content} in `messages`, {from, value} in `conversations`"

COMPARED = "a row is {prompt, chosen, rejected}, or one {text} of two, the better first"


@dataclass(frozen=True)
class Mistake:
    """What is wrong with a file."""

    code: str
    message: str
    field: str = ""  # of the data set, to point at
    help: str = "check that the path is the one you mean, and that the file was written to its end"


@dataclass(frozen=True)
class Form:
    """How the rows of one data set look."""

    kind: str  # auto | any | chat | prompt_response | comparisons | attributes | hh | prompts
    templates: Mapping[str, str] = field(default_factory=dict)  # by key: prompt, response, chosen, rejected
    attributes: tuple[str, ...] = ()
    strength: bool = False  # every comparison says how clear it is

    def of(self, first: Mapping[str, Any]) -> Form:
        """The form when `auto` is decided by the first row."""
        if self.kind != "auto":
            return self
        return Form("chat" if is_chat(first) else "prompt_response", self.templates)

    def mistake(self, row: Mapping[str, Any], where: str, is_first: bool) -> Mistake | None:
        """The first thing that is wrong with a row."""
        if self.kind == "any":
            return None
        if self.kind == "chat":
            return chat(row, where)
        if self.kind == "comparisons":
            return self._comparison(row, where, is_first)
        if self.kind == "attributes":
            return self._marks(row, where)
        if self.kind in ("pairs", "verdicts"):
            return self._preference(row, where, is_first)
        if self.kind == "hh":
            return _texts(
                row, ("chosen", "rejected"), where, "a row of hh is {chosen, rejected}, two dialogues"
            )
        if self.kind == "prompts":
            return self._prompt(row, where, is_first)
        return self._fields(row, where, is_first)

    def _fields(self, row: Mapping[str, Any], where: str, is_first: bool) -> Mistake | None:
        """The first field of the templates that a row lacks, or that is no text."""
        for key, template in self.templates.items():
            for name in FIELD.findall(template):
                value = _value(row, name)
                if value is _ABSENT:
                    return _lacking(row, where, key, name, is_first)
                if isinstance(value, bool) or not isinstance(value, str | int | float):
                    message = f"`{where}`: field `{name}` is {kind(value)}, not text"
                    return Mistake("G014", message, key, "name a field that holds text")
        return None

    def _comparison(self, row: Mapping[str, Any], where: str, is_first: bool) -> Mistake | None:
        if "chosen" not in row and "rejected" not in row and self._asks_for("chosen"):
            if self.strength and row.get("label") is None:
                message = (
                    f"`{where}` has no `label` that says how clear the preference is, which the loss wants"
                )
                return Mistake("G014", message, help="use loss: bradley_terry, or rows with a `label`")
            return chat(row, where) if is_chat(row) else _texts(row, ("text",), where, COMPARED)
        if self.strength and row.get("strength") is None and row.get("margin") is None:
            message = f"`{where}` has neither `strength` nor `margin`, and the loss wants to know it"
            return Mistake("G014", message, help="use loss: bradley_terry, or rows that say it")
        sides = [row.get("chosen"), row.get("rejected")]
        if any(isinstance(side, list | dict) for side in sides):
            odd = next((n for n, side in zip(("chosen", "rejected"), sides, strict=True) if not side), None)
            return Mistake("G014", f"`{where}` has no turns in `{odd}`", help=TURNS) if odd else None
        return self._fields(row, where, is_first)

    def _preference(self, row: Mapping[str, Any], where: str, is_first: bool) -> Mistake | None:
        """Two responses of which one is better, or one with a verdict."""
        names = ("chosen", "rejected") if self.kind == "pairs" else ("response",)
        if is_chat(row) or any(isinstance(row.get(name), list | dict) for name in ("prompt", *names)):
            odd = next((name for name in names if not row.get(name)), None)
            mistake = Mistake("G014", f"`{where}` has no turns in `{odd}`", help=TURNS) if odd else None
        else:
            mistake = self._fields(row, where, is_first)
        if mistake is not None:
            return mistake
        if self.kind == "pairs":
            return _number(row, ("chosen_reward", "rejected_reward"), where)
        said = row.get("preference")
        if said in ("chosen", "rejected") or ("preference" not in row and isinstance(row.get("label"), bool)):
            return None
        what = f"`preference` is {kind(said)}" if "preference" in row else "no `preference` that can be read"
        help = "say `preference`: chosen or rejected, or `label`: true or false, in each row"
        return Mistake("G014", f"`{where}`: {what}; it has {_keys(row)}", help=help)

    def _asks_for(self, name: str) -> bool:
        """Whether the templates want a field of that name, as they do unless the spec says otherwise."""
        return any(name in FIELD.findall(template) for template in self.templates.values())

    def _marks(self, row: Mapping[str, Any], where: str) -> Mistake | None:
        wanted = f"a list of {len(self.attributes)}: {', '.join(self.attributes)}"
        label = row.get("label")
        if "label" not in row:
            if not any(name in row for name in self.attributes):
                help = f"a row is {{text, label}}, with {wanted}"
                return Mistake("G014", f"`{where}` has no `label`; it has {_keys(row)}", help=help)
        elif not isinstance(label, list) or len(label) != len(self.attributes):
            found = f"a list of {len(label)}" if isinstance(label, list) else kind(label)
            message = f"`{where}`: `label` is {found}, not {wanted}"
            return Mistake("G014", message, help="name the labels' attributes in `reward.attributes`")
        return chat(row, where) if is_chat(row) else _texts(row, ("text",), where, "a row is {text, label}")

    def _prompt(self, row: Mapping[str, Any], where: str, is_first: bool) -> Mistake | None:
        if is_chat(row) or isinstance(row.get("prompt"), list):
            return chat({"messages": row["prompt"]} if not is_chat(row) else row, where)
        is_said = self.templates.get("prompt") not in (None, "{input}")
        if is_said or "input" in row:
            return self._fields(row, where, is_first)
        if not any(isinstance(row.get(key), str) for key in ("prompt", "text")):
            help = 'a row is {prompt}, {text} or {messages}; else say prompt: "{field}"'
            return Mistake("G014", f"`{where}` holds no prompt; it has {_keys(row)}", "prompt", help)
        return None


def is_chat(row: Mapping[str, Any]) -> bool:
    """Whether the row holds a conversation in either form."""
    return any(isinstance(row.get(key), list) for key in CHAT_KEYS)


def chat(row: Mapping[str, Any], where: str) -> Mistake | None:
    """The first thing that keeps a row from being a conversation."""
    key = next((key for key in CHAT_KEYS if key in row), None)
    if key is None:
        help = "use format: prompt_response, with templates that name the fields"
        message = f"`{where}` has no `messages` and no `conversations`; it has {_keys(row)}"
        return Mistake("G014", message, "format", help)
    turns = row[key]
    if not isinstance(turns, list) or not turns:
        what = "empty" if turns == [] else kind(turns)
        return Mistake("G014", f"`{where}`: `{key}` is {what}, not a list of turns", help=TURNS)
    who, what = ("role", "content") if key == "messages" else ("from", "value")
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict):
            return Mistake("G014", f"`{where}`: turn {number} is {kind(turn)}, not an object", help=TURNS)
        for part in (who, what):
            if part not in turn and "tool_calls" not in turn:
                return Mistake("G014", f"`{where}`: turn {number} has no `{part}`", help=TURNS)
    return None


def kind(value: Any) -> str:
    """What a value of a row is, in plain words."""
    names = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null", str: "text"}
    return names.get(type(value), "a number")


def _texts(row: Mapping[str, Any], names: tuple[str, ...], where: str, help: str) -> Mistake | None:
    for name in names:
        if name not in row:
            return Mistake("G014", f"`{where}` has no `{name}`; it has {_keys(row)}", help=help)
        if not isinstance(row[name], str):
            return Mistake("G014", f"`{where}`: `{name}` is {kind(row[name])}, not text", help=help)
    return None


def _number(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> Mistake | None:
    """The first of these fields that is there and holds no number."""
    for name in names:
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            message = f"`{where}`: `{name}` is {kind(value)}, not a number"
            return Mistake("G014", message, help="give a number, or leave the field out")
    return None


def _keys(row: Mapping[str, Any]) -> str:
    return listed([str(key) for key in list(row)[:12]]) if row else "nothing"


def _lacking(row: Mapping[str, Any], where: str, key: str, name: str, is_first: bool) -> Mistake:
    near = nearest(name, [str(k) for k in row])
    other = list(row)[0 if key == "prompt" else -1] if row else "field"
    help = f"name a field that the rows have in `{key}:`, e.g. '{{{other}}}'"
    if near:
        help = f'did you mean `{key}: "{{{near}}}"`?'
    elif not is_first:
        help = "rows before it have the field; complete this one, or take it out"
    return Mistake("G014", f"`{where}` has no field `{name}`; it has {_keys(row)}", key, help)


_ABSENT = object()


def _value(row: Mapping[str, Any], field: str) -> Any:
    """A field of a row, dots going into objects."""
    found: Any = row
    for part in [field] if field in row else field.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return _ABSENT
        found = found[part]
    return found
