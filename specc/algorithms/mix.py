"""Rows of several sources as one.

What goes out is one stage of a clerk. Settings of the job: `mix: {}`.
Data: `sources`, a list of data sets, each with `limit` (rows from its front, or null) and `weight` (a number,
or null for all of them); one that is repeated stands there several times.
Rows: as they were. Without weights the sources follow one another, and none is left out. With weights they
alternate, so that after any number of rows each has had its share; there are as many rows as in all of them,
and a source that runs out begins again.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import model_validator

from specc.graph import Stage
from specc.makers import clerk, rows_stage
from specc.spec.data import Rows
from specc.spec.making import MakingSpec, agreeing_weights
from specc.spec.section import Many, Section, maths
from specc.spec.units import conflict


class Part(Rows):
    """Rows of one source; text alone is their path."""

    repeat: int = maths(1, ge=1, le=1000)
    """How often the rows are taken, one time after the other."""

    weight: float | None = maths(None, gt=0, le=10**6)
    """Share among all rows, relative to the other weights: as many rows as in all sources, by turns, and one
    that runs out begins again. Where none has one, the sources follow one another."""


class Sources(Section):
    """What is mixed."""

    sources: Many[Part] = maths(min_length=1)
    """Data sets, in order."""

    @model_validator(mode="after")
    def _weights_agree(self) -> Sources:
        agreeing_weights(self.sources, "sources")
        for number, part in enumerate(self.sources):
            if part.weight is not None and part.repeat > 1:
                message = "a source has a `weight` or a `repeat`, not both"
                raise conflict(message, f"sources[{number}].repeat", "use a larger weight")
        return self


class Spec(MakingSpec):
    """Rows of several sources as one."""

    algorithm: Literal["mix"] = maths()
    """`mix`."""

    data: Sources = maths()
    """What is mixed."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage of a clerk."""
    stage = rows_stage(spec, name, clerk("mix"), {}, {"sources": spec.data.sources})
    entries = [entry for entry in stage.data["sources"] for _ in range(entry.pop("repeat"))]
    return [dataclasses.replace(stage, data={"sources": entries})]
