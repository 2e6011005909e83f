"""HelpSteer, HelpSteer2 and HelpSteer2-Preference as conversations with marks.

    HelpSteer, HelpSteer2     {"prompt": ..., "response": ..., "helpfulness": 3, ..., "verbosity": 2}
    HelpSteer2-Preference     {"prompt": ..., "response_1": ..., "response_2": ..., "preference_strength": -2,
                               "split": "train" | "val"}

A preference becomes two conversations that follow one another, both with the label `quality:STRENGTH`: from
-3, the first is much better, to 3, the second is. Wang et al. 2023, arXiv:2311.09528; Wang et al. 2024,
arXiv:2406.08673 and arXiv:2410.01257; forms as in the tutorials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtime.data.steerlm import ASSISTANT, HELPSTEER, USER, line_of, record, text_of, turn, whole
from runtime.problem import Problem

STRONGEST = 3
SPLITS = {"train": "train", "val": "validation", "validation": "validation"}


def conversation(row: Mapping[str, Any], where: str, attributes: Sequence[str] = HELPSTEER) -> dict[str, Any]:
    """The row with its marks, or some of them."""
    absent = next((name for name in attributes if name not in row), None)
    if absent is not None:
        raise Problem("R010", f"{where}: no mark `{absent}`; the row has {', '.join(map(str, row))}")
    marks = {name: whole(row[name], f"`{name}`", where) for name in attributes}
    return _answered(row, "response", line_of(marks), where)


def preference(row: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Both responses, each with the strength of the preference."""
    if "preference_strength" not in row:
        keys = ", ".join(map(str, row)) or "nothing"
        raise Problem("R010", f"{where}: no `preference_strength`; the row has {keys}")
    strength = whole(row["preference_strength"], "`preference_strength`", where, -STRONGEST, STRONGEST)
    line = line_of({"quality": strength})
    return [_answered(row, key, line, where) for key in ("response_1", "response_2")]


def split_of(row: Mapping[str, Any], where: str) -> str:
    """The split that a preference belongs to: train or validation."""
    split = row.get("split")
    if split not in SPLITS:
        raise Problem("R010", f"{where}: `split` is `{split}`, expected train or val")
    return SPLITS[split]


def _answered(row: Mapping[str, Any], response: str, line: str, where: str) -> dict[str, Any]:
    return record(
        [
            turn(USER, text_of(row, "prompt", where)),
            turn(ASSISTANT, text_of(row, response, where), line),
        ]
    )
