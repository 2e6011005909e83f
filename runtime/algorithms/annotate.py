"""Annotation: a model of attributes gives marks to the answers of conversations.

Every turn whose label is not null is judged on the text up to it, without earlier labels, and gets the label
`name:mark,...` in the order of the head; a mark is the head's number, held between 0 and 4, halves to the
even neighbour. Dong et al. 2023 (SteerLM), arXiv:2310.05344, step 2; forms as in the tutorials.

A text of more than `seq_length` tokens has no sound judgement: its conversation is left out and counted,
unless `truncation` says where to cut. (The tutorials' script waits for a field `exceeded` that their server
does not send any more.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.batch import Sample
from runtime.data import steerlm
from runtime.data.judged import JudgedForm, judged_text
from runtime.judges import heard
from runtime.making import check_vocabulary
from runtime.place import made_by
from runtime.problem import Problem

if TYPE_CHECKING:
    from runtime.making import Making


@dataclass(frozen=True)
class Settings:
    """The section `annotate`; what is not said is as the model was trained."""

    seq_length: int = 2048
    truncation: str = "drop"  # drop | left | right
    add_eos: bool | None = None
    add_bos: bool | None = None


@dataclass(frozen=True)
class Asked:
    """A text to be judged: turn `turn` of row `row` of this step."""

    row: int
    turn: int
    sample: Sample


def opening(run: Making) -> JudgedForm:
    """How texts become tokens: as where the model was trained. Problem R016 for a model of one number."""
    if not run.role.model.attributes:
        message = f"model `{run.role.model.name}` has no head of several attributes to give marks with"
        raise Problem("R016", f"{message}; name a stage of algorithm reward with loss: regression")
    settings, trained = run.program_settings(Settings), trained_with(run)
    return JudgedForm(
        format="attributes",
        seq_length=settings.seq_length,
        truncation=settings.truncation,
        add_eos=bool(trained.get("add_eos", True)) if settings.add_eos is None else settings.add_eos,
        add_bos=bool(trained.get("add_bos", False)) if settings.add_bos is None else settings.add_bos,
    )


def trained_with(run: Making) -> Mapping[str, Any]:
    """What the model's stage says of itself in `output.json`; nothing for a model from elsewhere."""
    weights = run.role.model.weights
    if weights.kind not in ("stage", "run"):
        return {}
    folder = made_by({"stage": weights.stage, "run": weights.path}, run.place.run_folder)
    try:
        found = json.loads((folder / "output.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # preflight has seen that it is there
        return {}
    return found if isinstance(found, dict) else {}


def step(run: Making) -> dict[str, Any]:
    """Judge the answers of the next conversations."""
    rows = run.batch()
    wheres = [run.source.where(index) for index in run.indices()]
    with run.part("data"):
        asked, left = texts(rows, wheres, run.tokenizer, run.opened)
        for each in asked:
            check_vocabulary(each.sample.tokens, wheres[each.row], run.role.model.shape.vocab)
    with run.part("forward"):
        outputs = judged(run, [each.sample for each in asked])
    names = run.role.model.attributes
    marks: dict[int, dict[int, dict[str, int]]] = {}
    for each in asked:
        numbers = outputs[each.sample.id]
        given = {name: steerlm.rounded(n) for name, n in zip(names, numbers.tolist(), strict=True)}
        marks.setdefault(each.row, {})[each.turn] = given
    run.put(steerlm.annotated(row, marks.get(i, {})) for i, row in enumerate(rows) if i not in left)
    run.count(read=len(rows), judged=len(asked), dropped_too_long=len(left))
    return {"judged": len(asked), "tokens": sum(each.sample.columns for each in asked)} | means(marks, names)


def texts(
    rows: Sequence[Mapping[str, Any]], wheres: Sequence[str], tokenizer: Any, form: JudgedForm
) -> tuple[list[Asked], set[int]]:
    """The texts to be judged, and the rows that are left out for a text that is too long."""
    asked: list[Asked] = []
    left: set[int] = set()
    for number, (row, where) in enumerate(zip(rows, wheres, strict=True)):
        own: list[Asked] = []
        for turn, text in steerlm.judged_texts(row, where):
            found = judged_text(text, where, tokenizer, form)
            if found.dropped:
                left.add(number)
            own.append(Asked(number, turn, Sample(len(asked) + len(own), found.tokens, found.mask)))
        if number not in left:
            asked += own
    return asked, left


def judged(run: Making, samples: Sequence[Sample]) -> dict[int, np.ndarray]:
    """What the head says at the end of each text [A] fp64, by the sample's id, on every rank; R053."""
    if not samples:
        return {}
    assert run.model is not None
    found = heard(run.model, samples, run.table())
    said = {id: columns[-1].astype(np.float64) for id, columns in found.items()}
    if not all(np.isfinite(numbers).all() for numbers in said.values()):
        raise Problem("R053", "the model of attributes gave a number that is none; its weights are broken")
    return said


def means(marks: Mapping[int, Mapping[int, Mapping[str, int]]], names: Sequence[str]) -> dict[str, float]:
    """The mean mark of each attribute."""
    given = [mark for turns in marks.values() for mark in turns.values()]
    return {name: sum(mark[name] for mark in given) / len(given) for name in names} if given else {}
