"""Marks for the answers of conversations, by a model of attributes: SteerLM's second step.

What goes out is one stage of one role that is asked and never learns. Settings of the job:
    annotate   seq_length, truncation    of a text that is judged
               add_eos, add_bos          null: as the model was trained
               batch                     conversations of one step, after which they are on the disk
Data: `rows`, conversations. Every turn with a label that is not null gets a new one.
Rows: those that were read with other labels; without those that are too long, unless `truncation` cuts them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from specc.algorithms.reward import STEERLM
from specc.graph import Stage
from specc.makers import asked_role, rows_stage
from specc.spec.making import AskingSpec, RowsData
from specc.spec.section import Many, Section, maths, placement
from specc.spec.units import Given


class Annotate(Section):
    """What the model reads, and how conversations are dealt with."""

    attributes: Many[Given] = maths(())
    """Names of what the model's head says, in its order; left out, those of the stage that trained it, else
    the nine of SteerLM."""

    seq_length: int = maths(4096, ge=2, le=10**8)
    """Tokens of a text at most."""

    truncation: Literal["drop", "left", "right"] = maths("drop")
    """What happens to a text of more than `seq_length` tokens: leave its conversation out, or cut it at that
    end."""

    add_eos: bool | None = maths(None)
    """Append the end token to each text and read the marks there; left out, as the model was trained."""

    add_bos: bool | None = maths(None)
    """Put the begin token before each text; left out, as the model was trained."""

    batch: int = maths(256, ge=1, le=10**6)
    """Conversations that are judged and written together; an interrupted run begins again behind the last
    that are on the disk."""

    micro_batch: int | None = placement(None, ge=1, le=10**6)
    """Texts per GPU at a time; left out, the planner takes the fastest that fits."""


class Spec(AskingSpec):
    """Marks for the answers of conversations."""

    algorithm: Literal["annotate"] = maths()
    """`annotate`."""

    data: RowsData = maths()
    """Conversations to judge."""

    annotate: Annotate = maths(Annotate())
    """What the model reads, and how conversations are dealt with."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage, one role."""
    said = spec.annotate
    comes_along = not said.attributes and spec.model.from_ is not None
    role = asked_role(spec, program="annotate", head="attributes")
    role = dataclasses.replace(
        role,
        attributes=() if comes_along else said.attributes or STEERLM,
        takes_head=comes_along,
        micro_batch=said.micro_batch,
        global_batch=said.batch,
        seq_length=said.seq_length,
        parallel={**role.parallel, "cp": 1},  # a text is judged as a whole
        paths={
            **{key: path for key, path in role.paths.items() if key != "cp"},
            "micro_batch": "annotate.micro_batch",
            "global_batch": "annotate.batch",
            "seq_length": "annotate.seq_length",
        },
    )
    settings = said.model_dump(mode="json", exclude={"attributes", "micro_batch"})
    return [rows_stage(spec, name, role, settings, {"rows": spec.data.rows})]


def stands_in(stage: Mapping[str, Any]) -> str:
    """The form of generated rows that take the place of a data set which is not here."""
    return "steerlm"
