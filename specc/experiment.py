"""The root of the language: one experiment, of one stage or of several.

A spec with `algorithm:` at the top is one stage, named after its algorithm; one with `stages:` has several.
Only the algorithms that a spec names are imported. What comes in is a `Source`; what goes out is an
`Experiment` whose stages are frozen sections, or diagnostics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from specc import algorithms
from specc.diagnostics import Diagnostic
from specc.source import Source, join
from specc.spec import reading
from specc.spec.reading import listed, nearest, shown
from specc.spec.section import Section, cosmetic, docs, keys, maths, placement
from specc.spec.units import STAGE, Given, Name, name_like

MOST_STAGES = 500


class Header(Section):
    """What belongs to the whole experiment."""

    name: Name = cosmetic()
    """Name of the experiment, of its run folder and of its jobs."""

    seed: int = maths(1234, ge=0, lt=2**31)
    """Seed of everything random: weights, order of the rows, dropout."""

    cluster: Given | None = placement(None)
    """Cluster profile: a name to be found as `clusters/NAME.yaml`, or a file."""


@dataclass(frozen=True)
class Experiment:
    """A spec whose every value has its type. Stages keep the order of the spec."""

    name: str
    seed: int
    cluster: str | None
    stages: dict[str, Any]  # by name, each the `Spec` of its algorithm
    single: bool
    overrides: tuple[str, ...] = ()
    spec: dict[str, Any] = field(default_factory=dict, compare=False)  # resolved, as plain data

    def path(self, stage: str, inner: str) -> str:
        """Where the spec says a value of a stage: `train.lr`, or `stages.NAME.train.lr`."""
        return inner if self.single else f"stages.{stage}.{inner}"


def check(source: Source) -> tuple[Experiment | None, list[Diagnostic]]:
    """The experiment, or None and everything that is wrong with it, in the order of the text."""
    data = source.data
    single = "stages" not in data
    also = ["stages", "algorithm"] if single and "algorithm" not in data else [] if single else ["stages"]
    inner = {key: value for key, value in data.items() if key not in keys(Header)}
    header = {key: value for key, value in data.items() if key in keys(Header)}
    stages: dict[str, Any] = {}
    if not single:
        header, inner = {key: value for key, value in data.items() if key != "stages"}, {}
    read, said = reading.read(Header, header, source, also=also)
    if single:
        stages, more = _single(inner, source)
    else:
        read, said = _kept_in_stages(read, header, source, said)
        stages, more = _several(data["stages"], source)
    said = reading.in_order([*map(_named_by_file(source), said), *more], source)
    if read is None or said:
        return None, said
    experiment = Experiment(read.name, read.seed, read.cluster, stages, single, source.overrides)
    return replace(experiment, spec=resolved(experiment)), said


def _named_by_file(source: Source) -> Any:
    """A missing name is suggested from the file's."""

    def help(diagnostic: Diagnostic) -> Diagnostic:
        if diagnostic.code != "T005" or diagnostic.path != "name":
            return diagnostic
        stem = Path(source.name).stem.lower().replace("_", "-")
        return replace(diagnostic, help=f"add `name: {stem}`, which names its run folder and its jobs")

    return help


def _kept_in_stages(
    read: Header | None, header: dict[str, Any], source: Source, said: list[Diagnostic]
) -> tuple[Header | None, list[Diagnostic]]:
    """Keys of an algorithm beside `stages:` belong into the stages."""
    known = {key for name in algorithms.names() for key in keys(algorithms.load(name).Spec)} if said else ()
    told = []
    for diagnostic in said:
        if diagnostic.code == "T001" and diagnostic.path in header and diagnostic.path in known:
            help = f"move it into each stage: stages.NAME.{diagnostic.path}"
            message = f"`{diagnostic.path}` belongs to a stage, and this spec has several"
            diagnostic = Diagnostic(
                "T001", "error", message, diagnostic.path, "not at the top level", help, of_key=True
            )
        told.append(diagnostic)
    return read, told


def _single(data: dict[str, Any], source: Source) -> tuple[dict[str, Any], list[Diagnostic]]:
    """The only stage of a spec without `stages:`."""
    if "algorithm" not in data:
        near = nearest_key(data)
        help = f"did you mean `{near[1]}` instead of `{near[0]}`?" if near else _algorithm_help()
        message = "the spec has neither `algorithm` nor `stages`"
        return {}, [
            Diagnostic("T005", "error", message, near[0] if near else "algorithm", help=help, of_key=True)
        ]
    name = data["algorithm"]
    spec, said = _stage(data, "", source)
    return {str(name): spec}, said


def nearest_key(data: dict[str, Any]) -> tuple[str, str] | None:
    """A key that was perhaps meant to be `algorithm` or `stages`."""
    for key in data:
        near = nearest(key, ["algorithm", "stages"])
        if near:
            return key, near
    return None


def _algorithm_help() -> str:
    return (
        f"add `algorithm:`, one of {listed(algorithms.names(), 'or')}"
        if len(algorithms.names()) > 1
        else "add `algorithm: sft`"
    )


def _several(data: Any, source: Source) -> tuple[dict[str, Any], list[Diagnostic]]:
    if not isinstance(data, dict) or not data:
        what = "empty" if not data else shown(data)
        message = f"`stages` is {what}, but must be a section with a key for each stage"
        return {}, [
            Diagnostic("T002", "error", message, "stages", help="e.g. stages: {sft: {algorithm: sft, ...}}")
        ]
    if len(data) > MOST_STAGES:
        message = f"`stages` holds {len(data)} stages, but at most {MOST_STAGES} are planned"
        return {}, [Diagnostic("T004", "error", message, "stages", help="split the spec")]
    stages, said = {}, []
    for name, inner in data.items():
        path = f"stages.{name}"
        said += _bad_stage_name(name, path, source)
        stages[name], more = _stage(inner, path, source)
        said += more
    return stages, said


def _bad_stage_name(name: str, path: str, source: Source) -> list[Diagnostic]:
    if re.fullmatch(STAGE, name):
        return []
    message = f"the stage's name `{name}` must be small letters, digits, `_` and `-`, at most 63"
    near = name_like(name, STAGE)
    help = f"call it `{near}`" if near else "it names a folder, so letters of other alphabets cannot be used"
    return [Diagnostic("T006", "error", message, path, "names a folder", help, of_key=True)]


def _stage(data: Any, path: str, source: Source) -> tuple[Any, list[Diagnostic]]:
    """The `Spec` of a stage at `path` (empty: the top level)."""
    if not isinstance(data, dict):
        message = f"`{path}` is {shown(data)}, but must be a section"
        return None, [
            Diagnostic(
                "T002",
                "error",
                message,
                path,
                "expected a section",
                "e.g. {algorithm: sft, model: ..., data: ...}",
            )
        ]
    name, where = data.get("algorithm"), join(path, "algorithm")
    if "algorithm" not in data:
        message = f"`{path}` has no `algorithm`"
        return None, [Diagnostic("T005", "error", message, where, "needs `algorithm`", _algorithm_help())]
    if name not in algorithms.names():
        near = nearest(name, algorithms.names()) if isinstance(name, str) else ""
        known = listed(algorithms.names(), "or")
        message = f"unknown algorithm {shown(name)}"
        help = f"did you mean `{near}`?" if near else f"use {known}"
        return None, [Diagnostic("T008", "error", message, where, "no such algorithm", help)]
    also = [*keys(Header), "stages"] if not path else []
    return reading.read(algorithms.load(name).Spec, data, source, path, also)


def resolved(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain data, defaults filled in, which `check` reads back as the same experiment."""
    head: dict[str, Any] = {"name": experiment.name, "seed": experiment.seed}
    if experiment.cluster is not None:
        head["cluster"] = experiment.cluster
    stages = {name: _resolved_stage(spec) for name, spec in experiment.stages.items()}
    if experiment.single:
        return head | next(iter(stages.values()))
    return head | {"stages": stages}


def _resolved_stage(spec: Section) -> dict[str, Any]:
    data = spec.model_dump(mode="json", exclude_none=True)
    return {"algorithm": data.pop("algorithm")} | data


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft-07) of a spec, with each field's sentence and tag."""
    from specc.schema import of_experiment

    return of_experiment(Header)


__all__ = ["Experiment", "Header", "check", "docs", "json_schema", "resolved"]
