"""Stages and what flows between them: an experiment after its algorithms have said what they are made of.

A graph is still free of machines: no layout is chosen, no name is looked up, no file is read. Stages stand
in an order in which they can run; each says which artifacts of other stages it needs.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from specc import references
from specc.diagnostics import Diagnostic
from specc.spec.data import Rows
from specc.spec.parallel import Parallel
from specc.spec.planning import Planning
from specc.spec.reading import listed
from specc.spec.section import maths_fields
from specc.spec.stage import TrainingSpec
from specc.spec.train import Train


@dataclass(frozen=True)
class Artifact:
    """Something a stage needs: what a stage of this spec made, or one of another run."""

    kind: str  # checkpoint | rows
    stage: str
    run: str = ""  # the other run's folder; empty for this spec
    path: str = ""  # where the spec asks for it


@dataclass(frozen=True)
class StageRole:
    """One model on its share of a stage's machines, as far as said. None is the planner's to choose."""

    name: str  # model, where it is the only role
    program: str  # a module of runtime/algorithms
    model: dict[str, Any]  # as `specc.models.resolve` takes it; `from` is a stage's name or {run, stage};
    # empty for a clerk, which makes rows of rows without a model
    head: str = "language"
    attributes: tuple[str, ...] = ()  # of a head of several numbers
    texts: int = 1  # of a row: a comparison has two
    passes: int = 0  # forward passes over a row that a step takes beside its training, for this frozen role
    trains: bool = True
    nodes: int | None = None
    gpus: int | None = None  # per node
    parallel: dict[str, Any] = field(
        default_factory=dict
    )  # tp, pp, vp, cp, ep, etp, stage_layers: those said
    micro_batch: int | None = None
    global_batch: int = 1
    seq_length: int = 2048
    precision: str = "bf16"
    recompute: str | None = None
    recompute_layers: int | None = None
    recompute_modules: tuple[str, ...] | None = None
    objective: str | None = None  # which number of nodes is best, where that is open
    max_nodes: int | None = None
    group: str = ""  # the role in whose processes it lives; empty: its own
    weights: str | None = None  # of a frozen role in another's processes: swap | resident
    takes_head: bool = False  # a reward model's head is as the model has it
    offload_optimizer: bool | None = False  # Adam's state on the host while nothing is trained
    prompt_tokens: int = 0  # at most, of rows that are generated
    response_tokens: int = 0
    paths: dict[str, str] = field(default_factory=dict)  # field of this role -> where the spec says it

    @property
    def is_clerk(self) -> bool:
        """Whether it has no model."""
        return not self.model


@dataclass(frozen=True)
class Stage:
    """A unit of work, which becomes one job."""

    name: str
    algorithm: str
    roles: tuple[StageRole, ...]
    settings: dict[str, Any]  # the algorithm's own fields, as the runtime reads them
    data: dict[str, Any]
    inputs: tuple[Artifact, ...] = ()
    identity: dict[str, Any] = field(default_factory=dict)  # maths fields by path within the stage
    time_seconds: int | None = None
    env: dict[str, str] = field(default_factory=dict)
    export: bool | None = None
    placement: str = "hetjob"  # of several groups under Slurm: hetjob | split
    prefix: str = ""  # of its paths: `stages.NAME.`, or empty for the only stage
    makes: str = "checkpoint"  # checkpoint | rows | answers, which nobody can take
    discards: tuple[str, ...] = ()  # stages whose bulky outputs go when this one has finished

    @property
    def generates(self) -> bool:
        """Whether it learns from its own responses, with several roles as a rule."""
        return any(role.trains and role.response_tokens for role in self.roles)

    def path(self, inner: str) -> str:
        """Where the spec says a value of this stage: `train.lr`, or `stages.NAME.train.lr`."""
        return self.prefix + inner


@dataclass(frozen=True)
class Graph:
    """All stages, each after those it needs."""

    name: str
    seed: int
    stages: tuple[Stage, ...]
    spec: dict[str, Any] = field(default_factory=dict)  # resolved
    overrides: tuple[str, ...] = ()

    def stage(self, name: str) -> Stage:
        """The stage of that name; KeyError when there is none."""
        found = {stage.name: stage for stage in self.stages}
        return found[name]


# --- what algorithms build stages from -----------------------------------------------------------------


class Placed(Protocol):
    """What says where a role runs: a stage that trains one model, or a role's own section."""

    @property
    def nodes(self) -> int | None: ...
    @property
    def gpus(self) -> int | None: ...
    @property
    def parallel(self) -> Parallel: ...


def placed_role(
    said: Placed, name: str, program: str, model: dict[str, Any], plan: Planning, precision: str, at: str = ""
) -> StageRole:
    """A role on the machines that `said` names, at the path `at`, without what it trains."""
    parallel = said.parallel.model_dump(mode="json", exclude_none=True)
    layers, modules = parallel.pop("recompute_layers", None), parallel.pop("recompute_modules", None)
    implied = "full" if layers else "selective" if modules else None
    recompute = parallel.pop("recompute", implied)
    sizes = {key: f"{at}parallel.{key}" for key in type(said.parallel).model_fields}
    own = {key: f"{at}{key}" for key in ("model", "nodes", "gpus", "parallel")}
    shared = {"precision": "precision", "objective": "plan.objective", "max_nodes": "plan.max_nodes"}
    return StageRole(
        name=name,
        program=program,
        model=model,
        nodes=said.nodes,
        gpus=said.gpus,
        parallel=parallel,
        precision=precision,
        recompute=recompute,
        recompute_layers=layers,
        recompute_modules=None if modules is None else tuple(modules),
        objective=plan.objective,
        max_nodes=plan.max_nodes,
        paths=own | sizes | shared,
    )


def training_role(spec: TrainingSpec, program: str, name: str = "model", head: str = "language") -> StageRole:
    """The role of an algorithm that trains one model."""
    role = placed_role(spec, name, program, model_data(spec), spec.plan, spec.precision)
    batches = {key: f"train.{key}" for key in ("micro_batch", "global_batch", "seq_length")}
    return dataclasses.replace(
        role,
        head=head,
        micro_batch=spec.train.micro_batch,
        global_batch=spec.train.global_batch,
        seq_length=spec.train.seq_length,
        paths=role.paths | batches,
    )


def model_data(spec: TrainingSpec) -> dict[str, Any]:
    """The model as plain data: what was said and nothing else."""
    said = spec.model.model_dump(mode="json", exclude_none=True)
    return said if isinstance(said, dict) else {"name": said}


def model_source(model: Mapping[str, Any]) -> tuple[str, str] | None:
    """The stage that a model as plain data comes from, and its run; None for one that is there already."""
    source = model.get("from")
    if source is None:
        return None
    return (source, "") if isinstance(source, str) else (source["stage"], source.get("run") or "")


def rows_data(rows: Rows | None) -> dict[str, Any] | None:
    """A data set as the runtime reads it; one that a stage makes has `from` instead of a path."""
    if rows is None:
        return None
    last = ("split", "subset", "limit")
    names = [name for name in type(rows).model_fields if name not in ("path", "from_", *last)]
    said = {"path": rows.path or ""} | {name: getattr(rows, name) for name in (*names, *last)}
    source = rows.from_
    return said | ({"from": {"stage": source.stage, "run": source.run or ""}} if source else {})


def rows_inputs(sets: Mapping[str, Rows | None]) -> tuple[Artifact, ...]:
    """The stages that data sets are taken from; `sets` by where the spec says each."""
    return tuple(
        Artifact("rows", rows.from_.stage, rows.from_.run or "", f"{path}.from")
        for path, rows in sets.items()
        if rows is not None and rows.from_ is not None
    )


def lower_as(spec: Any, name: str, where: Mapping[str, str]) -> Stage:
    """The one stage of a spec that another algorithm made for itself: `where` says, for the first words of a
    path of that spec, where its own spec says the same; what is not named stands at the same path.
    """

    def moved(path: str) -> str:
        first = max((key for key in where if path == key or path.startswith(f"{key}.")), key=len, default="")
        return f"{where[first]}{path[len(first) :]}" if first else path

    [stage] = sys.modules[type(spec).__module__].lower(spec, name)
    roles = tuple(
        dataclasses.replace(role, paths={key: moved(path) for key, path in role.paths.items()})
        for role in stage.roles
    )
    inputs = tuple(dataclasses.replace(a, path=moved(a.path)) for a in stage.inputs)
    return dataclasses.replace(stage, roles=roles, inputs=inputs)


def train_settings(train: Train) -> dict[str, Any]:
    """The section as the runtime reads it; batches are the role's."""
    said = train.model_dump(mode="json", exclude={"micro_batch", "global_batch"})
    said["steps"] = train.steps or 0
    said["epochs"] = train.epochs or (0 if train.steps else 1)
    said["warmup_steps"] = train.warmup
    return said


def training_stage(spec: TrainingSpec, name: str, role: StageRole, settings: Mapping[str, Any]) -> Stage:
    """The stage of an algorithm that trains one model."""
    source = spec.model.from_
    inputs = (Artifact("checkpoint", source.stage, source.run or "", "model.from"),) if source else ()
    sets = {"train": spec.data.train, "validation": spec.data.validation}
    inputs += rows_inputs({f"data.{use}": rows for use, rows in sets.items()})
    return Stage(
        name=name,
        algorithm=role.program,
        roles=(role,),
        settings={"train": train_settings(spec.train), **settings},
        data={use: rows_data(rows) for use, rows in sets.items()},
        inputs=inputs,
        identity=maths_fields(spec),
        time_seconds=spec.time,
        env=dict(spec.env),
        export=spec.export,
    )


# --- from an experiment to a graph -----------------------------------------------------------------------


class Experiment(Protocol):
    """What is asked of an experiment here; `specc.experiment` makes them."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def stages(self) -> Mapping[str, Any]: ...
    @property
    def spec(self) -> dict[str, Any]: ...
    @property
    def overrides(self) -> tuple[str, ...]: ...
    def path(self, stage: str, inner: str) -> str: ...


def lower(experiment: Experiment) -> tuple[Graph, list[Diagnostic]]:
    """Every stage of the experiment, in an order in which they can run; unknown references and cycles."""
    stages: dict[str, Stage] = {}
    parts: dict[str, list[Stage]] = {}  # by the name that the spec gives
    for name, spec in experiment.stages.items():
        algorithm = sys.modules[type(spec).__module__]  # the file that holds a `Spec` holds its `lower`
        parts[name] = algorithm.lower(spec, name)
        for stage in parts[name]:
            stages[stage.name] = _placed(stage, experiment.path(name, ""), experiment.seed)
    stages = {name: references.resolved(stage, parts) for name, stage in stages.items()}
    said = [d for stage in stages.values() for d in references.wrong(stage, stages, parts)]
    said += references.doubled(parts, experiment.path)
    said += [d for stage in stages.values() for d in _heads_that_do_not_fit(stage, stages)]
    ordered, cycle = _ordered(stages)
    if cycle:
        said.append(_cycle(cycle, stages))
    ordered = _discarding(_exporting(ordered), stages)

    return Graph(
        experiment.name, experiment.seed, tuple(ordered), experiment.spec, experiment.overrides
    ), said


def _placed(stage: Stage, prefix: str, seed: int) -> Stage:
    """The stage with the paths that a user of this spec writes."""
    roles = tuple(
        dataclasses.replace(role, paths={key: prefix + path for key, path in role.paths.items()})
        for role in stage.roles
    )
    inputs = tuple(dataclasses.replace(artifact, path=prefix + artifact.path) for artifact in stage.inputs)
    identity = {"seed": seed, **stage.identity}
    return dataclasses.replace(stage, roles=roles, inputs=inputs, prefix=prefix, identity=identity)


def _heads_that_do_not_fit(stage: Stage, stages: Mapping[str, Stage]) -> list[Diagnostic]:
    """Roles whose model comes from a reward model with a head that is not theirs."""
    said = []
    for role in stage.roles:
        source = role.model.get("from")
        given = stages.get(source) if isinstance(source, str) else None
        before = next((r for r in given.roles if r.trains), None) if given else None
        if before is None:
            continue
        path = f"{role.paths.get('model', 'model')}.from"
        if role.head != "language" and not role.trains:  # it scores with the head that it came with
            said += _scores_that_nobody_learnt(stage, role, before, path)
            continue
        if before.head == "language":
            continue
        if role.head == "language":
            message = f"stage `{source}` makes a reward model, which gives numbers and predicts no tokens"
            help = "take the model that the reward model began from"
        elif role.program == "reward" and stage.settings.get("reward", {}).get("load_head", True):
            if before.attributes == role.attributes:
                continue
            gives = [listed(r.attributes) if r.attributes else "one number" for r in (before, role)]
            message = f"the head of stage `{source}` gives {gives[0]}, this one's {gives[1]}"
            help = "name the same attributes, or use reward: {load_head: false} for a new head"
        else:
            continue
        said.append(Diagnostic("G003", "error", message, path, "", help))
    return said


def _scores_that_nobody_learnt(
    stage: Stage, role: StageRole, before: StageRole, path: str
) -> list[Diagnostic]:
    """A reward model from a stage that trained none, or a score merged from marks that its head lacks."""
    source = role.model["from"]
    if before.head == "language":
        message = f"stage `{source}` makes no reward model, so its scores would be those of a random head"
        help = "name a stage of algorithm reward, or use a function"
        return [Diagnostic("G003", "error", message, path, "", help)]
    merged = stage.settings.get("reward", {}).get("merge", {})
    unknown = next((name for name in merged if name not in before.attributes), None)
    if unknown is None:
        return []
    gives = listed(before.attributes) if before.attributes else "one number"
    message = f"the head of stage `{source}` gives no `{unknown}`, but {gives}"
    where = stage.path("roles.reward.merge")
    return [Diagnostic("G003", "error", message, where, "", "merge what it gives, or remove `merge`")]


def _ordered(stages: Mapping[str, Stage]) -> tuple[list[Stage], list[str]]:
    """The stages, each after those it needs, else in the spec's order; or the names along a cycle. One that
    answers people comes last: nobody waits for it, and on one machine the others would.
    """
    done: dict[str, Stage] = {}
    for name in stages:
        cycle = _visit(name, stages, done, [])
        if cycle:
            return list(stages.values()), cycle
    return sorted(done.values(), key=lambda stage: stage.makes == "answers"), []


def _visit(name: str, stages: Mapping[str, Stage], done: dict[str, Stage], trail: list[str]) -> list[str]:
    if name in done or name not in stages:
        return []
    if name in trail:
        return [*trail[trail.index(name) :], name]
    for artifact in references.own(stages[name]):
        cycle = _visit(artifact.stage, stages, done, [*trail, name])
        if cycle:
            return cycle
    done[name] = stages[name]
    return []


def _cycle(names: list[str], stages: Mapping[str, Stage]) -> Diagnostic:
    shown = " -> ".join(f"`{name}`" for name in reversed(names))
    first = stages[names[0]]
    needed = next(a for a in references.own(first) if a.stage == names[1])
    path = needed.path
    if len(names) == 2:
        what = "model" if needed.kind == "checkpoint" else "rows"
        message = f"stage {shown.split(' ')[0]} takes its {what} from itself"
    else:
        message = f"the stages need one another in a circle: {shown}"
    help = "let one of them start from a model that is there already"
    return Diagnostic("G002", "error", message, path, "closes the circle", help)


def _exporting(stages: list[Stage]) -> list[Stage]:
    """Where the spec does not say, the last stage that trains exports."""
    trainable = [stage.name for stage in stages if any(role.trains for role in stage.roles)]
    return [
        dataclasses.replace(
            stage, export=stage.name == trainable[-1] if stage.export is None else stage.export
        )
        for stage in stages
    ]


def _discarding(ordered: list[Stage], stages: Mapping[str, Stage]) -> list[Stage]:
    """Each stage throws away only what no other may still read: whoever reads it comes before."""
    before: dict[str, set[str]] = {}
    readers: dict[str, set[str]] = {}
    for stage in ordered:
        given = [a.stage for a in references.own(stage) if a.stage in before]
        for name in given:
            readers.setdefault(name, set()).add(stage.name)
        before[stage.name] = {stage.name, *given}.union(*(before[name] for name in given))

    def is_done(name: str, by: Stage) -> bool:
        return name in stages and readers.get(name, set()) <= before[by.name]

    return [
        dataclasses.replace(stage, discards=tuple(name for name in stage.discards if is_done(name, stage)))
        for stage in ordered
    ]
