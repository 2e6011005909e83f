"""Published data sets, and rows of other stages, in the form that a later stage reads. A clerk.

    oasst                    trees of OpenAssistant             -> conversations with marks
    helpsteer, helpsteer2    responses with five marks          -> conversations with marks
    helpsteer2_preference    two responses, one better          -> two conversations, one after the other
    hh_comparisons           dialogues of Anthropic-HH          -> {"text"} twice, the better one first
    hh_prompts               the same                           -> {"text"}, which ends in `Assistant:`
    regression               conversations with marks           -> {"text", "label"} of each judged answer
    ask                      conversations                      -> the question, and a label to answer with
    answers                  what was generated to these        -> conversations, with that label
    keep                     conversations with marks           -> those whose last answer has enough

Each form is a pure function of one row (`runtime.data`). A row of another form is refused by file and line;
rows that are left out are counted, in `output.json` and said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.data import helpsteer, hh, oasst, steerlm
from runtime.data.prompt_response import Encoded
from runtime.data.rows import is_unfinished
from runtime.problem import Problem

if TYPE_CHECKING:
    from runtime.making import Making

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """The section `prepare`."""

    form: str
    split: str = "train"  # train | validation, of data sets that are cut up here
    attributes: Sequence[str] = ()  # helpsteer*: those taken; regression: their order; empty: all
    label: Mapping[str, int] = field(default_factory=dict)  # ask: marks that answers are to have
    least: Mapping[str, float] = field(default_factory=dict)  # keep: marks that an answer has at least
    truncated: str = "drop"  # drop | keep: answers that were cut at their limit (answers)


@dataclass(frozen=True)
class Found:
    """What a row gave: rows, or a reason why there are none."""

    rows: Sequence[Row] = ()
    dropped: str = ""


def step(run: Making) -> dict[str, Any]:
    """The next rows of the source, in their new form."""
    settings = run.program_settings(Settings)
    turn = CONVERSIONS[settings.form]
    made = read = 0
    for index in _indices(run, settings):
        found = turn(run.source[index], run.source.where(index), settings)
        read += 1
        made += len(found.rows)
        run.put(found.rows)
        if found.dropped:
            run.count(**{f"dropped_{found.dropped}": 1})
    run.count(read=read)
    return {"read": read, "made": made}


def closing(run: Making, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Say what was left out; a set of which nothing is left is refused. Problem R011."""
    left = {name.removeprefix("dropped_"): n for name, n in run.counts.items() if name.startswith("dropped_")}
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(left.items()))
    run.say(
        f"{run.counts['read']} rows read" + (f", {sum(left.values())} left out ({reasons})" if left else "")
    )
    first = next(rows(), None)
    if first is None:
        raise Problem("R011", f"no row of the source can be used: {reasons or 'it is empty'}")
    return rows()


def _indices(run: Making, settings: Settings) -> Iterator[int]:
    """The rows of the source that this step handles: trees of a split are taken in their shuffled order."""
    if settings.form != "oasst":
        yield from run.indices()
        return
    order = oasst.order(len(run.source), settings.split)
    yield from (order[place] for place in run.indices() if place < len(order))


# ── one row ──────────────────────────────────────────────────────────────────────────────────────


def _trees(row: Row, where: str, settings: Settings) -> Found:
    found = list(oasst.conversations(row, where))
    return Found(found, "" if found else "without_an_answer")


def _marked(row: Row, where: str, settings: Settings) -> Found:
    names = tuple(settings.attributes) or steerlm.HELPSTEER
    return Found([helpsteer.conversation(row, where, names)])


def _preferred(row: Row, where: str, settings: Settings) -> Found:
    if "split" in row and helpsteer.split_of(row, where) != settings.split:
        return Found(dropped="of_the_other_split")
    return Found(helpsteer.preference(row, where))


def _compared(row: Row, where: str, settings: Settings) -> Found:
    found = hh.pair(row, where)
    if isinstance(found, Encoded):
        return Found(dropped=found.dropped.replace(" ", "_"))
    return Found([{"text": side} for side in found])


def _asked(row: Row, where: str, settings: Settings) -> Found:
    found = hh.prompt(row, where)
    return Found(dropped=hh.UNLIKE.replace(" ", "_")) if found is None else Found([{"text": found}])


def _judged(row: Row, where: str, settings: Settings) -> Found:
    names = tuple(settings.attributes) or steerlm.ATTRIBUTES
    found = list(steerlm.regression(row, where, names))
    return Found(found, "" if found else "without_a_mark")


def _conditioned(row: Row, where: str, settings: Settings) -> Found:
    return Found([steerlm.asked(row, steerlm.line_of(settings.label), where)])


def _answered(row: Row, where: str, settings: Settings) -> Found:
    """What was cut at its limit says nothing of how an answer ends, and is left out unless it is wanted."""
    if is_unfinished(row) and settings.truncated == "drop":
        return Found(dropped="cut_at_the_length")
    talk = steerlm.answered(row, where)
    return Found([talk]) if talk["conversations"][-1]["value"].strip() else Found(dropped="empty_answers")


def _kept(row: Row, where: str, settings: Settings) -> Found:
    marks = steerlm.marks_of_answer(row, where)
    unknown = next((name for name in settings.least if name not in marks), None)
    if unknown is not None:
        raise Problem("R010", f"{where}: the last answer has no mark `{unknown}`, of which so much is wanted")
    is_enough = all(marks[name] >= mark for name, mark in settings.least.items())
    return Found([row]) if is_enough else Found(dropped="below_what_is_wanted")


CONVERSIONS: dict[str, Callable[[Row, str, Settings], Found]] = {
    "oasst": _trees,
    "helpsteer": _marked,
    "helpsteer2": _marked,
    "helpsteer2_preference": _preferred,
    "hh_comparisons": _compared,
    "hh_prompts": _asked,
    "regression": _judged,
    "ask": _conditioned,
    "answers": _answered,
    "keep": _kept,
}
