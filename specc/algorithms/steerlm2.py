"""SteerLM 2.0: a model of responses with given attributes, fitted to the optimum of two others.

What goes out is one stage of one role. A row of data is a prompt with attributes and several responses, each
with three log-probabilities (`runtime/data/responses.py`); `global_batch` counts such rows, and a micro-batch
responses. Settings of the job:
    steerlm2   responses    of each row
               truncation   of rows with a response that is too long
The role's own `global_batch` is responses per optimizer step: `train.global_batch` x `responses`.

Wang et al. 2024, arXiv:2406.08673, section 5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from specc.graph import Stage, training_role, training_stage
from specc.spec.data import Rows
from specc.spec.section import Section, maths
from specc.spec.stage import TrainingSpec
from specc.spec.units import conflict


class RespondedData(Section):
    """Data sets of responses to one prompt each."""

    train: Rows = maths()
    """Rows to learn from: a prompt, attributes, and responses with their log-probabilities."""

    validation: Rows | None = maths(None)
    """Rows on which loss and distance are measured, and the best checkpoint chosen; left out, none."""


class Steerlm2(Section):
    """What a row holds."""

    responses: int = maths(ge=2, le=10**4)
    """Responses of each row, the same in all of them."""

    truncation: Literal["drop", "error"] = maths("drop")
    """What happens to a row with a response that does not end within `seq_length` tokens: leave it out, or
    stop."""


class Spec(TrainingSpec):
    """SteerLM 2.0."""

    algorithm: Literal["steerlm2"] = maths()
    """`steerlm2`."""

    data: RespondedData = maths()  # type: ignore[assignment]  # other rows than those of one response
    """Rows to learn from, and rows to validate on."""

    steerlm2: Steerlm2 = maths()
    """What a row holds."""

    @model_validator(mode="after")
    def _responses_are_dealt_one_by_one(self) -> Spec:
        if self.train.packing:
            message = "responses are balanced over GPUs by their tokens, not packed into rows of seq_length"
            raise conflict(message, "train.packing", "remove `packing`")
        return self


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage, one role."""
    role = training_role(spec, program="steerlm2")
    role = dataclasses.replace(role, global_batch=spec.train.global_batch * spec.steerlm2.responses)
    stage = training_stage(spec, name, role, settings={"steerlm2": spec.steerlm2.model_dump(mode="json")})
    count = {"responses": spec.steerlm2.responses}  # of generated rows
    data = {use: rows and {**rows, **count} for use, rows in stage.data.items()}
    return [dataclasses.replace(stage, data=data)]


def stands_in(stage: Mapping[str, Any]) -> str:
    """The form of generated rows that take the place of a data set which is not here."""
    return "steerlm2"
