"""The README's table of the tutorials' steps: generated, complete, and each name in it real."""

import itertools
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest
from tutorials import FILES, NO_STEPS, STEPS, table  # pyright: ignore[reportMissingImports]

from specc import experiment as experiments
from specc import graph as graphs
from specc import shipped, source

ROOT = Path(__file__).parent.parent
TEXTS = ROOT.parent / "shared" / "seeds"


@cache
def stages(spec: str) -> list[str]:
    text, _ = source.read(shipped.specs() / f"{spec}.yaml")
    experiment, said = experiments.check(text)
    assert experiment, said
    return [stage.name for stage in graphs.lower(experiment)[0].stages]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.tutorial}-{step.step}"[:60])
def test_a_step_is_done_by_stages_that_there_are(step):
    assert step.stages
    for pattern in step.stages:
        assert any(fnmatchcase(name, pattern) for name in stages(step.spec)), (pattern, stages(step.spec))


def test_the_readme_holds_the_table():
    assert table() in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("tutorial", FILES)
def test_no_step_of_a_tutorial_is_missing(tutorial):
    found = sorted(TEXTS.glob(f"{FILES[tutorial]}*")) if TEXTS.is_dir() else []
    if not found:
        pytest.skip("the tutorials are not at hand")
    headings = headings_of(found[0].read_text(encoding="utf-8"))
    done = [step.heading for step in STEPS if step.tutorial == tutorial and step.heading]
    assert len(headings) >= 3
    assert all(any(line.startswith(heading) for line in headings) for heading in done)
    missing = [line for line in headings if not line.startswith((*done, *NO_STEPS))]
    assert missing == []


def headings_of(text: str) -> list[str]:
    """Lines that are underlined, or that end in the mark of a heading's link."""
    lines = text.splitlines()
    under = itertools.pairwise(lines)
    underlined = [
        line
        for line, below in under
        if len(below) >= 6 and len(set(below)) == 1 and not below[0].isalnum() and below.strip()
    ]
    return [line for line in underlined if line.strip()] + [
        line for line in lines if line.endswith("#") and len(set(line)) > 1
    ]
