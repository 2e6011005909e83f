"""What algorithms that make rows build their stages from: clerks, and models that are only asked.

A clerk is a role without a model: one plain process that makes rows of rows. Everything it does is said by
`settings[program]`; every stage of this kind has its rows in `data`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from specc.graph import Artifact, Stage, StageRole, model_source, placed_role, rows_data, rows_inputs
from specc.spec.data import Rows
from specc.spec.making import AskingSpec, ClerkSpec, MakingSpec
from specc.spec.roles import as_data
from specc.spec.section import maths_fields

CLERK = "clerk"
"""Name of a role without a model."""

ROWS_AT_A_TIME = 1024
"""Rows that a clerk handles between two shards."""


def clerk(program: str, batch: int = ROWS_AT_A_TIME) -> StageRole:
    """A role without a model; `batch` rows of the source are a step."""
    return StageRole(name=CLERK, program=program, model={}, trains=False, global_batch=batch)


def asked_role(spec: AskingSpec, program: str, head: str = "language") -> StageRole:
    """The role of a model that is only asked; batches and lengths are the algorithm's to add."""
    role = placed_role(spec, "model", program, as_data(spec.model), spec.plan, spec.precision)
    return dataclasses.replace(role, head=head, trains=False)


def rows_stage(
    spec: MakingSpec,
    name: str,
    role: StageRole,
    settings: Mapping[str, Any],
    data: Mapping[str, Rows | Sequence[Rows] | None],
) -> Stage:
    """The stage of an algorithm that makes rows; `data` by use, as it stands in the section `data`."""
    source = model_source(role.model)
    inputs = (Artifact("checkpoint", *source, path="model.from"),) if source else ()
    return Stage(
        name=name,
        algorithm=role.program,
        roles=(role,),
        settings={role.program: dict(settings)},
        data={use: _as_data(rows) for use, rows in data.items()},
        inputs=tuple(dict.fromkeys((*inputs, *rows_inputs(_each(data))))),
        identity=maths_fields(spec),
        time_seconds=spec.time,
        env=dict(spec.env),
        export=False,
        makes="rows",
    )


def clerk_stage(spec: ClerkSpec, name: str, settings: Mapping[str, Any]) -> Stage:
    """The stage of an algorithm that makes rows of rows without a model; its name is the program's."""
    program = str(spec.algorithm)  # type: ignore[attr-defined]  # every algorithm's spec has it
    return rows_stage(spec, name, clerk(program), settings, {"rows": spec.data.rows})


def _as_data(rows: Rows | Sequence[Rows] | None) -> Any:
    if rows is None or isinstance(rows, Rows):
        return rows_data(rows)
    return [rows_data(each) for each in rows]


def _each(data: Mapping[str, Rows | Sequence[Rows] | None]) -> dict[str, Rows | None]:
    """The data sets by where the spec says each; the only one of a list may stand without brackets."""
    found: dict[str, Rows | None] = {}
    for use, rows in data.items():
        if rows is None or isinstance(rows, Rows):
            found[f"data.{use}"] = rows
        else:
            found |= {
                f"data.{use}[{i}]" if len(rows) > 1 else f"data.{use}": each for i, each in enumerate(rows)
            }
    return found
