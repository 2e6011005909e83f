"""What the compiler guarantees of a plan, looked at again: a plan can be edited by hand.

The settings of an algorithm are not declared a second time here; only what the loop itself reads, and
what would go wrong without a word: a number of rows that is 0, a word that nobody knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from runtime.problem import Problem
from specc.plan import Job, Plan, Role

WORDS = {
    "device": ("cuda", "cpu"),
    "backend": ("nccl", "gloo"),
    "precision": ("bf16", "fp32"),
    "recompute": ("none", "selective", "full"),
    "recompute_modules": ("core_attn", "layernorm", "mlp", "moe", "shared_experts"),  # that ours can
    "implementation": ("local", "te"),
    "head": ("language", "scalar", "attributes"),
    "weights.kind": ("random", "hf", "stage", "run", "checkpoint"),
    "norm": ("rmsnorm", "rmsnorm_1p", "layernorm", "layernorm_1p"),
    "activation": ("swiglu", "geglu", "gelu", "squared_relu"),
    "position": ("rope", "learned"),
    "train.schedule": ("cosine", "linear", "constant"),
    "truncation": ("right", "left", "drop", "error"),
    "loss": ("bradley_terry", "regression", "regular_bt", "margin_bt", "scaled_bt"),
    "average": ("global", "micro_batch"),
}
"""The words that a field of the plan may hold."""

FORMATS = ("auto", "chat", "prompt_response", "comparisons", "attributes", "hh")

NUMBERS = ("lr", "min_lr", "weight_decay", "epsilon", "clip", "epochs")
COUNTS = ("steps", "seq_length", "warmup_steps", "constant_steps", "validate_every", "save_every")
COUNTS += ("log_every", "keep_last", "keep_best")


def check(plan: Plan, job: Job, role: Role) -> None:
    """Problem R001 names the first field that makes no sense."""
    _check_name("stage", job.stage)
    if role.model.weights.kind in ("stage", "run"):
        _check_name("weights.stage", role.model.weights.stage)
    _check_discards(job)
    _check_purpose(job, role)
    _check_words(plan, job, role)
    seconds = ("collective_timeout_seconds", "heartbeat_seconds")
    for name, value in (_sizes(role) | {name: getattr(job, name) for name in seconds}).items():
        if value < 1:
            raise _nonsense(name, value, "a number above 0")
    if not role.is_clerk:
        _check_cut(role)
        _check_recompute(role)
    trains = role.trains
    if trains or job.settings.get("train") is not None:
        _check_train(job.settings.get("train"))
    needed = ("train",) if trains and not job.data.get("prompts") else ()
    for use in {**dict.fromkeys(needed), **job.data}:
        if use in needed or job.data[use] is not None:
            _check_use(f"data.{use}", job.data.get(use))
    if role.program == "reward":
        _check_reward(job.settings.get("reward"), role)


def _check_name(field: str, stage: str) -> None:
    if not stage or PurePath(stage).name != stage:
        raise _nonsense(field, stage, "the name of a folder")


def _check_words(plan: Plan, job: Job, role: Role) -> None:
    shape, model = role.model.shape, role.model
    own = job.settings.get(role.program) or {}
    found = {
        "device": plan.cluster.device,
        "backend": plan.cluster.backend,
        "precision": role.precision,
        "recompute": role.recompute,
        "implementation": role.implementation,
        "head": model.head,
        "weights.kind": "random" if role.is_clerk else model.weights.kind,
        "norm": shape.norm,
        "activation": shape.activation,
        "position": shape.position,
        "train.schedule": (job.settings.get("train") or {}).get("schedule"),
        "truncation": own.get("truncation"),
    }
    if role.program == "reward":
        found |= {"loss": own.get("loss"), "average": own.get("average")}
    for name, word in found.items():
        if word is not None and word not in WORDS[name]:
            raise _nonsense(name, word, " or ".join(WORDS[name]))


def _sizes(role: Role) -> dict[str, int]:
    shape, layout = role.model.shape, role.layout
    of_shape = ("layers", "hidden", "ffn", "heads", "kv_groups", "head_dim", "vocab", "max_positions")
    of_layout = ("tp", "pp", "vp", "cp", "ep", "etp", "dp")
    if role.is_clerk:
        return {"nodes": role.nodes}
    sizes = {name: getattr(role, name) for name in ("nodes", "gpus", "micro_batch", "global_batch")}
    sizes |= {f"shape.{name}": getattr(shape, name) for name in of_shape}
    return sizes | {f"layout.{name}": getattr(layout, name) for name in of_layout}


def _check_recompute(role: Role) -> None:
    """Details of recomputation go with their kind, and name what the model has."""
    shape, kind = role.model.shape, role.recompute
    if role.recompute_layers and (kind != "full" or role.recompute_layers < 0):
        raise _nonsense("recompute_layers", role.recompute_layers, "0, or more under full recomputation")
    if role.recompute_modules and kind != "selective":
        raise _nonsense("recompute_modules", ", ".join(role.recompute_modules), "none but under selective")
    # with biases the recomputed part hands out a parameter, and Megatron's backward pass never ends
    absent = {"mlp": bool(shape.experts) or shape.linear_bias, "moe": not shape.experts}
    absent["shared_experts"] = not shape.shared_expert_ffn
    for module in role.recompute_modules:
        if module not in WORDS["recompute_modules"] or absent.get(module, False):
            raise _nonsense("recompute_modules", module, "parts of a layer of this model")


def _check_cut(role: Role) -> None:
    """The model can be cut as the layout says."""
    shape, layout = role.model.shape, role.layout
    pairs = [("heads", "kv_groups", shape.kv_groups), ("heads", "TP", layout.tp)]
    pairs.append(("experts", "EP", layout.ep) if shape.experts else ("ffn", "TP", layout.tp))
    for name, by, size in pairs:
        count = dataclasses.asdict(shape)[name]
        if count % size:
            raise Problem("R001", f"{count} {name} do not divide by {by} {size}; compile another layout")
    if layout.world_size % (layout.ep * layout.etp * layout.pp):
        product = f"EP {layout.ep} x ETP {layout.etp} x PP {layout.pp}"
        message = f"{layout.world_size} processes do not divide by {product}; compile another layout"
        raise Problem("R001", message)
    if layout.cp > 1 and role.implementation == "local":
        advice = "install the `te` extra and compile for it, or set cp to 1"
        raise Problem("R001", f"CP {layout.cp} needs Transformer Engine's attention; {advice}")


def _check_train(train: Any) -> None:
    if not isinstance(train, Mapping):
        raise _nonsense("settings.train", train, "an object")
    for name in ("lr", "seq_length"):
        if train.get(name) is None:
            raise _nonsense(f"train.{name}", None, "a number")
    for names, kind, wanted in ((NUMBERS, int | float, "a number"), (COUNTS, int, "a whole number")):
        for name in names:
            value = train.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not value >= 0:
                raise _nonsense(f"train.{name}", value, f"{wanted}, 0 or more")
    betas = train.get("betas", [0.0, 0.0])
    if not isinstance(betas, list) or len(betas) != 2 or not all(isinstance(b, float | int) for b in betas):
        raise _nonsense("train.betas", betas, "two numbers")
    wandb = train.get("wandb")
    if wandb is not None and not isinstance(wandb, Mapping):
        raise _nonsense("train.wandb", wandb, "an object")


def _check_reward(own: Any, role: Role) -> None:
    """The head, its weights and the loss belong together."""
    if not isinstance(own, Mapping) or own.get("loss") is None:
        raise _nonsense("settings.reward.loss", None, " or ".join(WORDS["loss"]))
    if role.model.head == "language":
        raise _nonsense("head", role.model.head, "scalar or attributes for a reward model")
    outputs = max(len(role.model.attributes), 1)
    weights = own.get("weights")
    are_numbers = isinstance(weights, list) and all(
        isinstance(w, int | float) and not isinstance(w, bool) for w in weights
    )
    if weights is not None and (not are_numbers or len(weights) != outputs):
        raise _nonsense("settings.reward.weights", weights, f"{outputs} numbers")
    if role.layout.cp > 1:
        raise _nonsense("layout.cp", role.layout.cp, "1: a score needs the whole text")


def _check_purpose(job: Job, role: Role) -> None:
    """A role that trains has a model; one that does not has nothing said of training in its job."""
    if role.is_clerk and role.trains:
        raise _nonsense("gpus", role.gpus, "a number above 0 for a role that trains")
    is_alone = any(role is group.role and not group.serves for group in job.groups)
    if is_alone and not role.trains and job.settings.get("train") is not None:
        raise _nonsense("trains", role.trains, "true, as there is a section `train`")
    if role.program == "score" and not role.is_clerk:
        if role.model.head == "language":
            raise _nonsense("head", role.model.head, "scalar or attributes for a model that scores")
        if role.layout.cp > 1:
            raise _nonsense("layout.cp", role.layout.cp, "1: a score needs the whole text")


def _check_discards(job: Job) -> None:
    """What goes afterwards are other stages' files, in this run's folder."""
    for stage in job.discards:
        _check_name("discards", stage)
        if stage == job.stage or stage in (".", ".."):
            raise _nonsense("discards", stage, "another stage")


def _check_use(name: str, found: Any) -> None:
    """One data set, or several that are mixed."""
    parts = {f"{name}[{i}]": part for i, part in enumerate(found)} if isinstance(found, list) else {}
    for place, data in (parts or {name: found}).items():
        _check_data(place, data)


def _check_data(name: str, data: Any) -> None:
    if not isinstance(data, Mapping) or not isinstance(data.get("path"), str):
        raise _nonsense(name, data, "an object with a path")
    source = data.get("from")
    if source:
        if not isinstance(source, Mapping) or not isinstance(source.get("run") or "", str):
            raise _nonsense(f"{name}.from", source, "an object with a stage and a run")
        _check_name(f"{name}.from.stage", str(source.get("stage") or ""))
    elif not data["path"]:
        raise _nonsense(f"{name}.path", "", "a path, or `from`")
    for field in ("prompt", "response", "chosen", "rejected", "split", "subset"):
        if not isinstance(data.get(field) or "", str):
            raise _nonsense(f"{name}.{field}", data[field], "text")
    limit = data.get("limit") or 0
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise _nonsense(f"{name}.limit", limit, "a whole number, 0 or more")
    if (data.get("format") or "auto") not in FORMATS:
        raise _nonsense(f"{name}.format", data["format"], " or ".join(FORMATS))


def _nonsense(name: str, found: Any, wanted: str) -> Problem:
    said = "nothing" if found is None else f"`{found}`"
    return Problem("R001", f"the plan's `{name}` is {said}, expected {wanted}; compile the spec again")
