"""The planner: graph + profile -> plan. Pure arithmetic: no clock, no network, no torch.

  hardware.py   GPUs by name                  memory.py     bytes per GPU, and how likely they run out
  shapes.py     parameters, FLOPs, KV cache   cost.py       seconds of a step
  rules.py      what is legal, by code        layouts.py    the search over layouts, best first
  space.py      the legal sizes               bounds.py     what no layout can undercut
  objectives.py the search over nodes
  placement.py  roles -> machines, and what to say when there is no place
  workload.py   what a role does              activations.py  what a layer keeps, logits, in flight
  estimate.py   one given layout, no spec     rollout.py      seconds of a rollout
  phases.py     memory phase by phase         feasibility.py  how near to the device's end
  layer_time.py seconds of a layer            step_parts.py  seconds of a step, part by part, as formulas
  local_layer.py, te_layer.py  what a layer of either kind keeps, tensor by tensor (kept.py: one of them)
  buffers.py    state to the byte             saving.py     room that writing a checkpoint takes
  recompute.py  what is computed again        calibration.py  what a run took against what it was predicted
  targets.py    models planned for, not run  options.py    nodes against time
  comparison.py  a layout among its rivals   outlook.py    runs, cost, room for checkpoints
  team.py       several roles -> machines    balance.py    actor and critic chosen together
  ppo.py        seconds of a PPO step        alternatives.py  what else there was for several roles
  asking.py     roles that make rows: responses, scores; how many rows there are
  guests.py     a reference in the processes of the model that learns from it

In comes the graph (stages with roles, as the algorithms lowered them) and the cluster profile; out goes
a `specc.plan.Plan`, complete, or the reasons why there is none. `specc.compile` and the CLI import this
package; it imports `specc.models` and the graph, and nothing of the emitter.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import specc
from specc import models
from specc import plan as plans
from specc.diagnostics import Diagnostic, has_errors
from specc.planner import asking, hardware
from specc.planner.guests import hosts, place_alone
from specc.planner.hardware import Gpu
from specc.planner.layouts import NODES_MOST, Pins
from specc.planner.memory import Workload
from specc.planner.outlook import Outlook, outlook, over_the_quota
from specc.planner.placement import Request, clerk, job_environment

if TYPE_CHECKING:
    from specc.graph import Graph, Stage, StageRole
    from specc.planner.team import Placed, Team
    from specc.spec.cluster import Profile

CLERK_SECONDS = 3600
"""Time limit of a job without a model, where the spec says none; at the limit it saves and goes on."""


def plan(
    graph: Graph, profile: Profile, cluster: str = "", folder: Path | str = "."
) -> tuple[plans.Plan | None, list[Diagnostic]]:
    """The plan of every stage on this cluster; None when a stage has no place.

    `cluster` is the profile's name, `folder` the one that relative paths of the spec count from. All
    stages are looked at, so that every problem is said at once.
    """
    card = hardware.gpu(profile.gpus.type)
    if card is None:
        return None, [_unknown_gpu(profile.gpus.type)]
    said: list[Diagnostic] = []
    found: dict[str, plans.Model | None] = {}  # by stage; None for one that could not be resolved
    jobs: list[plans.Job] = []
    for stage in graph.stages:
        job, more = _job(stage, profile, card, found, jobs, Path(folder))
        said += more
        if job is not None:
            jobs.append(job)
    if has_errors(said):
        return None, said
    ahead = outlook(jobs, profile)
    said += over_the_quota(graph, ahead)
    return plans.Plan(
        format=plans.FORMAT,
        name=graph.name,
        version=specc.__version__,
        seed=graph.seed,
        cluster=_cluster(profile, card, cluster),
        jobs=tuple(jobs),
        totals=_totals(jobs, ahead),
        overrides=graph.overrides,
        spec=graph.spec,
    ), said


def _unknown_gpu(name: str) -> Diagnostic:
    near = hardware.suggestion(name)
    help = f"did you mean `{near}`?" if near else f"known are {', '.join(hardware.names())}"
    message = f"the cluster profile has an unknown GPU `{name}`"
    return Diagnostic("P006", "error", message, "cluster.gpus.type", "not in the catalog", help)


def _cluster(profile: Profile, card: Gpu, name: str) -> plans.Cluster:
    """What scripts and the runtime need of the profile."""
    cuda = card.name != "cpu"
    slurm = profile.slurm
    return plans.Cluster(
        name=name,
        scheduler=profile.scheduler,
        gpu=card.name,
        gpus_per_node=profile.gpus.per_node,
        device="cuda" if cuda else "cpu",
        backend="nccl" if cuda else "gloo",
        python=profile.runtime.python,
        path=profile.runtime.path,
        results=profile.results.path,
        cache=profile.cache.path,
        data=profile.data,
        env=dict(profile.env),
        secrets=tuple(profile.secrets),
        container=plans.Container(
            profile.container.engine, profile.container.image, tuple(profile.container.mounts)
        ),
        slurm=plans.Slurm(
            account=slurm.account,
            partition=slurm.partition,
            qos=slurm.qos,
            gpus_flag=slurm.gpus_flag if cuda else "none",
            gpu_type=slurm.gpu_type,
            exclusive=slurm.exclusive,
            cpus_per_task=slurm.cpus_per_task,
            mem=slurm.mem,
            signal_seconds=slurm.signal,
            attempts=slurm.attempts,
            extra=tuple(slurm.extra),
        ),
    )


# --- one stage -> one job ----------------------------------------------------------------------------


def _job(
    stage: Stage,
    profile: Profile,
    card: Gpu,
    found: dict[str, plans.Model | None],
    jobs: list[plans.Job],
    folder: Path,
) -> tuple[plans.Job | None, list[Diagnostic]]:
    """The job of a stage, its roles placed one by one; remembers the stage's model in `found`."""
    requests, said = _requests(stage, profile, card, found, folder)
    most = profile.nodes or NODES_MOST
    settings, timeline = stage.settings, ()
    if stage.generates:
        placed, more = _together(stage, requests, profile, card)
        roles, timeline = list(placed.roles), placed.timeline
        settings = {**settings, "serve": {**settings["serve"], "batch": placed.batch}}
    else:
        roles, more = place_alone(requests, card, profile.gpus.per_node, most)
        roles = [asking.asked_role(role, stage) for role in roles]
        roles += [clerk(role) for role in stage.roles if role.is_clerk]
        settings = asking.with_rows(settings, roles)
    said += more
    if len(roles) < len(stage.roles):
        return None, said
    roles = [_calibrated(role, card, profile) for role in roles]
    before = [job for job in jobs if any(a.stage == job.stage and not a.run for a in stage.inputs)]
    identity = _identity(stage, roles, before)
    job = plans.Job(
        name=stage.name,
        stage=stage.name,
        nodes=_nodes(roles, profile),
        depends_on=tuple(job.name for job in before),
        roles=tuple(roles),
        settings=settings,
        data=stage.data,
        time_seconds=stage.time_seconds or _usual_time(roles, profile),
        export=bool(stage.export),
        placement=stage.placement,
        timeline=timeline,
        env={**job_environment(card, tuple(roles)), **stage.env},
        identity=identity,
        hash=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        discards=stage.discards,
    )
    return job, said + _over_the_limits(stage, job, profile)


def _usual_time(roles: Sequence[plans.Role], profile: Profile) -> int:
    """The profile's limit; an hour at most for clerks, which find room the earlier the less they ask for."""
    limit = profile.slurm.time or 0
    if not all(role.is_clerk for role in roles) or profile.scheduler == "none":
        return limit
    return min(limit or CLERK_SECONDS, max(CLERK_SECONDS, 2 * profile.slurm.signal))


def _calibrated(role: plans.Role, card: Gpu, profile: Profile) -> plans.Role:
    """The role, saying what its predictions were corrected by."""
    if role.is_clerk:
        return role
    learnt = profile.calibration.correction(card.name, role.precision, role.implementation)
    return dataclasses.replace(role, calibration=str(learnt)) if learnt.runs else role


def _nodes(roles: Sequence[plans.Role], profile: Profile) -> int:
    """Machines of a job: each group has its own, but without a scheduler they share those that there are."""
    of_groups = [role.nodes for role in roles if role.group in ("", role.name)]
    return max(of_groups) if profile.scheduler == "none" else sum(of_groups)


def _together(
    stage: Stage, requests: list[Request], profile: Profile, card: Gpu
) -> tuple[Placed, list[Diagnostic]]:
    """The roles of a stage of several."""
    from specc.planner.team import Placed, place_together  # which only they need

    if len(requests) < len(stage.roles):  # what is wrong with a model is said already
        return Placed(()), []
    return place_together(_team(stage, requests, profile, card))


def _team(stage: Stage, requests: list[Request], profile: Profile, card: Gpu) -> Team:
    from specc.planner.team import Team, rollouts_of

    return Team(
        tuple(requests),
        rollouts_of(stage.settings),
        card,
        profile.gpus.per_node,
        profile.nodes or NODES_MOST,
        profile.scheduler == "none",
        stage.roles[0].offload_optimizer,
    )


def teams(graph: Graph, profile: Profile, folder: Path | str = ".") -> dict[str, Team]:
    """The stages whose roles are placed together, by name, for those who look further."""
    card = hardware.gpu(profile.gpus.type)
    if card is None:
        return {}
    asked = requests(graph, profile, folder)
    return {
        stage.name: _team(stage, [r for other, r in asked if other is stage], profile, card)
        for stage in graph.stages
        if stage.generates
    }


def requests(graph: Graph, profile: Profile, folder: Path | str = ".") -> list[tuple[Stage, Request]]:
    """What every role of every stage asks for, in order: what `plan` places, for those who look further."""
    card = hardware.gpu(profile.gpus.type)
    if card is None:
        return []
    found: dict[str, plans.Model | None] = {}
    asked = [(stage, _requests(stage, profile, card, found, Path(folder))[0]) for stage in graph.stages]
    return [
        (stage, request)
        for stage, of_stage in asked
        for request in (of_stage if stage.generates else hosts(of_stage))
    ]


def _requests(
    stage: Stage, profile: Profile, card: Gpu, found: dict[str, plans.Model | None], folder: Path
) -> tuple[list[Request], list[Diagnostic]]:
    """The requests of a stage's roles whose model is known; remembers the stage's model in `found`."""
    said: list[Diagnostic] = []
    asked_for: list[Request] = []
    for asked in stage.roles:
        if asked.is_clerk:
            continue
        model, more = _model(asked, found, folder)
        said += [each for each in more if each not in said]  # roles that share a model share its troubles
        if asked.trains or stage.name not in found:
            found[stage.name] = model
        if model is not None:
            asked_for.append(_request(stage, asked, model, profile, card))
    return asked_for, said


def _model(
    asked: StageRole, found: Mapping[str, plans.Model | None], folder: Path
) -> tuple[plans.Model | None, list[Diagnostic]]:
    """The role's model; one that comes from another stage has that stage's shape and tokenizer."""
    where = asked.paths.get("model", "model")
    source = asked.model.get("from")
    if isinstance(source, Mapping) and not source.get("run"):
        source = source.get("stage")
    if isinstance(source, str):
        model = found.get(source)
        if model is None:
            return None, []  # said where that stage's model was looked for
        model = dataclasses.replace(model, name=source, weights=plans.Weights("stage", stage=source))
        said: list[Diagnostic] = []
        changes = {key: asked.model[key] for key in ("tokenizer", "chat_template") if asked.model.get(key)}
        model = dataclasses.replace(model, **changes)
    else:
        model, said = models.resolve(asked.model, where, folder)
    if model is None:
        return None, said
    head = model.head if asked.takes_head and model.head != "language" else asked.head
    kept = model.attributes if head == model.head else ()
    return dataclasses.replace(model, head=head, attributes=asked.attributes or kept), said


def _request(stage: Stage, asked: StageRole, model: plans.Model, profile: Profile, card: Gpu) -> Request:
    """What the spec says about a role, and where it says it."""
    sizes = dict(asked.parallel)
    layers = tuple(sizes.pop("stage_layers", None) or ())
    if layers and "pp" not in sizes:
        sizes["pp"] = max(1, len(layers) // (sizes.get("vp") or 1))
    pins = Pins(**sizes, micro_batch=asked.micro_batch, recompute=asked.recompute, stage_layers=layers)
    implementation = profile.runtime.layers or ("local" if card.name == "cpu" else "te")
    learnt = profile.calibration.correction(card.name, asked.precision, implementation)
    gpus = asked.gpus or profile.gpus.per_node
    work = Workload(
        shape=model.shape,
        seq_length=asked.seq_length,
        global_batch=asked.global_batch,
        trains=asked.trains,
        head=asked.head,
        texts=asked.texts,
        passes=asked.passes,
        precision=asked.precision,
        implementation=implementation,
        packing=bool(stage.settings.get("train", {}).get("packing")),
        recompute_layers=asked.recompute_layers or 0,
        recompute_modules=asked.recompute_modules or (),
        time_factor=learnt.time,
        memory_factor=learnt.memory,
        **_of_rollouts(stage, asked),
    )
    work = dataclasses.replace(work, **asking.work_of(stage, asked, asked.nodes, gpus))
    said = {*pins.names, "global_batch", "seq_length", "precision"}
    others = ("nodes", "gpus", "recompute_layers", "recompute_modules", "objective", "max_nodes")
    others += ("model", "weights")
    said |= {name for name in others if getattr(asked, name) is not None}
    said |= {"placement"}
    paths = {name: path for name, path in asked.paths.items() if name in said}
    paths[""] = asked.paths.get("parallel", stage.path("parallel"))
    return Request(
        asked.name,
        asked.program,
        model,
        work,
        pins,
        asked.nodes,
        asked.gpus,
        paths,
        asked.objective or "fewest_nodes",
        asked.max_nodes,
        asked.group,
        asked.weights or "",
    )


def _of_rollouts(stage: Stage, asked: StageRole) -> dict[str, Any]:
    """What learning from rollouts adds to a role's work."""
    if not asked.response_tokens or not stage.generates:
        return {}
    found: dict[str, Any] = {
        "prompt_tokens": asked.prompt_tokens,
        "response_tokens": asked.response_tokens,
        "offload_optimizer_in_rollout": bool(asked.offload_optimizer),
    }
    if asked.trains:
        found["phase"] = "actor" if asked.head == "language" else "critic"
    if asked.trains and asked.head == "language":
        generate = stage.settings["generate"]
        found |= {"engine": generate["engine"], "engine_resident": not generate["unload"]}
        found["engine_resharded"] = generate["reshard"] or generate["engine"] == "vllm"
        found["folds"] = generate["reshard"] and generate["engine"] == "megatron"
        found["rollout_micro_batch"] = generate["rows"] or 1
    return found


def _identity(stage: Stage, roles: list[plans.Role], before: list[plans.Job]) -> dict[str, Any]:
    """What makes the stage's result: its maths fields, its models' numbers, and what it starts from."""
    identity = dict(stage.identity)
    for role in roles:
        if role.is_clerk:
            continue
        name = "model" if role.name == "model" or len(roles) == 1 else f"roles.{role.name}.model"
        shape = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(role.model.shape).items()}
        identity[f"{name}.shape"] = shape
    return identity | {f"inputs.{job.stage}": job.hash for job in before}


def _over_the_limits(stage: Stage, job: plans.Job, profile: Profile) -> list[Diagnostic]:
    """A job of more nodes than the cluster gives, or longer than the partition allows."""
    said = []
    if profile.nodes and job.nodes > profile.nodes:
        message = f"the job takes {job.nodes} nodes, but the cluster gives a job at most {profile.nodes}"
        said.append(
            Diagnostic(
                "P032", "error", message, stage.path("nodes"), "", f"use nodes: {profile.nodes} or less"
            )
        )
    limit = profile.slurm.time
    if limit and job.time_seconds > limit:
        message = f"the job asks for {_hours(job.time_seconds)}, but the partition allows {_hours(limit)}"
        help = f"use time: {_hours(limit)}; a job that reaches its limit saves and continues"
        said.append(Diagnostic("P033", "error", message, stage.path("time"), "", help))
    warning = profile.slurm.signal
    if profile.scheduler == "slurm" and 0 < job.time_seconds <= warning:
        message = (
            f"the job lasts {_hours(job.time_seconds)}, but is told to save {_hours(warning)} before its end"
        )
        help = "use a longer time, or a shorter `slurm.signal` in the cluster profile"
        said.append(Diagnostic("P035", "error", message, stage.path("time"), "", help))
    return said


def _hours(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours}h" if not rest else f"{seconds // 60}m" if not seconds % 60 else f"{seconds}s"


def _totals(jobs: list[plans.Job], ahead: Sequence[Outlook]) -> plans.Totals:
    """Time and GPU-hours as far as they are known: the stages count whose steps are known, on GPUs."""
    ends: dict[str, float] = {}
    gpu_hours = 0.0
    for job, one in zip(jobs, ahead, strict=True):
        seconds = one.steps * one.step_seconds
        ends[job.name] = seconds + max((ends[name] for name in job.depends_on), default=0.0)
        gpu_hours += seconds / 3600 * sum(role.nodes * role.gpus for role in job.roles)
    return plans.Totals(round(gpu_hours, 1), round(max(ends.values(), default=0.0), 1), len(jobs))
