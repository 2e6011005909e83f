"""A reward for each row: from a reward model, from a function, or from a verifier that ships.

What goes out is one stage: of one role that is asked and never learns, or of a clerk where a function
scores. Settings of the job:
    score      function       `module:name` or `builtin:NAME`; "" for a model
               merge          {attribute: weight}; {} where the model's `output.json` says
               standardise    "" for not, "given" (by `mean` and `std`), "model" (by those of the reward
                              model's validation, but for what is given), "rows" (by those of all these rows)
               mean, std      numbers or null
               clip           rewards are held between -clip and clip, after standardising; null for not
               prompt, response   templates of a row's fields; the text is one behind the other
               seq_length, truncation, add_eos, add_bos
               batch          rows of one step, after which they are on the disk
Data: `rows`, as `generate` makes them or of any file whose rows have the templates' fields.
Rows: all that were read, with `reward`, and `attributes` {name: number} where the head has several.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from specc.graph import Stage
from specc.makers import asked_role, clerk, rows_stage
from specc.spec.data import FIELD
from specc.spec.making import AskingSpec, RowsData
from specc.spec.model import Model
from specc.spec.roles import check_function
from specc.spec.section import Many, Section, maths, placement
from specc.spec.units import Given, conflict


class Standardise(Section):
    """What rewards are shifted and scaled by; `true` for `{by: rows}`, text alone is `by`."""

    by: Literal["rows", "model"] | None = maths(None)
    """Mean and deviation of all rows that are scored here (rows), or of the reward model's validation
    (model)."""

    mean: float | None = maths(None)
    """Mean to take out."""

    std: float | None = maths(None, gt=0)
    """Deviation to divide by."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_word(cls, given: Any) -> Any:
        if isinstance(given, bool):
            return {"by": "rows"} if given else {}
        return {"by": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _is_measured_or_given(self) -> Standardise:
        numbers = [key for key in ("mean", "std") if getattr(self, key) is not None]
        if self.by == "rows" and numbers:
            message = f"`{numbers[0]}` is given, and `by` says to measure it here"
            raise conflict(message, numbers[0], "give both mean and std, or only `by`")
        if len(numbers) == 1 and not self.by:
            other = "std" if numbers == ["mean"] else "mean"
            raise conflict(f"`{numbers[0]}` stands alone", numbers[0], f"add `{other}`, or say `by`")
        return self

    @property
    def way(self) -> str:
        """What they are standardised by; empty for not at all."""
        return self.by or ("given" if self.std is not None else "")


class Scoring(Section):
    """The text that is scored, and how rows are dealt with."""

    prompt: str = maths("{input}")
    """Template of the first part of the text that is scored, with a row's fields in braces."""

    response: str = maths("{output}")
    """Template of the other part, which follows without anything between."""

    seq_length: int = maths(4096, ge=2, le=10**8)
    """Tokens of a text at most."""

    truncation: Literal["right", "left", "error"] = maths("right")
    """What happens to a text of more than `seq_length` tokens: cut it at that end, or end the run."""

    add_eos: bool = maths(True)
    """Append the end token to each text and read the score there; it stays where the text is cut."""

    add_bos: bool = maths(False)
    """Put the begin token before each text."""

    batch: int = maths(256, ge=1, le=10**6)
    """Rows that are scored and written together; an interrupted run begins again behind the last that are on
    the disk."""

    micro_batch: int | None = placement(None, ge=1, le=10**6)
    """Rows per GPU at a time; left out, the planner takes the fastest that fits."""

    @model_validator(mode="after")
    def _response_names_a_field(self) -> Scoring:
        if not FIELD.search(self.response):
            message = "the response template names no field of the rows"
            raise conflict(message, "response", 'put a field in braces, e.g. response: "{output}"')
        return self


class Score(Scoring):
    """What becomes of a score."""

    attributes: Many[Given] = maths(())
    """Names of what the model's head says, where it says several numbers and is no stage of this spec."""

    merge: dict[Given, float] = maths({})
    """Weight of each attribute in the reward; those not named weigh 0. Left out, what the reward model was
    trained with, else the mean."""

    standardise: Standardise = maths(Standardise())
    """Take a mean out of rewards and divide them by a deviation: `true` (of all rows scored here), `model`
    (of the reward model's validation), or {mean, std}; left out, neither."""

    clip: float | None = maths(None, gt=0, le=10**9)
    """Rewards are held between -clip and clip, after standardising; left out, they are not."""

    @model_validator(mode="after")
    def _merges_what_there_is(self) -> Score:
        for name in self.merge:
            if self.attributes and name not in self.attributes:
                help = "name it in attributes"
                raise conflict(f"the head has no attribute `{name}`", f"merge.{name}", help)
        return self


class Spec(AskingSpec):
    """A reward for each row."""

    algorithm: Literal["score"] = maths()
    """`score`."""

    model: Model | None = maths(None)  # type: ignore[assignment]  # it may be a function instead
    """Reward model, e.g. `{from: rm}` for a stage that trained one."""

    function: Given | None = maths(None)
    """`module:name` of a function of prompt, response and row that gives a number, instead of a model; or
    `builtin:gsm8k`, which compares the last number of an answer with the row's."""

    data: RowsData = maths()
    """Rows to score."""

    score: Score = maths(Score())
    """What is scored, and what becomes of a score."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Spec:
        if (self.model is None) == (self.function is None):
            what = "both a model and a function" if self.model else "neither a model nor a function"
            raise conflict(f"the reward is {what}", "function" if self.model else "", "give one of the two")
        if self.function is None:
            return self
        check_function(self.function)
        for key in ("nodes", "gpus", "parallel"):
            if getattr(self, key) != type(self).model_fields[key].default:
                message = f"a reward that is a function has no `{key}`"
                raise conflict(message, key, f"remove `{key}`")
        for key in ("attributes", "merge"):
            if getattr(self.score, key):
                message = f"a reward that is a function has no `{key}`"
                raise conflict(message, f"score.{key}", f"remove `{key}`")
        if self.score.standardise.by == "model":
            message = "a function was never validated, so it has no mean and deviation of its own"
            raise conflict(message, "score.standardise", "use standardise: true, or {mean, std}")
        return self


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage, one role: a model, or a clerk that calls the function."""
    said = spec.score
    role = clerk("score", said.batch) if spec.model is None else _asked(spec)
    return [rows_stage(spec, name, role, settings(spec), {"rows": spec.data.rows})]


def _asked(spec: Spec) -> Any:
    said = spec.score
    head = "attributes" if said.attributes else "scalar"
    role = asked_role(spec, program="score", head=head)
    return dataclasses.replace(
        role,
        attributes=said.attributes,
        takes_head=head == "scalar",
        micro_batch=said.micro_batch,
        global_batch=said.batch,
        seq_length=said.seq_length,
        parallel={**role.parallel, "cp": 1},  # a score is read from the whole text
        paths={
            **{key: path for key, path in role.paths.items() if key != "cp"},
            "micro_batch": "score.micro_batch",
            "global_batch": "score.batch",
            "seq_length": "score.seq_length",
        },
    )


def settings(spec: Spec) -> dict[str, Any]:
    """The section as the runtime reads it: flat, everything said."""
    said = spec.score.model_dump(mode="json", exclude={"standardise", "attributes", "micro_batch"})
    by = spec.score.standardise
    return {"function": spec.function or "", **said, "standardise": by.way, "mean": by.mean, "std": by.std}


def smaller(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What a tiny twin has instead; a model that nobody validated knows no mean of its own."""
    said = stage["score"]
    found = {f"score.{key}": value for key, value in few(said).items()}
    model = stage.get("model")
    of_stage = isinstance(model, Mapping) and isinstance(model.get("from"), str)
    if said["standardise"].get("by") == "model" and not of_stage:
        found["score.standardise"] = {"mean": 0.0, "std": 1.0}
    return found


def few(said: Mapping[str, Any]) -> dict[str, Any]:
    """Short texts, few at a time."""
    return {
        "seq_length": min(said["seq_length"], 512),
        "batch": min(said["batch"], 8),
        "micro_batch": None,
    }
