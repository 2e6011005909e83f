"""Conversations as rows hold them: `messages` (role, content) or `conversations` (from, value).

Both become a `Conversation` (speakers with any name, labels, a masked role) or a list of messages
(roles system, user, assistant), whichever a template wants. Problem R036 says which turn is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.problem import Problem

TYPES = ("VALUE_TO_TEXT", "TEXT_TO_VALUE")


@dataclass(frozen=True)
class Turn:
    speaker: str
    value: str
    label: str | None = None


@dataclass(frozen=True)
class Conversation:
    """A row in the `conversations` form, whichever form it came in."""

    turns: tuple[Turn, ...]
    system: str = ""
    masked: str = "User"
    type: str = ""  # VALUE_TO_TEXT | TEXT_TO_VALUE | empty: labels do not count
    label: str | None = None  # that the answer which comes next is to have


def conversation_of(row: Mapping[str, Any]) -> Conversation:
    """The row's conversation, whichever form it came in."""
    if "conversations" in row:
        return _from_conversations(row)
    turns = []
    system = []
    for number, message in enumerate(_turns(row, "messages")):
        role, content = _text(message, "role", number), _text(message, "content", number)
        if role == "system":
            system.append(content)
        elif role in ("user", "assistant"):
            turns.append(Turn(role.capitalize(), content))
        else:
            raise Problem("R036", f"turn {number + 1}: role `{role}` is none of system, user, assistant")
    return Conversation(turns=tuple(turns), system="\n".join(system))


def _from_conversations(row: Mapping[str, Any]) -> Conversation:
    turns = []
    for number, turn in enumerate(_turns(row, "conversations")):
        label = turn.get("label")
        if label is not None and not isinstance(label, str):
            raise Problem(
                "R036", f"turn {number + 1}: `label` is {type(label).__name__}, expected text or null"
            )
        turns.append(Turn(_text(turn, "from", number), _text(turn, "value", number), label))
    kind = row.get("type") or ""
    if kind and kind not in TYPES:
        raise Problem("R036", f"`type` is `{kind}`, expected {' or '.join(TYPES)} or nothing")
    system, masked = row.get("system") or "", row.get("mask") or "User"
    if not isinstance(system, str) or not isinstance(masked, str):
        raise Problem("R036", "`system` and `mask` are texts")
    wanted = row.get("label") if kind == "VALUE_TO_TEXT" else None
    wanted = wanted if isinstance(wanted, str) else None  # a list of marks is a judge's
    return Conversation(turns=tuple(turns), system=system, masked=masked, type=kind, label=wanted)


def messages_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The row's conversation as messages with roles system, user, assistant, for jinja2 templates."""
    if "conversations" in row:
        talk = _from_conversations(row)
        if talk.type:
            raise Problem("R036", f"labels (`type: {talk.type}`) need the chat template `extra_id`")
        system = [{"role": "system", "content": talk.system}] if talk.system else []
        return system + [{"role": _role(turn, talk), "content": turn.value} for turn in talk.turns]
    messages = _turns(row, "messages")
    for number, message in enumerate(messages):
        _text(message, "role", number)
        if "tool_calls" not in message:
            _text(message, "content", number)
    return [dict(message) for message in messages]


def said_last(row: Mapping[str, Any]) -> str:
    """The text of the last turn."""
    key, said = _keys(row)
    turns = _turns(row, key)
    return _text(turns[-1], said, len(turns) - 1)


def saying_more(row: Mapping[str, Any], more: str) -> dict[str, Any]:
    """The row with more behind the text of the last turn."""
    key, said = _keys(row)
    return {**row, key: [*row[key][:-1], {**row[key][-1], said: row[key][-1][said] + more}]}


def _keys(row: Mapping[str, Any]) -> tuple[str, str]:
    return ("conversations", "value") if "conversations" in row else ("messages", "content")


def _role(turn: Turn, talk: Conversation) -> str:
    if turn.speaker.lower() in ("system", "tool"):
        return turn.speaker.lower()
    return "user" if turn.speaker == talk.masked or turn.speaker.lower() == "human" else "assistant"


def _turns(row: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    if key not in row:
        keys = ", ".join(map(str, row)) or "nothing"
        raise Problem("R036", f"no `messages` and no `conversations`; the row has {keys}")
    found = row[key]
    if not isinstance(found, list) or not found:
        raise Problem("R036", f"`{key}` is {'empty' if found == [] else 'no list'}, expected a list of turns")
    for number, turn in enumerate(found):
        if not isinstance(turn, Mapping):
            raise Problem(
                "R036", f"turn {number + 1} of `{key}` is {type(turn).__name__}, expected an object"
            )
    return found


def _text(turn: Mapping[str, Any], key: str, number: int) -> str:
    if key not in turn:
        raise Problem(
            "R036", f"turn {number + 1} has no `{key}`; it has {', '.join(map(str, turn)) or 'nothing'}"
        )
    if not isinstance(turn[key], str):
        raise Problem("R036", f"turn {number + 1}: `{key}` is {type(turn[key]).__name__}, expected text")
    return turn[key]
