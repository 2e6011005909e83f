"""Numbers at the end of answers."""

from __future__ import annotations

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
