"""A model as a judge: what it is asked, how its words become a score, and how judgements are compared.

Templates are jinja2 over a few names; patterns are Python's regular expressions with one group. Both are
checked here, so that a run of hours does not end at its first judgement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import model_validator

from specc.spec.section import Section, maths
from specc.spec.units import conflict

SCORE = (
    r"(?i)(?<![^\W_])(?:score|points)[\s*_`]*:[\s*_`<\[]*"
    r"([-+\u2212]?[0-9]+(?:\.[0-9]+)?(?:\s*/\s*[0-9]+(?:\.[0-9]+)?)?)"
    r"(?![^\W_]|[.,][0-9]|\s*[-\u2013/]\s*[0-9])"
)
"""`Score: 4`, also with other spaces, bold, `Points`, a full stop behind it, or as a fraction; with a
sign where there is one, which a scale that begins below 0 needs and any other has no place for."""

WINNER = r"(?i)(?<![^\W_])winner[\s*_`]*:[\s*_`<\[]*judge?ment[\s*_`<\[]*([a-z])(?![^\W_])"
"""`Winner: Judgement A`, likewise."""

RUBRIC = """\
Start from 0 and add one point for each of these that holds:
- The response is about what was asked and says something that is of use, even if it is incomplete or partly beside the point.
- It covers a substantial part of what was asked, though it may not settle it.
- It answers the heart of the question in a useful way, whoever or whatever may have written it.
- It is plainly written as an assistant to the person who asks: direct, complete, well organised and helpful, with little left to improve.
- It is made for this very question by somebody who knows the subject: nothing superfluous, of high quality, and engaging.
"""  # noqa: E501

JUDGE = f"""\
Read a question to an assistant and its response, and give the response points.

{RUBRIC}
<prompt>
{{{{ prompt }}}}
</prompt>

<response>
{{{{ response }}}}
</response>

First give your reasons in at most 100 words. Then end with the sum of the points, in exactly this form:
Score: <total>
"""

META = f"""\
Two judges gave points to the same response of an assistant. Say whose judgement is the better one: the more
accurate, the more consistent in itself, and the closer to the rules that both were given:

{RUBRIC}
<prompt>
{{{{ prompt }}}}
</prompt>

<response>
{{{{ response }}}}
</response>

<judgement_a>
{{{{ judgement_a }}}}
</judgement_a>

<judgement_b>
{{{{ judgement_b }}}}
</judgement_b>

First compare the two in at most 100 words; neither their order nor their length is a merit. Then end with the
better one, in exactly this form:
Winner: Judgement A
or
Winner: Judgement B
"""

LONGEST = 100_000
"""Characters of a template."""


class Judge(Section):
    """The model that judges its own responses, as the paper's additive scale of five points unless said."""

    template: str = maths(JUDGE)
    """Jinja2 text of the question to the judge, with `prompt` and `response`; `low` and `high` are there too.
    It should ask for an end that `pattern` reads."""

    pattern: str = maths(SCORE)
    """Regular expression with one group around the number; its last match in a judgement is the score."""

    low: float = maths(0.0, ge=-(10**6), le=10**6)
    """Lowest score; one below it does not count."""

    high: float = maths(5.0, ge=-(10**6), le=10**6)
    """Highest score; one above it does not count."""

    max_tokens: int | None = maths(None, ge=1, le=10**7)
    """Tokens of a judgement at most; left out, those of a response."""

    temperature: float | None = maths(None, ge=0, le=100)
    """Divisor of the logits of judgements; left out, that of responses."""

    top_p: float | None = maths(None, gt=0, le=1)
    """Probability that the tokens of judgements are sampled from; left out, that of responses."""

    @model_validator(mode="after")
    def _can_be_asked_and_read(self) -> Judge:
        check_template(self.template, "template", ("prompt", "response"), ("low", "high"))
        check_pattern(self.pattern, "pattern", "Score: ([0-9.]+)")
        if self.low >= self.high:
            message = f"the lowest score {self.low:g} is not below the highest, {self.high:g}"
            raise conflict(message, "low", "e.g. low: 0, high: 5")
        return self


class Meta(Section):
    """Judgements that are judged, and learnt from like responses (arXiv:2407.19594)."""

    fraction: float = maths(0.0, ge=0, le=1)
    """Part of the good pairs of responses that pairs of judgements take the place of, at most; bad ones are
    replaced in any case. 0 for none: plain self-rewarding. More than 0.15 tends to make all scores equal."""

    max_share: float = maths(0.4, gt=0, le=1)
    """Part of all pairs of judgements whose better one gives the same score, at most."""

    max_rows: float = maths(0.2, gt=0, le=1)
    """Pairs of judgements at most, as a part of an iteration's rows, dealt evenly to the scores."""

    batch: int = maths(64, ge=1, le=10**7)
    """Responses whose judgements are compared at a time: they wait until there are as many."""

    template: str = maths(META)
    """Jinja2 text of the question, with `prompt`, `response`, `judgement_a` and `judgement_b`, whose scores
    are taken out."""

    pattern: str = maths(WINNER)
    """Regular expression with one group around A or B; its last match is the verdict."""

    @model_validator(mode="after")
    def _can_be_asked_and_read(self) -> Meta:
        names = ("prompt", "response", "judgement_a", "judgement_b")
        check_template(self.template, "template", names, ("low", "high"))
        check_pattern(self.pattern, "pattern", "Winner: Judgement ([AB])")
        return self


def check_template(text: str, key: str, needed: Sequence[str], known: Sequence[str] = ()) -> None:
    """A jinja2 template that uses all that is `needed`, and nothing that is not there."""
    if len(text) > LONGEST:
        raise conflict(f"the template has more than {LONGEST:,} characters", key, "shorten it")
    import jinja2
    import jinja2.meta
    import jinja2.sandbox

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment()
    names = ", ".join(f"{{{{ {name} }}}}" for name in needed)
    try:
        used: set[Any] = jinja2.meta.find_undeclared_variables(environment.parse(text))
        environment.from_string(text)
    except (jinja2.TemplateError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        at = f" (line {line})" if line else ""
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise conflict(f"the template is no jinja2{at}: {said}", key, f"use {names}") from None
    missing = [name for name in needed if name not in used]
    if missing:
        raise conflict(f"the template does not show `{missing[0]}`", key, f"use {names}")
    strange = sorted(used - {*needed, *known, *environment.globals})
    if strange:
        raise conflict(f"the template uses `{strange[0]}`, which is not there", key, f"use {names}")


def check_pattern(text: str, key: str, example: str) -> None:
    """A regular expression with one group."""
    try:
        groups = re.compile(text).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise conflict(f"the pattern is no regular expression: {error}", key, f'e.g. "{example}"') from None
    if groups != 1:
        message = f"the pattern has {groups} groups, but one says what counts"
        raise conflict(message, key, f'put it in parentheses, e.g. "{example}"; others as (?:...)')
