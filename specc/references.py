"""What `from:` means: which stage of the graph a name leads to, and whether it makes what is asked.

A section of the spec may become several stages. Its name then means the last of them that makes what is
asked for: a model, or rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from specc.diagnostics import Diagnostic
from specc.spec.reading import listed, nearest

if TYPE_CHECKING:
    from specc.graph import Artifact, Stage

ASKED = {"checkpoint": "the model", "rows": "rows"}
"""What is taken from a stage, by the kind of artifact."""


CALL = "call one of them otherwise"


def own(stage: Stage) -> list[Artifact]:
    """What the stage needs of others of this spec."""
    return [artifact for artifact in stage.inputs if not artifact.run]


def resolved(stage: Stage, parts: Mapping[str, Sequence[Stage]]) -> Stage:
    """The stage, asking for stages of the graph; `parts` are those by the names that the spec gives."""
    inputs = tuple(
        artifact
        if artifact.run
        else dataclasses.replace(artifact, stage=_leads_to(artifact.stage, artifact.kind, parts))
        for artifact in stage.inputs
    )
    roles = tuple(dataclasses.replace(role, model=_model(role.model, parts)) for role in stage.roles)
    data = {use: _data(rows, parts) for use, rows in stage.data.items()}
    return dataclasses.replace(stage, inputs=inputs, roles=roles, data=data)


def _leads_to(name: str, kind: str, parts: Mapping[str, Sequence[Stage]]) -> str:
    """The last stage of that name which makes this; the name itself where there is none."""
    made = [part.name for part in parts.get(name, ()) if part.makes == kind]
    return made[-1] if made else name


def _model(model: dict[str, Any], parts: Mapping[str, Sequence[Stage]]) -> dict[str, Any]:
    source = model.get("from")
    if source is None or (isinstance(source, Mapping) and source.get("run")):
        return model
    name = source if isinstance(source, str) else source["stage"]
    return model | {"from": _leads_to(name, "checkpoint", parts)}


def _data(rows: Any, parts: Mapping[str, Sequence[Stage]]) -> Any:
    """A data set, or a list of them."""
    if isinstance(rows, list):
        return [_data(each, parts) for each in rows]
    source = rows.get("from") if isinstance(rows, Mapping) else None
    if not source or source["run"]:
        return rows
    return {**rows, "from": {**source, "stage": _leads_to(source["stage"], "rows", parts)}}


def wrong(
    stage: Stage, stages: Mapping[str, Stage], parts: Mapping[str, Sequence[Stage]]
) -> list[Diagnostic]:
    """Stages that are not there, or make something else than what is asked for."""
    said = []
    for artifact in own(stage):
        given = stages.get(artifact.stage) or next(iter(parts.get(artifact.stage, ())), None)
        if given is None:
            said.append(_unknown(stage, artifact, [name for name in parts if name != stage.name]))
        elif given.makes != artifact.kind:
            said.append(_of_another_kind(stage, artifact, given, parts))
    return said


def _unknown(stage: Stage, artifact: Artifact, others: list[str]) -> Diagnostic:
    near = nearest(artifact.stage, others)
    help = f"did you mean `{near}`?" if near else ""
    if not near and others:
        several = len(others) > 1
        help = f"the other stages are {listed(others)}" if several else f"the other stage is `{others[0]}`"
    if not others:
        help = "use {run: FOLDER, stage: NAME} for a stage of another run"
    message = f"there is no stage `{artifact.stage}` to take {ASKED[artifact.kind]} from"
    return Diagnostic("G001", "error", message, artifact.path, "no such stage", help)


def _of_another_kind(
    stage: Stage, artifact: Artifact, given: Stage, parts: Mapping[str, Sequence[Stage]]
) -> Diagnostic:
    """Rows are asked of what trains, or a model of what makes rows."""
    name = artifact.stage
    if artifact.kind == "rows":
        does = "answers people" if given.makes == "answers" else "trains a model"
        message = f"stage `{name}` {does} and makes no rows"
        label = "makes no rows"
    else:
        does = "answers people" if given.makes == "answers" else "makes rows"
        message = f"stage `{name}` {does} and trains no model"
        label = "makes no model"
    fitting = [
        other
        for other, made in parts.items()
        if any(part.makes == artifact.kind for part in made)
        and not {name, stage.name} & {other, *(part.name for part in made)}
    ]
    what = "make rows" if artifact.kind == "rows" else "train a model"
    none = f"no other stage of this spec would {what}"
    help = f"stages that {what}: {listed(fitting)}" if fitting else none
    return Diagnostic("G004", "error", message, artifact.path, label, help)


def doubled(parts: Mapping[str, Sequence[Stage]], path: Any) -> list[Diagnostic]:
    """Stages of different sections that have one name; `path(name, "")` is a section's prefix."""
    said: list[Diagnostic] = []
    seen: dict[str, str] = {}
    for section, made in parts.items():
        for stage in made:
            other = seen.setdefault(stage.name, section)
            if other == section:
                continue
            message = f"`{section}` and `{other}` both make a stage `{stage.name}`"
            where = path(section, "").rstrip(".")
            said.append(Diagnostic("G005", "error", message, where, "", CALL, of_key=True))
    return said
