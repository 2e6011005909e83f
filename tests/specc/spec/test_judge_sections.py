"""What may be said of a judge: templates that show what is judged, patterns with one group."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from specc.spec.judging import JUDGE, META, Judge, Meta


def refused(section: type[Judge] | type[Meta], **given: object) -> str:
    with pytest.raises(ValidationError) as caught:
        section(**given)  # type: ignore[arg-type]
    return caught.value.errors()[0]["msg"]


def test_the_built_in_templates_are_sound() -> None:
    assert Judge().template == JUDGE
    assert Meta().template == META


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ prompt }}", "does not show `response`"),
        ("no names", "does not show `prompt`"),
        ("{{ prompt }} {{ response }} {{ answer }}", "uses `answer`, which is not there"),
        ("{{ prompt }} {{ response", "no jinja2"),
        ("{% if prompt %}{{ response }}", "no jinja2"),
        ("{{ prompt | nosuchfilter }} {{ response }}", "no jinja2"),
        ("{% raw %}{{ prompt }}{% endraw %} {{ response }}", "does not show `prompt`"),
        ("x" * 100_001, "100,000 characters"),
    ],
)
def test_a_template_that_cannot_ask_is_refused(template: str, said: str) -> None:
    assert said in refused(Judge, template=template)


def test_a_template_may_name_the_range() -> None:
    text = (
        "{{ prompt }} {{ response }} from {{ low }} to {{ high }}{% for i in range(3) %}{{ i }}{% endfor %}"
    )
    assert Judge(template=text).template == text


def test_a_question_about_judgements_shows_both() -> None:
    assert "does not show `judgement_a`" in refused(Meta, template=JUDGE)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("Score: [0-9]", "0 groups"), ("(Score): ([0-9])", "2 groups"), ("(", "no regular expression")],
)
def test_a_pattern_has_one_group(pattern: str, said: str) -> None:
    assert said in refused(Judge, pattern=pattern)
    assert said in refused(Meta, pattern=pattern)


def test_a_range_goes_up() -> None:
    assert "not below the highest" in refused(Judge, low=5.0, high=5.0)
