"""What a client says, as the token ids that the model continues.

A steered model (SteerLM) reads the marks that its answer is to have from a label line after the name of the
one who speaks: `<extra_id_2>quality:4,verbosity:0`. In a request they are `attributes`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.answering.asked import BadRequest, Wanted
from runtime.chat import ChatTokens, ExtraIdTemplate, template_of
from runtime.problem import Problem
from runtime.tokenizer import Tokenizer

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

MOST_ATTRIBUTES = 64

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_ \-]{0,63}")


@dataclass(frozen=True)
class Question:
    """A prompt, and the texts by which the model says that its answer is over."""

    tokens: tuple[int, ...]
    ends: tuple[str, ...] = ()  # stop texts of the template; the first one that stands there is cut off
    tail: str = ""  # what the template puts between an answer and its end; cut off with it


@dataclass(frozen=True)
class Prompter:
    """Texts and conversations to prompts of one model."""

    tokenizer: Tokenizer
    template: str  # as the plan says it; empty for the tokenizer's own
    vocab: int  # tokens that both the tokenizer and the model know
    limit: int  # tokens of a prompt and its answer that are taken
    positions: int = 0  # that the model has, where that is more

    def of_text(self, text: str, bos: bool = False, field: str = "prompt") -> Question:
        """A prompt as it stands."""
        ids = self.tokenizer.encode(text)
        if bos:
            if self.tokenizer.bos_id is None:
                raise BadRequest(400, "the tokenizer has no begin token to add", "add_BOS")
            ids = [self.tokenizer.bos_id, *ids]
        return self.of_tokens(ids, field)

    def of_tokens(self, ids: Sequence[int], field: str = "prompt") -> Question:
        """Token ids as they are."""
        if not ids:
            raise BadRequest(400, f"`{field}` is empty; there is nothing to continue", field)
        if (longest := len(ids)) >= self.limit:
            raise BadRequest(400, f"`{field}` has {longest} tokens, {self._bound()}; shorten it", field)
        if strange := [i for i in ids if not 0 <= i < self.vocab]:
            raise BadRequest(
                400, f"`{field}` has token {strange[0]}; ids go from 0 to {self.vocab - 1}", field
            )
        return Question(tuple(ids))

    def clipped(self, wanted: Wanted) -> Wanted:
        """What is wanted, as far as the model has positions."""
        room = self.limit - len(wanted.prompt)
        most = min(wanted.max_tokens, room)
        return dataclasses.replace(wanted, max_tokens=most, min_tokens=min(wanted.min_tokens, most))

    def _bound(self) -> str:
        if self.positions <= self.limit:
            return f"and the model has {self.limit} positions, the answer's included"
        less = f"{self.limit} of the model's {self.positions} positions, the answer's included"
        return f"and this server was started with {less} (--max-length, or max_length in its spec)"

    def of_messages(self, messages: Any, attributes: str | None) -> Question:
        """A conversation up to where the assistant speaks."""
        turns = _turns(messages)
        try:
            template = template_of(self.template, self.tokenizer)
            if isinstance(template, ExtraIdTemplate):
                return self._steered(template, turns, attributes)
            if attributes is not None or any(turn.get("attributes") for turn in turns):
                message = "`attributes` need a model with the chat template `extra_id`"
                raise BadRequest(400, message, "attributes")
            plain = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
            pieces = template.prompt({"messages": plain}, self.tokenizer.specials)
        except Problem as problem:
            if problem.code == "R035":
                advice = "ask /v1/completions, or serve it with --chat-template"
                raise BadRequest(400, f"{problem.message}; {advice}", "messages") from None
            raise BadRequest(400, problem.message, "messages") from None
        return self.of_tokens(self._ids([text for text, _ in pieces]), "messages")

    def _steered(
        self, template: ExtraIdTemplate, turns: list[dict[str, Any]], attributes: str | None
    ) -> Question:
        marks = template.tokens
        said = [turn["content"] for turn in turns if turn["role"] != "assistant"]
        if found := next((mark for mark in _marks(marks) if any(mark in text for text in said)), ""):
            message = f"a message holds `{found}`, which is a mark of the chat template; take it out"
            raise BadRequest(400, message, "messages")
        system = "\n".join(turn["content"] for turn in turns if turn["role"] == "system")
        spoken = [turn for turn in turns if turn["role"] != "system"]
        if not spoken:
            raise BadRequest(400, "`messages` has no message of the user", "messages")
        talk: dict[str, Any] = {
            "system": system,
            "mask": "User",
            "type": "VALUE_TO_TEXT",
            "conversations": [
                {"from": t["role"].capitalize(), "value": t["content"], "label": _label(t, attributes)}
                for t in spoken
            ],
        }
        if attributes is not None:
            talk["label"] = attributes
        pieces = [text for text, _ in template.prompt(talk, self.tokenizer.specials)]
        question = self.of_tokens(self._ids(pieces), "messages")
        return Question(question.tokens, (marks.turn_start,), marks.end_of_turn)

    def _ids(self, pieces: list[str]) -> list[int]:
        groups = self.tokenizer.encode_pieces([piece for piece in pieces if piece])
        return [token for group in groups for token in group]


def _marks(marks: ChatTokens) -> tuple[str, ...]:
    found = (marks.system_turn_start, marks.turn_start, marks.label_start)
    return tuple(mark for mark in found if mark.strip())


def _label(turn: dict[str, Any], attributes: str | None) -> str | None:
    """An earlier answer is taken as given with the request's attributes, unless it says its own."""
    if turn["role"] != "assistant":
        return None
    return turn.get("attributes", attributes)


def attributes_of(said: Any) -> str | None:
    """`quality:4,verbosity:0` from an object or such a text; None where nothing was said."""
    if said is None or said == {} or said == "":
        return None
    if isinstance(said, str):
        pairs = [part.strip().partition(":") for part in said.split(",")]
        said = {name.strip(): value.strip() for name, _, value in pairs}
    if not isinstance(said, dict) or len(said) > MOST_ATTRIBUTES:
        raise BadRequest(400, '`attributes` must be an object such as {"quality": 4}', "attributes")
    return ",".join(f"{_name(name)}:{_mark(name, value)}" for name, value in said.items())


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadRequest(400, f"`attributes` has the name {name[:60]!r}, which is no name", "attributes")
    return name


def _mark(name: str, value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,3}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -100 <= value <= 100:
        message = f"attribute `{name}` must be a whole number such as 4"
        raise BadRequest(400, message, "attributes")
    return value


def _turns(messages: Any) -> list[dict[str, Any]]:
    """Messages with the roles system, user, assistant, and plain text."""
    if not isinstance(messages, list) or not messages:
        raise BadRequest(400, "`messages` must be a list of messages", "messages")
    return [_turn(number, message) for number, message in enumerate(messages)]


def _turn(number: int, message: Any) -> dict[str, Any]:
    where = f"messages[{number}]"
    if not isinstance(message, dict):
        raise BadRequest(400, f"`{where}` must be an object with role and content", where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRequest(400, f"`{where}.role` must be one of {', '.join(ROLES)}", where)
    turn: dict[str, Any] = {"role": ROLES[role], "content": _content(where, message.get("content"))}
    if "attributes" in message:
        turn["attributes"] = attributes_of(message["attributes"])
    return turn


def _content(where: str, content: Any) -> str:
    """A text, or OpenAI's list of parts where all of them are text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [p.get("text") for p in parts if isinstance(p, dict) and p.get("type") == "text"]
    if len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise BadRequest(400, f"`{where}.content` must be text", where)
    return "".join(map(str, texts))
