"""The whole pipeline, top to bottom: text -> source -> experiment -> graph -> plan.

Each arrow is one function that gives its value and what it has to say about it; errors stop the
pipeline between two arrows, never inside one. Rendering the plan as scripts is `specc.emit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from specc import experiment as experiments
from specc import graph as graphs
from specc import inputs, planner, source, tiny
from specc.diagnostics import Diagnostic
from specc.experiment import Experiment
from specc.graph import Graph
from specc.plan import Plan
from specc.source import Source
from specc.spec import cluster as clusters
from specc.spec.cluster import Profile


@dataclass(frozen=True)
class Compilation:
    """As far as one spec came: a value is None when an error stopped the pipeline before it."""

    source: Source
    experiment: Experiment | None = None
    graph: Graph | None = None
    profile: Profile | None = None
    plan: Plan | None = None
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def fine(self) -> bool:
        return not any(d.severity == "error" for d in self.diagnostics)

    def after(self, said: Sequence[Diagnostic], **values: object) -> Compilation:
        """This compilation, one arrow further."""
        return replace(self, diagnostics=(*self.diagnostics, *said), **values)  # type: ignore[arg-type]


def compile_spec(
    path: str | Path,
    overrides: Sequence[str] = (),
    cluster: str | None = None,
    *,
    shrink: bool = False,
    strict: bool = False,
) -> Compilation:
    """Compile the spec at `path`, as far as it is sound.

    `overrides` are `a.b=c` as given to --set; `cluster` is a profile's name or file and wins over the
    spec's own; `shrink` makes the tiny twin; `strict` makes absent data an error (`specc run`).
    Raises OSError when the file cannot be opened.
    """
    read, said = source.read(path)
    done = Compilation(read).after(said)
    if not done.fine:
        return done

    read, said = source.with_overrides(read, list(overrides))
    done = done.after(said, source=read)
    if not done.fine:
        return done

    experiment, said = experiments.check(read)
    done = done.after(said, experiment=experiment)
    if experiment is None or not done.fine:
        return done

    folder = Path(path).resolve().parent
    if shrink:
        read, said = tiny.twin(read, experiment, folder)
        experiment, more = experiments.check(read)
        done = done.after([*said, *more], source=read, experiment=experiment)
        if experiment is None or not done.fine:
            return done

    graph, said = graphs.lower(experiment)
    done = done.after(said, graph=graph)
    done = done.after(inputs.check(experiment, folder, strict=strict))
    profile, name, said = clusters.find_profile(cluster or experiment.cluster, folder)
    done = done.after(said, profile=profile)
    if not done.fine:
        return done

    plan, said = planner.plan(graph, profile)
    return done.after(said, plan=plan)
