"""Numbers at the end of answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from runtime.verifiers import final_number, gsm8k


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 apples and 4 pears: 7.", "7"),
        ("... so 1,250 dollars\n#### 1,250", "1250"),
        ("#### $18.00", "18"),
        ("it costs $3.50", "3.5"),
        (r"thus \boxed{-12} of 40", "-12"),
        ("#### 5\nor rather\n#### 6 and not 7", "7"),
        ("3 - 5 = -2", "-2"),
        ("a half is .5", "0.5"),
        ("nothing", None),
        ("####", None),
        ("", None),
    ],
)
def test_the_number_a_text_comes_to(text: str, number: str | None) -> None:
    found = final_number(text)
    assert (None if found is None else float(found)) == (None if number is None else float(number))


def test_a_response_is_right_or_wrong() -> None:
    row = {"question": "?", "answer": "2 + 2 = 4\n#### 4"}
    assert gsm8k("?", "I think it is 4.0", row) == 1.0
    assert gsm8k("?", "4, no, 5", row) == 0.0
    assert gsm8k("?", "no idea", row) == 0.0


def test_a_row_without_an_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="holds no number"):
        gsm8k("?", "4", {"question": "?"})


# ── real answers ─────────────────────────────────────────────────────────────────────────────────

PROBLEMS = Path(__file__).with_name("problems.jsonl")
SHARED = Path(os.environ.get("SPECC_SHARED", Path(__file__).parents[3] / "shared")) / "data"
LABELS = {"gsm8k": ("question", "answer"), "svamp": ("ID", "Answer"), "judged": ("solutions",)}


def problems(kind: str) -> list[dict[str, Any]]:
    """Rows of the data sets themselves; all of them where they are on this machine, else some."""
    lines = PROBLEMS.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if not line.startswith("#")]
    found = [row for row in rows if all(name in row for name in LABELS[kind])]
    if kind == "gsm8k":
        found = [row for row in found if "solutions" not in row]
        found += _whole("gsm8k/test.jsonl")
    if kind == "svamp" and (SHARED / "svamp").is_dir():
        found += json.loads((SHARED / "svamp" / "SVAMP.json").read_text(encoding="utf-8"))
    if kind == "judged":
        for row in _whole("gsm8k-model-solutions/example_model_solutions.jsonl"):
            said = [[each["solution"], each["is_correct"]] for each in row.values() if isinstance(each, dict)]
            found.append({"question": row["question"], "answer": row["ground_truth"], "solutions": said})
    return found


def _whole(name: str) -> list[dict[str, Any]]:
    if not (SHARED / name).is_file():
        return []
    return [json.loads(line) for line in (SHARED / name).read_text(encoding="utf-8").splitlines()]


def test_gsm8ks_own_answers_are_right_and_one_more_is_wrong() -> None:
    rows = problems("gsm8k")
    assert len(rows) >= 12
    for row in rows:
        worked, number = row["answer"].split("####")
        right = final_number(number)
        assert right is not None
        assert gsm8k(row["question"], row["answer"], row) == 1.0
        assert gsm8k(row["question"], f"{worked} So it is ${right:,f}.", row) == 1.0
        assert gsm8k(row["question"], f"{worked}\n#### {right + 1}", row) == 0.0


def test_svamps_own_answers_are_right_and_one_more_is_wrong() -> None:
    """`Answer` is a number such as 51.0, and what is said of it may be 51."""
    rows = problems("svamp")
    assert len(rows) >= 12
    for row in rows:
        question, right = f"{row['Body']} {row['Question']}", row["Answer"]
        assert gsm8k(question, f"{row['Equation']} = {right:.12g}", row) == 1.0
        assert gsm8k(question, f"The answer is {right:,.2f}", row) == 1.0
        assert gsm8k(question, f"{row['Equation']} = {right + 1:.12g}", row) == 0.0


def test_solutions_of_other_models_are_judged_as_their_publishers_judged_them() -> None:
    rows = problems("judged")
    verdicts = [
        (gsm8k(row["question"], solution, row), float(is_right))
        for row in rows
        for solution, is_right in row["solutions"]
    ]
    assert len(verdicts) >= 32
    assert {is_right for _, is_right in verdicts} == {0.0, 1.0}
    assert [mine for mine, _ in verdicts] == [theirs for _, theirs in verdicts]
