"""Responses to a prompt of which one is preferred, and single ones that somebody liked or not.

    pairs       {"prompt", "chosen", "rejected"}, two samples a row, the chosen one first; their labels are
                `chosen_reward` (1 where it is not said) and `rejected_reward` (0)
    verdicts    {"prompt", "response", "preference": "chosen" | "rejected"} or {..., "label": true | false},
                one sample a row; its label is 1 or 0
    generated   what a stage generated, {"output", "source": the row it was asked from}: the chosen response
                is the source's own, the rejected one is the generated one

Texts go through templates, piece by piece, so the tokens of a response do not depend on the prompt. Where
`prompt`, `messages` or `conversations` is a list of turns, a response is a turn or a list of turns, and a
chat template makes the tokens; there the tokens of the prompt have to begin those of the whole, since what
is asked in training is what is asked later. The mark that the assistant speaks belongs to the prompt. Of a
conversation of several answers the last one is learnt.

A pair with a response that is too long is dropped and counted; nothing is cut, since a cut answer is not
what somebody judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runtime import chat
from runtime.conversation import said_last
from runtime.data import hh, prompt_response
from runtime.data.conversations import KEYS, is_conversation
from runtime.data.judged import number, with_asker
from runtime.data.prompt_response import Encoded, Form, kind
from runtime.data.prompts import conversation
from runtime.data.rows import Rows, is_unfinished, of_row
from runtime.problem import Problem

KINDS = ("pairs", "verdicts", "generated")
REWARDS = {"chosen": ("chosen_reward", 1.0), "rejected": ("rejected_reward", 0.0)}
VERDICTS = {"chosen": 1.0, "rejected": 0.0}
EQUAL = "of two equal responses"


@dataclass(frozen=True)
class PreferenceForm:
    """How rows of preferences become tokens."""

    kind: str = "pairs"  # one of KINDS
    format: str = "auto"  # auto | hh; of what was generated: how the source rows are formed
    prompt: str = "{prompt}"
    chosen: str = "{chosen}"
    rejected: str = "{rejected}"
    response: str = "{response}"  # of a verdict; of what was generated: the source row's own response
    seq_length: int = 2048
    truncation: str = "drop"  # drop | error
    add_bos: bool = False
    add_eos: bool = True

    def of(self, response: str, prompt: str | None = None) -> Form:
        """The form of one response with its prompt, which is learnt alone."""
        return Form(
            prompt=self.prompt if prompt is None else prompt,
            response=response,
            seq_length=self.seq_length,
            truncation=self.truncation,
            add_bos=self.add_bos,
            add_eos=self.add_eos,
        )


def preference_form(
    data: Mapping[str, Any], train: Mapping[str, Any], own: Mapping[str, Any]
) -> PreferenceForm:
    """The form from the plan's sections: `data.USE`, which has a `kind`, `train`, and the program's own."""
    named = ("prompt", "chosen", "rejected", "response")
    return PreferenceForm(
        kind=data["kind"],
        format=data.get("format") or "auto",
        seq_length=int(train["seq_length"]),
        truncation=own.get("truncation", "drop"),
        add_bos=own.get("add_bos", False),
        add_eos=own.get("add_eos", True),
        **{name: data[name] for name in named if data.get(name) is not None},
    )


class Preferences:
    """The rows of a data set of preferences as tokens."""

    def __init__(self, rows: Rows, tokenizer: Any, template: str, form: PreferenceForm):
        self.rows, self.tokenizer, self.template, self.form = rows, tokenizer, template, form
        self.group = 1 if form.kind == "verdicts" else 2

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> list[Encoded]:
        """The samples of a row; R010 names a bad one."""
        row, where = self.rows[index], self.rows.where(index)
        if self.form.kind == "verdicts":
            verdict = (verdict_of(row, where),)
            return [replace(self._side(row, "response", where), labels=verdict)]
        read = self._generated if self.form.kind == "generated" else self._pair
        sides = read(row, where)
        if any(side.dropped for side in sides):
            return sides
        check_prompts(sides[0], sides[1], where)
        if list(sides[0].tokens) == list(sides[1].tokens):
            return [Encoded(dropped=EQUAL)] * 2
        return sides

    def _pair(self, row: Mapping[str, Any], where: str) -> list[Encoded]:
        """The chosen response and the rejected one, each with its reward."""
        sides = self._dialogues(row, where) if self.form.format == "hh" else None
        if sides is None:
            sides = [self._side(row, name, where) for name in REWARDS]
        rewards = [(reward_of(row, field, without, where),) for field, without in REWARDS.values()]
        return [replace(side, labels=reward) for side, reward in zip(sides, rewards, strict=True)]

    def _dialogues(self, row: Mapping[str, Any], where: str) -> list[Encoded]:
        """Two dialogues of Anthropic-HH that differ in their last answer."""
        found = hh.compared(row, where)
        if isinstance(found, Encoded):
            return [found, found]
        return self._answers(found[0], found[1:], where)

    def _answers(self, prompt: str, answers: Sequence[str], where: str, last: Any = None) -> list[Encoded]:
        """Two answers to the prompt of a dialogue; `last` is how the second one ended, where that is said."""
        form = self.form.of(" {answer}", "{prompt}")
        ways = (None, last)
        rows = [{"prompt": prompt, "answer": a, "finish": way} for a, way in zip(answers, ways, strict=True)]
        return [prompt_response.encode(row, where, self.tokenizer, form) for row in rows]

    def _side(self, row: Mapping[str, Any], name: str, where: str) -> Encoded:
        """The prompt with the response in field or template `name`."""
        if is_talk(row, name):
            return self._talk(talk_of(row, name, where), where)
        form = self.form.of(getattr(self.form, name))
        return prompt_response.encode(row, where, self.tokenizer, form)

    def _talk(self, row: Mapping[str, Any], where: str) -> Encoded:
        """A conversation, of which the last answer is learnt."""
        row, template, is_open = with_asker(row), self.template, is_unfinished(row)
        asked = conversation(row) or {}
        prompt = of_row(where, lambda: list(chat.prompt(self.tokenizer, asked, template)))
        tokens, mask = of_row(where, lambda: chat.encode(self.tokenizer, row, template, is_open=is_open))
        if is_open and not any(mask[len(prompt) :]):
            return Encoded(dropped=prompt_response.CUT_AND_EMPTY)
        check_begins(list(tokens), prompt, where)
        learnt = [0] * len(prompt) + list(mask[len(prompt) :])
        if not any(learnt[1:]):
            raise Problem("R010", f"{where}: the response is empty")
        if len(tokens) <= self.form.seq_length:
            return Encoded(tokens, learnt)
        if self.form.truncation == "error":
            limit = f"seq_length is {self.form.seq_length}"
            raise Problem("R010", f"{where}: {len(tokens)} tokens, but {limit}; use truncation: drop")
        return Encoded(dropped=f"longer than {self.form.seq_length} tokens")

    def _generated(self, row: Mapping[str, Any], where: str) -> list[Encoded]:
        """The source's own response, and the generated one to the same prompt."""
        source, output, way = row.get("source"), row.get("output"), row.get("finish")
        if not isinstance(source, Mapping) or not isinstance(output, str):
            message = "expected `output` and `source`, as a stage that generates writes them"
            raise Problem("R010", f"{where}: {message}")
        if self.form.format == "hh":
            found = hh.answered(source, where)
            if found is None:
                return [Encoded(dropped=hh.UNLIKE)] * 2
            said = hh.until_question(output)
            sides = self._answers(found[0], (found[1], said), where, way if said == output else "stop")
        elif self.form.format in ("auto", "chat") and conversation(source) is not None:
            if is_conversation(row):  # as a turn, without a text that ended it
                output = of_row(where, lambda: said_last(row))
            own = {**answered(source, output, where), "finish": way}
            sides = [self._talk(source, where), self._talk(own, where)]
        else:
            sides = [
                prompt_response.encode(source, where, self.tokenizer, self.form.of(self.form.response)),
                self._answered({**source, "finish": way}, output, where),
            ]
        rewards = [without for _, without in REWARDS.values()]
        return [replace(side, labels=(reward,)) for side, reward in zip(sides, rewards, strict=True)]

    def _answered(self, source: Mapping[str, Any], output: str, where: str) -> Encoded:
        """The source's prompt with a generated response. Fields are stripped, but a space that the model
        began with is its own: the source's template may have one there, too.
        """
        field = next((f"output{i}" for i in range(len(source) + 1) if f"output{i}" not in source), "output")
        begins = " " * (len(output) - len(output.lstrip(" ")))
        form = self.form.of(begins + "{" + field + "}")
        return prompt_response.encode({**source, field: output}, where, self.tokenizer, form)


# ── one row ──────────────────────────────────────────────────────────────────────────────────────


def reward_of(row: Mapping[str, Any], field: str, without: float, where: str) -> float:
    """A response's reward, or what it is where the row does not say."""
    return without if row.get(field) is None else number(row, field, where)


def verdict_of(row: Mapping[str, Any], where: str) -> float:
    """1 for a response that was liked, else 0."""
    if "preference" in row:
        said = row["preference"]
        if isinstance(said, str) and said in VERDICTS:
            return VERDICTS[said]
        shown = f"`{said}`" if isinstance(said, str) else kind(said)
        raise Problem("R010", f"{where}: `preference` is {shown}, expected `chosen` or `rejected`")
    if isinstance(row.get("label"), bool):
        return float(row["label"])
    if "label" in row:
        raise Problem("R010", f"{where}: `label` is {kind(row['label'])}, expected true or false")
    keys = ", ".join(map(str, row)) or "nothing"
    raise Problem("R010", f"{where}: no `preference` and no `label`; the row has {keys}")


def is_talk(row: Mapping[str, Any], name: str) -> bool:
    """Do turns of a conversation make the prompt or the response?"""
    turns = any(isinstance(row.get(key), list) for key in ("prompt", *KEYS))
    return turns or isinstance(row.get(name), list | Mapping)


def talk_of(row: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The row's history and then the response `name`, as a row of a conversation."""
    key, history = history_of(row)
    if name not in row:
        keys = ", ".join(map(str, row)) or "nothing"
        raise Problem("R010", f"{where}: no field `{name}`; the row has {keys}")
    said = row[name]
    if isinstance(said, str):
        said = turn_of(key or "messages", said, history)
    turns = said if isinstance(said, list) else [said]
    if not turns or not all(isinstance(turn, Mapping) for turn in turns):
        shown = "empty" if said == [] else kind(said)
        raise Problem("R010", f"{where}: `{name}` is {shown}; expected an answer, or turns that end in one")
    key = key or ("messages" if "role" in turns[0] else "conversations")
    if history and turns[: len(history)] == history:  # the response repeats it
        history = []
    rest = {field: row[field] for field in ("system", "mask") if isinstance(row.get(field), str)}
    return {key: [*history, *turns], **rest}


def history_of(row: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The turns before a response, and the key that their form goes by; no key where there are none."""
    for key in (*KEYS, "prompt"):
        turns = row.get(key)
        if isinstance(turns, list) and turns:
            is_messages = isinstance(turns[0], Mapping) and "role" in turns[0]
            return ("messages" if is_messages else "conversations"), turns
    return "", []


def turn_of(key: str, text: str, history: Sequence[Any]) -> dict[str, Any]:
    """An answer as a turn of a conversation of that form."""
    if key == "messages":
        return {"role": "assistant", "content": text}
    speakers = [turn.get("from") for turn in history if isinstance(turn, Mapping)]
    answering = [name for name in speakers[1::2] if isinstance(name, str)]
    return {"from": answering[-1] if answering else "Assistant", "value": text}


def answered(source: Mapping[str, Any], output: str, where: str) -> dict[str, Any]:
    """The source's conversation with another last answer."""
    asked = conversation(source)
    if asked is None:
        raise Problem("R010", f"{where}: `source` holds no conversation")
    key = next(key for key in KEYS if key in asked)
    whole = source.get(key)
    turns = whole if isinstance(whole, list) else asked[key]
    last = turns[-1] if len(turns) > len(asked[key]) else turn_of(key, "", asked[key])
    said = "content" if key == "messages" else "value"
    return {**asked, key: [*asked[key], {**last, said: output}]}


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────


def prompt_tokens(tokens: Sequence[int], mask: Sequence[int]) -> int:
    """Tokens before the first that is learnt."""
    return next((i for i, learnt in enumerate(mask) if learnt), len(tokens))


def check_begins(tokens: Sequence[int], prompt: Sequence[int], where: str) -> None:
    """R010 unless the tokens begin with those of the prompt."""
    if list(tokens[: len(prompt)]) == list(prompt):
        return
    same = next((i for i, (a, b) in enumerate(zip(tokens, prompt, strict=False)) if a != b), len(tokens))
    message = (
        f"the tokens of the prompt are not the first of prompt and response: token {same + 1} of "
        f"{len(prompt)} differs"
    )
    help = "the chat template renders the prompt otherwise when an answer follows"
    raise Problem("R010", f"{where}: {message}; {help}")


def check_prompts(chosen: Encoded, rejected: Encoded, where: str) -> None:
    """R010 unless both responses have one prompt."""
    starts = [list(side.tokens[: prompt_tokens(side.tokens, side.mask)]) for side in (chosen, rejected)]
    if starts[0] != starts[1]:
        raise Problem("R010", f"{where}: the chosen and the rejected response have different prompts")
