"""The plan against reality, in the first second: before torch is imported and weights are read.

Each check is a small function that raises a `Problem`. What every rank sees alike (the plan, the world
size) rank 0 says at once. What may differ from machine to machine is shared through the store that
torchrun holds, with a short time limit: one rank speaks, all of them leave, nobody waits for the dead.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from runtime import handover, soundness
from runtime.data.rows import local_path, looks_like_hub_id
from runtime.engines import environments
from runtime.place import Place
from runtime.problem import Problem
from specc.plan import Cluster, Group, Job, Plan, PlanError, Role, Shape, Weights, from_json, role_of

MEETING_SECONDS = 300
"""How long the ranks wait for each other's verdict; imports from a slow disk take a while."""


def read_plan(path: Path, job_name: str, role_name: str) -> tuple[Plan, Job, Role]:
    """The plan and this process's part in it; R001 or R002 say what is wrong."""
    try:
        plan = from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise Problem("R001", f"cannot read the plan `{path}`: {reason}", outside=True) from None
    except PlanError as error:
        raise Problem("R001", f"`{path}` is not a plan for this version: {error}") from None
    try:
        job = plan.job(job_name)
        role = role_of(job, role_name)
    except PlanError as error:
        raise Problem("R002", str(error)) from None
    group = group_of(job, role)
    if group.role is not role:
        message = f"role `{role.name}` lives in the processes of `{group.name}`; start those"
        raise Problem("R002", message)
    for each in group.roles:
        soundness.check(plan, job, each)
    return plan, job, role


def group_of(job: Job, role: Role) -> Group:
    """The group whose processes a role lives in."""
    return next(group for group in job.groups if role in group.roles)


def is_finished(job: Job, place: Place) -> bool:
    """Is the stage's output there, and of this very experiment?"""
    try:
        return json.loads(place.output.read_text(encoding="utf-8")).get("hash") == job.hash
    except (OSError, ValueError, AttributeError):
        return False


def check(plan: Plan, job: Job, role: Role, place: Place) -> None:
    """Everything that can be told without torch; the first problem found is raised."""
    check_world(role, place.world)
    check_folder(place)
    check_identity(job, place)
    check_inputs(job, role, place)
    check_program(role)
    if place.speaks_for_node:
        check_engine(job, role)
        check_disk(job, role, place)


def is_seen_by_all(error: Exception) -> bool:
    """Does every rank find this by itself, so that none has to be waited for?"""
    return isinstance(error, Problem) and error.code in ("R002", "R003")


def check_world(role: Role, world: int) -> None:
    """As many processes as the layout needs."""
    layout = role.layout
    if world != layout.world_size:
        product = f"TP {layout.tp} x PP {layout.pp} x CP {layout.cp} x DP {layout.dp} = {layout.world_size}"
        advice = f"start {layout.world_size} processes, or compile for {world}"
        raise Problem("R003", f"world size {world} is not {product} of role `{role.name}`; {advice}")


def check_folder(place: Place) -> None:
    """The run folder can be written."""
    probe = place.attempt / f".probe-{place.rank}-{uuid.uuid4().hex[:8]}"
    try:
        place.attempt.mkdir(parents=True, exist_ok=True)
        place.role.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise Problem("R006", f"cannot write in `{place.stage}`: {error.strerror}", outside=True) from None


def check_identity(job: Job, place: Place) -> None:
    """The stage's folder belongs to this experiment, or to none yet."""
    file = place.stage / "identity.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(known, dict) or known.get("hash") == job.hash:
        return
    before = known.get("identity")
    changed = changed_keys(before if isinstance(before, dict) else {}, job.identity)
    what = ", ".join(f"`{key}`" for key in changed[:8]) or "its inputs"
    more = f" and {len(changed) - 8} more" if len(changed) > 8 else ""
    advice = f"use another --dir, or --fresh {job.stage} to begin it again"
    message = f"`{place.stage}` holds another experiment: {what}{more} changed; {advice}"
    raise Problem("R008", message, outside=True)


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, in alphabetical order."""
    absent = object()
    return sorted(k for k in {*before, *now} if before.get(k, absent) != now.get(k, absent))


def write_identity(job: Job, place: Place) -> None:
    """Mark the stage's folder as this experiment's."""
    file = place.stage / "identity.json"
    if place.is_first and not file.exists():
        temporary = file.with_name(f".identity.{os.getpid()}")
        temporary.write_text(json.dumps({"hash": job.hash, "identity": job.identity}, indent=2) + "\n")
        os.replace(temporary, file)


def check_inputs(job: Job, role: Role, place: Place) -> None:
    """Data, weights and tokenizer can be read."""
    for name, settings in handover.sections(job):
        if settings.get("path"):
            _check_readable(str(settings["path"]), name, allow_hub=True)
    handover.check(job, place)
    if role.is_clerk:
        return
    for each in group_of(job, role).roles:
        _check_weights(each.model.weights, each, place)
    tokenizer = role.model.tokenizer
    if not tokenizer.startswith("builtin:"):
        _check_readable(tokenizer, "the tokenizer", allow_hub=True)


def _check_weights(weights: Weights, role: Role, place: Place) -> None:
    if weights.kind in ("hf", "checkpoint"):
        _check_readable(weights.path, f"model `{role.model.name}`", allow_hub=True)
    elif weights.kind in ("stage", "run"):
        folder = Path(weights.path) if weights.kind == "run" else place.run_folder
        if not (folder / weights.stage / "output.json").exists():
            where = f"`{folder / weights.stage}`"
            message = (
                f"the model comes from stage `{weights.stage}`, but {where} is not finished; run it first"
            )
            raise Problem("R016", message, outside=True)
        if handover.is_discarded(folder / weights.stage):
            message = f"the model comes from stage `{weights.stage}`, whose checkpoints in"
            again = f"make them again with --fresh {weights.stage}"
            message = f"{message} `{folder / weights.stage}` went when a later stage had finished; {again}"
            raise Problem("R016", message, outside=True)


def _check_readable(path: str, what: str, *, allow_hub: bool) -> None:
    if path.startswith("builtin:") or ("://" in path and not path.startswith("file://")):
        return
    found = local_path(path)
    if found is None:
        if allow_hub and looks_like_hub_id(path):
            return
        raise Problem("R005", f"{what} is not there: `{path}`", outside=True)
    if not os.access(found, os.R_OK):
        raise Problem("R005", f"{what} cannot be read: `{path}` (permission denied)", outside=True)
    if found.is_file() and found.stat().st_size == 0:
        raise Problem("R011", f"{what} is empty: `{path}`")


def check_program(role: Role) -> None:
    """The role's program exists in this version."""
    here = Path(__file__).parent / "algorithms" / f"{role.program}.py"
    if not role.program.isidentifier() or not here.exists():
        known = ", ".join(sorted(p.stem for p in here.parent.glob("[a-z]*.py")))
        raise Problem("R002", f"this version has no program `{role.program}`; it has {known}")


def check_engine(job: Job, role: Role) -> None:
    """What generates in another environment is there. R015, with what to install."""
    if role is job.groups[0].role and job.data.get("prompts") and job.settings.get("train"):
        environments.check(str((job.settings.get("generate") or {}).get("engine") or "megatron"))


def check_disk(job: Job, role: Role, place: Place) -> None:
    """Room for the checkpoints that are kept at once, and one that is being written."""
    if not role.trains:
        return
    free = shutil.disk_usage(place.role).free
    train = job.settings.get("train") or {}
    kept = int(train.get("keep_last") or 1) + int(train.get("keep_best") or 0) + 1
    size = checkpoint_bytes(role)
    there = sum(1 for _ in place.checkpoints.glob("step-*")) if place.checkpoints.exists() else 0
    needed = size * max(kept - there, 1)
    if needed > free:
        gib = 1 << 30
        message = (
            f"{max(kept - there, 1)} checkpoints of {size / gib:.1f} GiB need {needed / gib:.1f} GiB, but "
            f"`{place.role}` has {free / gib:.1f} GiB free; lower train.keep_last or use another --dir"
        )
        raise Problem("R007", message, outside=True)


def checkpoint_bytes(role: Role) -> int:
    """Weights, two moments and fp32 main weights, which a distributed optimizer keeps for fp32 too."""
    per_parameter = 14 if role.precision == "bf16" else 16 if role.distributed_optimizer else 12
    return parameters(role.model.shape) * per_parameter


def parameters(shape: Shape) -> int:
    """All weights of the model, norms and biases left out."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_groups * shape.head_dim
    attention = shape.hidden * (queries + 2 * keys) + queries * shape.hidden
    matrices = 3 if shape.activation in ("swiglu", "geglu") else 2
    width = shape.ffn
    if shape.experts:
        width = (shape.expert_ffn or shape.ffn) * shape.experts + shape.shared_expert_ffn
    embeddings = shape.vocab * shape.hidden * (1 if shape.tied else 2)
    return shape.layers * (attention + matrices * shape.hidden * width) + embeddings


def check_device(cluster: Cluster, place: Place) -> None:
    """The machine has the device that the plan counts on. Imports torch."""
    if cluster.device != "cuda":
        return
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        advice = "use a machine with one, or a profile whose device is cpu"
        raise Problem(
            "R004", f"the plan is for {cluster.gpu}, but torch sees no CUDA device; {advice}", outside=True
        )
    if torch.cuda.device_count() <= place.local_rank:
        seen = torch.cuda.device_count()
        wanted = f"{seen} of {place.local_world} are visible"
        message = f"process {place.local_rank} of this machine has no GPU: {wanted}"
        raise Problem("R004", message, outside=True)


class Meeting:
    """The store that torchrun holds: ranks tell each other what failed before there are groups."""

    def __init__(self, place: Place):
        self.place, self._store = place, None
        if place.world > 1:
            from torch.distributed.distributed_c10d import PrefixStore
            from torch.distributed.rendezvous import rendezvous

            limit = timedelta(seconds=MEETING_SECONDS)
            try:
                found = next(iter(rendezvous("env://", place.rank, place.world, timeout=limit)))
            except Exception as error:
                address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
                reason = " ".join(str(error).split())[:200]
                message = f"rank {place.rank} does not reach the meeting point {address}: {reason}"
                raise Problem("R017", message, outside=True) from error
            self._store = PrefixStore("specc", found[0])

    def agree(self, about: str, problem: Problem | None, seconds: int = MEETING_SECONDS) -> Problem | None:
        """Every rank's verdict on `about`; the problem of the lowest rank that has one, or None.

        Every rank calls it. A rank that does not come within `seconds` is itself the problem, and R017
        is raised where rank 0 is not heard of.
        """
        if self._store is None:
            return problem
        mine = [problem.code, problem.message, problem.outside] if problem else None
        limit = timedelta(seconds=seconds)
        try:
            self._store.set(f"{about}/{self.place.rank}", json.dumps(mine))
            if self.place.is_first:
                self._store.set(f"{about}/verdict", json.dumps(self._verdict(about, limit)))
            self._store.wait([f"{about}/verdict"], 2 * limit)  # rank 0 itself waits for the others
            said = json.loads(self._store.get(f"{about}/verdict"))
        except Exception:  # the store lives where rank 0 does: it went away, or never answered
            raise Problem(
                "R017", f"rank 0 gave no word on {about} within {seconds} s", outside=True
            ) from None
        if said is None:
            return None
        rank, code, message, outside = said
        place = f"rank {rank}: " if self.place.nodes > 1 else ""
        agreed = Problem(code, place + message, outside=outside)
        agreed.rank = rank  # type: ignore[attr-defined]
        return agreed

    def told(self, about: str, value: Any, seconds: int = MEETING_SECONDS) -> Any:
        """Rank 0's `value` (JSON) on every rank."""
        if self._store is None:
            return value
        if self.place.is_first:
            self._store.set(f"told/{about}", json.dumps(value))
        self._store.wait([f"told/{about}"], timedelta(seconds=seconds))
        return json.loads(self._store.get(f"told/{about}"))

    def _verdict(self, about: str, limit: timedelta) -> list[Any] | None:
        assert self._store is not None
        for rank in range(self.place.world):
            try:
                self._store.wait([f"{about}/{rank}"], limit)
                said = json.loads(self._store.get(f"{about}/{rank}"))
            except Exception:
                said = ["R017", f"rank {rank} did not come to {about} within {limit.seconds} s", True]
            if said:
                return [rank, *said]
        return None
