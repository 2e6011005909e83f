"""Published data sets, and rows of other stages, in the form that a later stage reads.

What goes out is one stage of a clerk. Settings of the job, each said:
    prepare    form         one of FORMS
               split        train | validation
               attributes   names, in order; [] for the form's own
               label        {attribute: mark}, of `ask`
               least        {attribute: mark}, of `keep`
               truncated    drop | keep, of `answers`
Data: `rows`; a data set that the hub has in splits is asked for the one that the form's split means.
Rows: conversations {conversations, system, mask, type} for oasst, helpsteer, helpsteer2,
helpsteer2_preference (two, one after the other), ask (with `label`), answers and keep; {text, label} for
regression; {text}, two of them, for hh_comparisons; {text} for hh_prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from specc.algorithms.reward import STEERLM
from specc.graph import Stage
from specc.makers import clerk, rows_stage
from specc.spec.data import Rows
from specc.spec.making import ClerkSpec
from specc.spec.reading import listed, nearest
from specc.spec.section import Many, Section, maths
from specc.spec.units import Given, conflict

MARKS = range(5)
"""What an attribute may be."""

SPLIT_HERE = ("oasst", "helpsteer2_preference")
"""Forms whose data set has all rows in one split, which are divided here."""

OF_SPLITS = (*SPLIT_HERE, "helpsteer", "helpsteer2", "hh_comparisons", "hh_prompts")
"""Forms of published data sets."""

HELPSTEER = STEERLM[4:]


class Prepare(Section):
    """What the rows are, and what becomes of them."""

    form: Literal[
        "oasst",
        "helpsteer",
        "helpsteer2",
        "helpsteer2_preference",
        "hh_comparisons",
        "hh_prompts",
        "regression",
        "ask",
        "answers",
        "keep",
    ] = maths()
    """What is made. Of published data: `oasst` (trees), `helpsteer`, `helpsteer2` and `helpsteer2_preference`
    become conversations with marks, `hh_comparisons` and `hh_prompts` texts. Of conversations: `regression`
    makes what a model of attributes learns, `ask` leaves the last answer out and says which marks the next
    is to have, `answers` puts the ones that were generated to these in, `keep` takes those with enough."""

    split: Literal["train", "validation"] | None = maths(None)
    """Which part of a published data set; left out, train."""

    attributes: Many[Given] = maths(())
    """Attributes that are taken (helpsteer, helpsteer2), or the order of the numbers (regression); left out,
    all five of the data set, or the nine of SteerLM."""

    label: dict[Given, int] = maths({})
    """Mark of each attribute that answers are to have, 0 to 4 (ask)."""

    least: dict[Given, float] = maths({})
    """Mark that the last answer has at least, by attribute (keep)."""

    truncated: Literal["drop", "keep"] | None = maths(None)
    """Whether an answer that was cut at its limit is taken (answers); left out, it is dropped."""

    @model_validator(mode="after")
    def _says_what_its_form_needs(self) -> Prepare:
        belongs = {
            "split": OF_SPLITS,
            "attributes": ("helpsteer", "helpsteer2", "regression"),
            "label": ("ask",),
            "least": ("keep",),
            "truncated": ("answers",),
        }
        for key, forms in belongs.items():
            if getattr(self, key) and self.form not in forms:
                help = f"remove `{key}`; it belongs to {listed(forms, 'or')}"
                raise conflict(f"`{key}` says nothing of form {self.form}", key, help)
            if key in ("label", "least") and self.form in forms and not getattr(self, key):
                raise conflict(f"form {self.form} needs `{key}`", key, f"e.g. {key}: {{quality: 4}}")
        if self.form.startswith("helpsteer"):
            known_attributes(self.attributes, HELPSTEER, "attributes")
        marks_are_whole(self.label, "label")
        return self


def known_attributes(names: tuple[str, ...], known: tuple[str, ...], key: str) -> None:
    """Raise for a name that the data set has not."""
    for name in names:
        if name not in known:
            near = nearest(name, known)
            help = f"did you mean `{near}`?" if near else f"there are {listed(known)}"
            raise conflict(f"the data set has no attribute `{name}`", key, help)


def marks_are_whole(label: dict[str, int], key: str) -> None:
    """Raise for a mark that no answer has."""
    for name, mark in label.items():
        if mark not in MARKS:
            raise conflict(f"{mark} is no mark", f"{key}.{name}", "marks are 0, 1, 2, 3 and 4")


class Spec(ClerkSpec):
    """Rows in another form."""

    algorithm: Literal["prepare"] = maths()
    """`prepare`."""

    prepare: Prepare = maths()
    """What the rows are, and what becomes of them."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage of a clerk."""
    said = spec.prepare
    plain = {"split": said.split or "train", "truncated": said.truncated or "drop"}
    settings = said.model_dump(mode="json") | plain
    stage = rows_stage(spec, name, clerk("prepare"), settings, {"rows": spec.data.rows})
    stage.data["rows"].update(_where_it_lies(spec.data.rows, settings))
    return [stage]


def _where_it_lies(rows: Rows, settings: dict[str, Any]) -> dict[str, str]:
    """Split and folder of a published data set, where the spec does not say."""
    form, split = settings["form"], settings["split"]
    found: dict[str, str] = {}
    if rows.from_ is None and rows.split is None and form in OF_SPLITS and form not in SPLIT_HERE:
        found["split"] = "test" if form.startswith("hh") and split == "validation" else split
    if form == "helpsteer2_preference" and rows.path and not rows.subset:
        found["folder"] = "preference"  # of the data set on the hub
    return found


def stands_in(stage: Mapping[str, Any]) -> str:
    """The form of generated rows that take the place of a data set which is not here."""
    form = str(stage["prepare"]["form"])
    return "hh" if form.startswith("hh") else form if form in OF_SPLITS else "steerlm"
