"""Several responses to one prompt, each with what three models said of it: the rows of SteerLM 2.0.

    {"system": ..., "label": "quality:4,...", "prompt_turns": [{"from": "User", "value": ...}, ...],
     "responses": [{"from": "Assistant", "value": ..., "log(P(a|x,y))": -3.1, "log(P(y|x))": -40.2,
                    "log(Q(y|a,x))": -38.0}, ...]}

a is the label, x the prompt, y the response; the numbers are natural logarithms of probabilities of all of
it. Turns are odd in number and the last one asks; all responses of a data set's rows are as many, and those
of a row have one speaker. A row is as many samples, which stay together; the labels of each are the share w
that the row's optimum gives it and log Q'(y|a,x), the model that made it, less the row's mean of these: only
differences count, and they keep their digits in fp32. Of the text the response is learnt, with the mark that
ends it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime import chat
from runtime.data.conversations import last_run
from runtime.data.judged import as_number
from runtime.data.prompt_response import Encoded
from runtime.data.rows import Rows, of_row
from runtime.problem import Problem

JUDGED, PLAIN, OWN = "log(P(a|x,y))", "log(P(y|x))", "log(Q(y|a,x))"


@dataclass(frozen=True)
class ResponsesForm:
    """How such rows become tokens."""

    responses: int = 1  # of each row
    seq_length: int = 2048
    truncation: str = "drop"  # drop | error


class Responses:
    """The rows of a data set as tokens."""

    def __init__(self, rows: Rows, tokenizer: Any, template: str, form: ResponsesForm):
        self.rows, self.tokenizer, self.template, self.form = rows, tokenizer, template, form
        self.group = form.responses

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> list[Encoded]:
        """The samples of a row; R010 names a bad one."""
        row, where = self.rows[index], self.rows.where(index)
        turns, responses = _listed(row, "prompt_turns", where), _listed(row, "responses", where)
        if len(responses) != self.form.responses:
            message = f"{len(responses)} responses, where every row has {self.form.responses}"
            raise Problem("R010", f"{where}: {message}; say steerlm2.responses")
        asker = _check_speakers(turns, responses, where)
        numbers = [_numbers(response, f"{where}, response {i + 1}") for i, response in enumerate(responses)]
        shares = softmax([judged + plain - own for judged, plain, own in numbers])
        middle = sum(own for _, _, own in numbers) / len(numbers)
        return [
            self._encoded(_conversation(row, turns, response, asker), where, (share, own - middle))
            for response, share, (_, _, own) in zip(responses, shares, numbers, strict=True)
        ]

    def _encoded(self, talk: Mapping[str, Any], where: str, labels: tuple[float, float]) -> Encoded:
        tokens, mask = of_row(where, lambda: chat.encode(self.tokenizer, talk, self.template))
        if len(tokens) > self.form.seq_length:
            if self.form.truncation == "error":
                message = f"{len(tokens)} tokens, but seq_length is {self.form.seq_length}"
                raise Problem("R010", f"{where}: {message}")
            return Encoded(dropped=f"longer than {self.form.seq_length} tokens")
        return Encoded(list(tokens), last_run(mask), labels=labels)


def softmax(numbers: Sequence[float]) -> list[float]:
    """Of numbers of any size."""
    largest = max(numbers)
    powers = [math.exp(number - largest) for number in numbers]
    return [power / sum(powers) for power in powers]


def _listed(row: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    found = row.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(each, Mapping) for each in found):
        keys = ", ".join(map(str, row)) or "nothing"
        raise Problem("R010", f"{where}: expected a list of objects `{key}`; the row has {keys[:200]}")
    return found


def _check_speakers(
    turns: Sequence[Mapping[str, Any]], responses: Sequence[Mapping[str, Any]], where: str
) -> str:
    """Who asks, when it is he who speaks last and somebody else who responds."""
    asker = turns[-1].get("from")
    others = {str(response.get("from")) for response in responses}
    if not isinstance(asker, str) or len(turns) % 2 == 0:
        message = f"{len(turns)} turns, the last from `{asker}`; expected an odd number, the last one asks"
        raise Problem("R010", f"{where}: {message}")
    if len(others) > 1 or asker in others:
        speakers = ", ".join(f"`{name}`" for name in sorted(others))
        raise Problem("R010", f"{where}: responses are from {speakers}; expected one other than `{asker}`")
    return asker


def _numbers(response: Mapping[str, Any], where: str) -> tuple[float, float, float]:
    absent = next((key for key in (JUDGED, PLAIN, OWN) if key not in response), None)
    if absent is not None:
        raise Problem("R010", f"{where}: no `{absent}`")
    judged, plain, own = (as_number(response[key], f"`{key}`", where) for key in (JUDGED, PLAIN, OWN))
    return judged, plain, own


def _conversation(
    row: Mapping[str, Any], turns: Sequence[Mapping[str, Any]], response: Mapping[str, Any], asker: str
) -> dict[str, Any]:
    label = row.get("label")
    answer = {"from": response.get("from"), "value": response.get("value"), "label": label}
    before = [{key: turn[key] for key in ("from", "value", "label") if key in turn} for turn in turns]
    talk = {"system": row.get("system") or "", "mask": asker, "conversations": [*before, answer]}
    return talk if label is None else {**talk, "type": "VALUE_TO_TEXT"}
