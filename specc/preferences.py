"""What algorithms that learn from preferences build their stages from."""

from __future__ import annotations

import dataclasses
from typing import Any

from specc.graph import Artifact, Stage, StageRole, model_source, rows_data, training_role, training_stage
from specc.spec.data import Rows
from specc.spec.preferences import Reference
from specc.spec.roles import as_data
from specc.spec.stage import TrainingSpec

REFERENCE = "reference"
"""Name of the role."""


def preference_stage(
    spec: TrainingSpec, name: str, program: str, settings: dict[str, Any], kind: str, texts: int
) -> Stage:
    """The stage of an algorithm that learns from rows of `kind`, without its reference."""
    role = training_role(spec, program=program)
    role = dataclasses.replace(
        role,
        texts=texts,
        parallel={**role.parallel, "cp": 1},  # the loss is a function of whole texts
        paths={key: path for key, path in role.paths.items() if key != "cp"},
    )
    stage = training_stage(spec, name, role, settings={program: settings})
    sets = {"train": spec.data.train, "validation": spec.data.validation}
    return dataclasses.replace(stage, data={use: kept(rows, kind) for use, rows in sets.items()})


def kept(rows: Rows | None, kind: str) -> dict[str, Any] | None:
    """A data set as the runtime reads it, with what its rows are."""
    data = rows_data(rows)
    return None if data is None else data | {"kind": kind}


def with_reference(stage: Stage, reference: Reference, passes: int, without: int = 0) -> Stage:
    """The stage with the reference in the processes of the model that learns. A step makes `passes` over its
    rows without gradients where the reference's weights are there, `without` where its numbers are stored.
    """
    [learner] = stage.roles
    own = as_data(reference.model) if reference.model else None
    path = "reference.model" if own else learner.paths["model"]
    swapped = reference.weights == "swap"
    guest = dataclasses.replace(
        learner,
        name=REFERENCE,
        model=own or learner.model,
        trains=False,
        group=learner.name,
        weights=reference.weights,
        passes=passes if swapped else without,
        paths=learner.paths | {"model": path, "weights": "reference.weights"},
    )
    inputs = stage.inputs
    if own and (source := model_source(own)) is not None:
        inputs += (Artifact("checkpoint", *source, path="reference.model.from"),)
    learner = dataclasses.replace(learner, group=learner.name)
    settings = {**stage.settings, learner.program: {**stage.settings[learner.program]}}
    settings[learner.program][REFERENCE] = reference.weights
    roles: tuple[StageRole, ...] = (learner, guest)
    return dataclasses.replace(stage, roles=roles, inputs=inputs, settings=settings)
