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
from specc import inputs, planner, source
from specc.diagnostics import Diagnostic, Origin, Span, has_errors
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
        return not has_errors(self.diagnostics)

    def after(self, said: Sequence[Diagnostic], **values: object) -> Compilation:
        """This compilation, one arrow further."""
        return replace(self, diagnostics=(*self.diagnostics, *said), **values)  # type: ignore[arg-type]


def compile_spec(
    path: str | Path,
    overrides: Sequence[str] = (),
    cluster: str | None = None,
    tiny: bool = False,
    here: bool = False,
) -> Compilation:
    """Compile the spec at `path`, as far as it is sound.

    `overrides` are `a.b=c` as given to --set; `cluster` is a profile's name or file and wins over the
    spec's own; `tiny` makes the tiny twin; `here` plans for this machine, where what is absent is an error.
    Raises OSError when the file cannot be opened.
    """
    folder = Path(path).resolve().parent
    text, said = source.read(path)
    done = _typed(Compilation(text, diagnostics=tuple(said)), overrides)
    if done.experiment and tiny:
        from specc import tiny as tinies

        resolved = experiments.resolved(done.experiment)
        twin = tinies.changes(resolved, folder, overrides)
        said = list(tinies.twin_words.stand_ins(twin, resolved, folder))
        done = _typed(Compilation(text), [*overrides, *twin]).after(said)
    if (experiment := done.experiment) is None:
        return done

    graph, said = graphs.lower(experiment)
    done = done.after([*said, *inputs.check(experiment, folder, strict=here)], graph=graph)
    profile, name, said = clusters.find_profile(cluster or experiment.cluster, folder)
    if cluster:
        said = [replace(d, span=d.span or _of_flag("--cluster", cluster)) for d in said]
    if here and (tiny or profile is None or profile.scheduler != "none"):
        from specc import machine

        profile, name, said = machine.profile([] if tiny else machine.gpus())
    done = done.after(said, profile=profile)
    if profile is None or not done.fine:
        return done

    plan, said = planner.plan(graph, profile, name, folder)
    said = [_in_profile(d, cluster or experiment.cluster, folder) for d in said]
    done = done.after(said, plan=plan)
    if here and plan:
        from specc import machine

        done = done.after(machine.shortage(plan, machine.free_gib()))
    return done


def _in_profile(diagnostic: Diagnostic, name: str | None, folder: Path) -> Diagnostic:
    """What the planner says about `cluster.gpus.type` is said of the profile's text, at `gpus.type`."""
    path = diagnostic.path.removeprefix("cluster.")
    if path == diagnostic.path:
        return diagnostic
    return replace(diagnostic, span=clusters.span_in(name, folder, path))


def _of_flag(flag: str, value: str) -> Span:
    """The place of what was said on the command line."""
    start = len(flag) + 2
    return Span(1, start, 1, start + len(value), Origin(flag, f"{flag} {value}"))


def _typed(done: Compilation, overrides: Sequence[str]) -> Compilation:
    """From text to an experiment whose every value has its type; None when there is an error."""
    if not done.fine:
        return done
    changed, said = source.with_overrides(done.source, overrides)
    done = done.after(said, source=changed)
    if not done.fine:
        return done
    experiment, said = experiments.check(changed)
    return done.after(said, experiment=experiment)
