"""Conversations to tokens and a loss mask: which tokens a model is to learn to say.

Two kinds of template. `extra_id` is the tutorials' own: turns between `<extra_id_1>` marks, with
label lines for attribute conditioning. Anything else is jinja2, the tokenizer's or the spec's, run
in a sandbox as transformers runs it.

A template cuts a conversation into pieces, each learnt or not; `Tokenizer.encode_pieces` makes the
tokens, so that no token is half learnt and what a prompt looks like in training is what it looks
like when the model is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from runtime.chat_jinja import JinjaTemplate
from runtime.conversation import Conversation, Turn, conversation_of, said_last, saying_more
from runtime.problem import Problem
from runtime.tokenizer import Tokenizer

Pieces = list[tuple[str, bool]]
"""Text of a conversation from left to right, each with whether it is learnt."""

_GOES_ON = "\ue002\ue003"
"""Stands where an answer was cut, while a template is rendered; two private characters that no text has."""


class Template(Protocol):
    """From a row to pieces; Problem R036 says what is wrong with the row."""

    def pieces(self, row: Mapping[str, Any], specials: Mapping[str, str]) -> Pieces: ...

    def prompt(self, row: Mapping[str, Any], specials: Mapping[str, str]) -> Pieces: ...


def encode(
    tokenizer: Tokenizer, row: Mapping[str, Any], template: str, *, is_open: bool = False
) -> tuple[list[int], list[int]]:
    """Token ids of a conversation, and for each of them 1 when it is to be learnt, else 0.

    `row` has `messages` (role, content) or `conversations` (from, value, label) with `system`,
    `mask`, `type`. `template` is a jinja2 text, the name of a built-in one, or empty for the
    tokenizer's own. The first token is nobody's label, so a conversation of which only that one
    would be learnt is refused too (R036). An answer that was cut at its limit is `is_open`: the text
    stops where it stops, without the marks that would end it; nothing is learnt of an empty one.
    """
    chosen = template_of(template, tokenizer)
    if is_open:
        return _tokens(tokenizer, _open_pieces(chosen, row, tokenizer.specials))
    tokens, mask = _tokens(tokenizer, chosen.pieces(row, tokenizer.specials))
    if not any(mask[1:]):
        raise Problem("R036", "nothing to learn: no turn after the first is an answer")
    return tokens, mask


def prompt(tokenizer: Tokenizer, row: Mapping[str, Any], template: str) -> list[int]:
    """Token ids of a conversation up to where the model speaks next."""
    chosen = template_of(template, tokenizer)
    return _tokens(tokenizer, chosen.prompt(row, tokenizer.specials))[0]


def tail(tokenizer: Tokenizer, template: str) -> str:
    """What a template puts between an answer and the mark that ends it; jinja2 keeps that to itself."""
    chosen = template_of(template, tokenizer)
    return chosen.tokens.end_of_turn if isinstance(chosen, ExtraIdTemplate) else ""


def template_of(name: str, tokenizer: Tokenizer) -> Template:
    """The template that `name` means for this tokenizer; R035 when there is none or it is no jinja2."""
    source = name or tokenizer.chat_template
    if not source:
        raise Problem(
            "R035",
            f"tokenizer `{tokenizer.name}` has no chat template; set `model.chat_template` (say `extra_id`)",
        )
    return _compiled(source)


def jinja_of(name: str) -> str:
    """The jinja2 text of a template that is named, as an export writes it; empty for the tokenizer's own."""
    if not name:
        return ""
    template = _compiled(name)
    return template.as_jinja() if isinstance(template, ExtraIdTemplate) else template.source


@lru_cache(maxsize=16)
def _compiled(source: str) -> ExtraIdTemplate | JinjaTemplate:
    name, _, settings = source.partition(":")
    if name == "extra_id":
        return ExtraIdTemplate(ChatTokens.read(settings))
    if "{" in source:
        return JinjaTemplate(source)
    if source.endswith((".jinja", ".jinja2", ".j2")) and Path(source).is_file():
        return JinjaTemplate(Path(source).read_text(encoding="utf-8"))
    raise Problem("R035", f"there is no chat template `{source}`; use `extra_id`, or jinja2 text or file")


def _tokens(tokenizer: Tokenizer, pieces: Pieces) -> tuple[list[int], list[int]]:
    """Every piece is encoded apart from its neighbours, learnt or not, so turns look alike everywhere."""
    tokens: list[int] = []
    mask: list[int] = []
    groups = tokenizer.encode_pieces([text for text, _ in pieces])
    for ids, (_, learnt) in zip(groups, pieces, strict=True):
        tokens += ids
        mask += [int(learnt)] * len(ids)
    return tokens, mask


def _open_pieces(template: Template, row: Mapping[str, Any], specials: Mapping[str, str]) -> Pieces:
    """The pieces up to where the last turn's words end; none where these say nothing, or are not learnt."""
    if not said_last(row).strip():
        return []
    pieces = template.pieces(saying_more(row, _GOES_ON), specials)
    last = next((i for i in reversed(range(len(pieces))) if _GOES_ON in pieces[i][0]), None)
    if last is None or not pieces[last][1]:
        return []
    return [*pieces[:last], (pieces[last][0].rpartition(_GOES_ON)[0], True)]


# --- the tutorials' template -----------------------------------------------------------------------


@dataclass(frozen=True)
class ChatTokens:
    """The marks between the parts of a conversation; any text will do."""

    system_turn_start: str = "<extra_id_0>"
    turn_start: str = "<extra_id_1>"
    label_start: str = "<extra_id_2>"
    end_of_turn: str = "\n"
    end_of_name: str = "\n"

    @staticmethod
    def read(text: str) -> ChatTokens:
        """From the JSON object after `extra_id:`; R035 names a key that does not exist."""
        if not text:
            return ChatTokens()
        try:
            data = json.loads(text)
        except ValueError as error:
            raise Problem(
                "R035", f"the marks of chat template `extra_id` are no JSON object: {error}"
            ) from None
        known = [f.name for f in fields(ChatTokens)]
        wrong = [k for k in data if k not in known] if isinstance(data, dict) else [text]
        if wrong or not all(isinstance(v, str) for v in data.values()):
            raise Problem(
                "R035", f"chat template `extra_id` has marks {', '.join(known)} (texts), not {wrong or text}"
            )
        return ChatTokens(**data)


@dataclass(frozen=True)
class ExtraIdTemplate:
    """The header, then turns, then one more turn mark:

        <extra_id_0>System\\n{system}\\n
        <extra_id_1>{from}\\n[<extra_id_2>{label}\\n]{value}\\n      a turn
        <extra_id_1>                                            unless the masked role spoke last

    Learnt are the values of the turns that are not the masked role's, with their end mark, and the
    turn mark that follows an answer: it is how the model says that it is done. The first turn is
    context only. With type TEXT_TO_VALUE the label line follows the value and it alone is learnt. A
    prompt ends in the name of who speaks next, and in the row's own `label` line where it has one.
    """

    tokens: ChatTokens = ChatTokens()

    def pieces(self, row: Mapping[str, Any], specials: Mapping[str, str]) -> Pieces:
        talk = conversation_of(row)
        if talk.masked not in [turn.speaker for turn in talk.turns]:
            speakers = ", ".join(dict.fromkeys(turn.speaker for turn in talk.turns)) or "nobody"
            raise Problem("R036", f"the masked role `{talk.masked}` does not speak; {speakers} does")
        pieces = self._header(talk)
        for position, turn in enumerate(talk.turns):
            pieces += self._turn(talk, position, turn)
        if talk.turns[-1].speaker != talk.masked:
            pieces.append((self.tokens.turn_start, True))
        return [piece for piece in pieces if piece[0]]

    def prompt(self, row: Mapping[str, Any], specials: Mapping[str, str]) -> Pieces:
        talk = conversation_of(row)
        answers = [turn.speaker for turn in talk.turns if turn.speaker != talk.masked]
        pieces = self._header(talk)
        for position, turn in enumerate(talk.turns):
            pieces += self._turn(talk, position, turn)
        t = self.tokens
        begun = [t.turn_start, (answers[-1] if answers else "Assistant") + t.end_of_name]
        if talk.label is not None:
            begun.append(t.label_start + talk.label + t.end_of_name)
        return [(text, False) for text in [*(text for text, _ in pieces), *begun] if text]

    def as_jinja(self) -> str:
        """The same for `messages`, for programs that know jinja2 templates only; without labels."""
        t = self.tokens
        a, start, turn_end, name_end = map(
            json.dumps, (t.system_turn_start + "System", t.turn_start, t.end_of_turn, t.end_of_name)
        )
        return (
            "{% set system = messages | selectattr('role', 'equalto', 'system') | map(attribute='content') %}"
            f"{{{{ {a} + {name_end} + (system | join('\\n')) + {turn_end} }}}}"
            "{% for message in messages if message.role != 'system' %}"
            f"{{{{ {start} + (message.role | capitalize) + {name_end} }}}}"
            "{% if message.role == 'assistant' %}"
            f"{{% generation %}}{{{{ message.content + {turn_end} }}}}{{% endgeneration %}}"
            f"{{% else %}}{{{{ message.content + {turn_end} }}}}{{% endif %}}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{{{{ {start} + 'Assistant' + {name_end} }}}}{{% endif %}}"
        )

    def _header(self, talk: Conversation) -> Pieces:
        t = self.tokens
        return [(f"{t.system_turn_start}System{t.end_of_name}{talk.system}{t.end_of_turn}", False)]

    def _turn(self, talk: Conversation, position: int, turn: Turn) -> Pieces:
        t = self.tokens
        name, value = turn.speaker + t.end_of_name, turn.value + t.end_of_turn
        has_label = bool(talk.type) and turn.label is not None
        label = f"{turn.label}{t.end_of_name}"
        if turn.speaker == talk.masked:
            # the mark before a question ends the answer before it
            ends_answer = position > 1 or (position == 1 and talk.type == "TEXT_TO_VALUE")
            answer_learnt = False
        else:
            ends_answer = False
            answer_learnt = position > 0 or talk.type == "TEXT_TO_VALUE"
        start: Pieces = [(t.turn_start, ends_answer), (name, False)]
        if not has_label:
            return [*start, (value, answer_learnt)]
        if talk.type == "VALUE_TO_TEXT":
            return [*start, (t.label_start + label, False), (value, answer_learnt)]
        return [*start, (value, False), (t.label_start, False), (label, answer_learnt)]
