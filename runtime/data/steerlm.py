"""SteerLM's rows: conversations whose answers carry marks, as chat rows and as texts for a judge.

    {"system": SYSTEM, "mask": "User", "type": "VALUE_TO_TEXT", "conversations": [
        {"from": "User", "value": "Hi!", "label": null},
        {"from": "Assistant", "value": "Hello.", "label": "helpfulness:4,verbosity:1"}]}

A label is `name:number` joined by commas; null says that nobody judges the turn, and an empty one that
nobody did so yet. What a judge reads of an answer is the conversation up to it, without earlier labels and
with the one system sentence of SteerLM whatever the row's own, and then the mark after which a label would
follow: `{"text": ..., "label": [nine numbers, -100 where there is none]}`.

Dong et al. 2023, arXiv:2310.05344; forms as in the tutorials. Pure functions of one row, without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runtime.conversation import conversation_of
from runtime.data.rows import is_unfinished
from runtime.problem import Problem

OPEN_ASSISTANT = ("quality", "toxicity", "humor", "creativity")
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
ATTRIBUTES = (*OPEN_ASSISTANT, *HELPSTEER)
"""In the order of a label and of a judge's numbers."""

MISSING = -100.0
"""A mark that nobody gave; as `runtime.data.judged` has it, which needs a tokenizer."""

LOWEST, HIGHEST = 0, 4

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

USER, ASSISTANT = "User", "Assistant"
HEADER, TURN, LABEL = "<extra_id_0>System\n", "<extra_id_1>", "<extra_id_2>"


def record(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A conversation in the tutorials' form."""
    return {"conversations": list(turns), "system": SYSTEM, "mask": USER, "type": "VALUE_TO_TEXT"}


def turn(speaker: str, value: str, label: str | None = None) -> dict[str, Any]:
    """One turn of it."""
    return {"value": value, "from": speaker, "label": label}


# ── labels ───────────────────────────────────────────────────────────────────────────────────────


def line_of(marks: Mapping[str, int]) -> str:
    """`helpfulness:4,verbosity:1`, in the order given."""
    return ",".join(f"{name}:{mark}" for name, mark in marks.items())


def marks_of(line: str, where: str) -> dict[str, float]:
    """The marks of a label by name; R010 says what is none."""
    marks: dict[str, float] = {}
    for part in line.split(","):
        name, colon, text = part.partition(":")
        name = name.strip()
        if not colon or not name or name in marks:
            said = "names an attribute twice" if name in marks else "is no list `name:number,...`"
            raise Problem("R010", f"{where}: the label `{shortened(line)}` {said}")
        marks[name] = _finite(text, f"`{name}` of the label", where)
    return marks


def marks_of_answer(row: Mapping[str, Any], where: str) -> dict[str, float]:
    """The marks of the last answer; none where it has no label."""
    talk = _talk(row, where)
    last = next((said for said in reversed(talk.turns) if said.speaker != talk.masked), None)
    return marks_of(last.label, where) if last and last.label else {}


def rounded(prediction: float) -> int:
    """A judge's number as a mark: held between 0 and 4, halves to the even neighbour."""
    return round(min(float(HIGHEST), max(float(LOWEST), float(prediction))))


def numbers(marks: Mapping[str, float], attributes: Sequence[str], where: str) -> list[float]:
    """A number for each attribute, MISSING where there is none; R010 for a mark that has no place."""
    unknown = next((name for name in marks if name not in attributes), None)
    if unknown is not None:
        known = ", ".join(attributes)
        raise Problem("R010", f"{where}: the label has `{unknown}`, which is none of {known}")
    return [float(marks.get(name, MISSING)) for name in attributes]


# ── what a judge reads ───────────────────────────────────────────────────────────────────────────


def judged_texts(row: Mapping[str, Any], where: str) -> Iterator[tuple[int, str]]:
    """The text that a judge reads of each turn with a label, empty or not, and the turn's number from 0."""
    talk = _talk(row, where)
    text = f"{HEADER}{SYSTEM}\n"
    for number, said in enumerate(talk.turns):
        speaker = USER if said.speaker == talk.masked else ASSISTANT
        text += f"{TURN}{speaker}\n{said.value}\n"
        if said.label is not None:
            yield number, text + LABEL


def regression(
    row: Mapping[str, Any], where: str, attributes: Sequence[str] = ATTRIBUTES
) -> Iterator[dict[str, Any]]:
    """A row for each turn that somebody gave marks to."""
    talk = _talk(row, where)
    for number, text in judged_texts(row, where):
        label = talk.turns[number].label
        if label:
            marks = marks_of(label, f"{where}, turn {number + 1}")
            yield {"text": text, "label": numbers(marks, attributes, where)}


def annotated(row: Mapping[str, Any], marks: Mapping[int, Mapping[str, int]]) -> dict[str, Any]:
    """The row with other labels: of each turn number, marks by attribute."""
    turns = [
        {**said, "label": line_of(marks[number])} if number in marks else dict(said)
        for number, said in enumerate(row["conversations"])
    ]
    return {**row, "conversations": turns}


# ── asking with a label, and what was answered ───────────────────────────────────────────────────


def asked(row: Mapping[str, Any], line: str, where: str) -> dict[str, Any]:
    """The row without the answer that ends it, and the label that the next one is to have."""
    talk = _talk(row, where)
    turns = list(row["conversations"])
    if talk.turns[-1].speaker != talk.masked:
        turns = turns[:-1]
    if not turns:
        raise Problem("R010", f"{where}: the conversation asks nothing")
    kept = {"system": row.get("system") or "", "mask": talk.masked, "type": "VALUE_TO_TEXT"}
    return {"conversations": turns, **kept, "label": line}


def answered(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row of generated data as a conversation: what was asked, the answer, and the label it was to have.

    The mark with which an answer ends, and the line break before it, are the template's and not the answer's.
    An answer that was cut says so here too.
    """
    source, output = row.get("source"), row.get("output")
    if not isinstance(source, Mapping) or not isinstance(output, str):
        raise Problem("R010", f"{where}: expected `source` and a text `output`, as `generate` leaves them")
    label = source.get("label")
    ask = asked(source, label if isinstance(label, str) else "", where)
    said = turn(ASSISTANT, output.split(TURN, 1)[0].removesuffix("\n"), ask.pop("label"))
    ended = {"finish": row["finish"]} if is_unfinished(row) else {}
    return {**ask, "conversations": [*ask["conversations"], said], **ended}


# ── rows that are no such rows ───────────────────────────────────────────────────────────────────


def text_of(row: Mapping[str, Any], key: str, where: str) -> str:
    """A field that holds text; R010 when it does not."""
    if key not in row:
        keys = ", ".join(map(str, row)) or "nothing"
        raise Problem("R010", f"{where}: no field `{key}`; the row has {shortened(keys, 200)}")
    if not isinstance(row[key], str):
        raise Problem("R010", f"{where}: `{key}` is {type(row[key]).__name__}, expected text")
    return row[key]


def whole(value: Any, what: str, where: str, lowest: int = LOWEST, highest: int = HIGHEST) -> int:
    """A whole number within bounds; R010 says what stands in its place."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value != value or not lowest <= value <= highest or value != int(value):
        expected = f"a whole number between {lowest} and {highest}"
        raise Problem("R010", f"{where}: {what} is `{shortened(repr(value))}`, expected {expected}")
    return int(value)


def shortened(text: str, most: int = 60) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= most else text[: most - 3] + "..."


def _finite(text: str, what: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise Problem("R010", f"{where}: {what} is `{shortened(text)}`, expected a number")
    return value


def _talk(row: Mapping[str, Any], where: str) -> Any:
    if not isinstance(row.get("conversations"), list):
        keys = ", ".join(map(str, row)) or "nothing"
        raise Problem("R010", f"{where}: expected a list `conversations`; the row has {shortened(keys, 200)}")
    try:
        return conversation_of(row)
    except Problem as problem:
        raise Problem("R010", f"{where}: {problem.message}") from None
