"""The tiny twin of a spec: the same stages, roles, settings and files; everything large made small.

A model keeps what is peculiar to its family (norm, activation, biases, experts, heads shared or not) and
shrinks to two layers with random weights. Steps, batches and lengths shrink, pins of
layouts and nodes go, an engine that needs a GPU gives way to the training weights, and data that is not on
this machine becomes generated rows of the declared form, with the fields that the templates name; data that
is here is read as the spec says, so that a wrong key or template is found. Groups of roles stay apart, as
processes of this machine.

The twin is the spec with some values replaced, as if by --set: `changes` gives them, and they stand in the
plan like any other override.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from specc import algorithms, models, twin_words
from specc.plan import Shape
from specc.spec import section as sections

STEPS, ROWS, TOKENS, BATCH = 10, 64, 512, 4
ONLINE_STEPS, RESPONSE = 4, 16
"""Steps, and tokens of a response, where a stage learns from what it generates."""
AT_MOST = {
    "train.global_batch": BATCH,
    "train.seq_length": TOKENS,
    "train.warmup_steps": 1,
    "train.constant_steps": 2,
    "train.validate_every": STEPS // 2,
    "train.save_every": STEPS // 2,
}
"""Numbers that are lowered to this when the spec has more."""
INSTEAD = {"nodes": 1, "gpus": None, "micro_batch": None, "parallel": {}, "plan": {}, "precision": "fp32"}
"""Values that are replaced whatever the spec says, where it says anything."""
SAMPLING = {
    "max_prompt_tokens": None,
    "stop_token_ids": [],
    "engine": "megatron",
    "unload": False,
    "family": None,
    "rows": None,
    "expected_tokens": None,
    "expected_prompt_tokens": None,
}
"""The same for the section `generate`: numbers of another tokenizer, and of GPUs."""


def changes(resolved: Mapping[str, Any], folder: Path, asked: Sequence[str] = ()) -> list[str]:
    """What makes a resolved spec tiny, as `path=value`; relative paths start from `folder`.

    Numbers of `train` that the user `asked` for by --set stay as they are: who wants more steps gets them.
    """
    stages = resolved.get("stages")
    parts = {f"stages.{name}.": stage for name, stage in stages.items()} if stages else {"": resolved}
    found = [change for prefix, stage in parts.items() for change in _of_stage(stage, prefix, folder)]
    found = twin_words.on_the_rows(found, parts.values(), folder)
    kept = {path for path in (override.partition("=")[0] for override in asked) if "train." in path}
    return [change for change in found if change.partition("=")[0] not in kept]


def shrunk(shape: Shape) -> Shape:
    """A shape of the same kind with two layers of 64 numbers."""
    groups = 4 if shape.kv_groups == shape.heads else 1 if shape.kv_groups == 1 else 2
    return dataclasses.replace(
        shape,
        layers=2,
        hidden=64,
        ffn=128,
        heads=4,
        kv_groups=groups,
        head_dim=16,
        vocab=512,
        max_positions=max(TOKENS, min(shape.max_positions, 4096)),
        sliding_window=min(shape.sliding_window, 64),
        embedding_scale=8.0 if shape.embedding_scale != 1.0 else 1.0,
        experts=min(shape.experts, 4),
        experts_per_token=min(shape.experts_per_token, 2),
        expert_ffn=128 if shape.expert_ffn else 0,
        shared_expert_ffn=128 if shape.shared_expert_ffn else 0,
        rope_scaling={},
    )


def _of_stage(stage: Mapping[str, Any], prefix: str, folder: Path) -> Iterator[str]:
    train = stage.get("train") or {}
    is_online = "rollouts" in (stage.get(stage.get("algorithm", "")) or {})
    steps = ONLINE_STEPS if is_online else STEPS
    smaller = getattr(algorithms.load(stage["algorithm"]), "smaller", None)
    own: Mapping[str, Any] = smaller(stage) if smaller else {}  # what an algorithm knows better
    if train and "train.steps" not in own:
        yield _set(f"{prefix}train.steps", min(train.get("steps") or steps, steps))
    for path, most in AT_MOST.items():
        said = _at(stage, path)
        if path.endswith("_every"):
            most = steps // 2
        if path not in own and isinstance(said, int) and said > most:
            yield _set(prefix + path, most)
    if train.get("micro_batch"):
        yield _set(f"{prefix}train.micro_batch", None)
    yield from _of_role(stage, prefix, folder)
    for name, role in (stage.get("roles") or {}).items():
        yield from _of_role(role, f"{prefix}roles.{name}.", folder)
    if is_online:
        yield from _of_rollouts(stage, prefix)
    if smaller and stage.get("generate"):
        yield from _of_sampling(stage["generate"], prefix)
    for path, value in own.items():
        yield _set(prefix + path, value)
    model = stage.get("model") or _at(stage, "roles.actor.model") or ""
    chats, judged = "chat_template" in model, _are_judged(stage)
    stands_in = getattr(algorithms.load(stage["algorithm"]), "stands_in", None)
    subset = stands_in(stage) if stands_in else None
    for key, data in (stage.get("data") or {}).items():
        chat = chats and _may_chat(stage, key)
        yield from _of_data(data, f"{prefix}data.{key}", folder, chat, judged, subset)


def _of_role(role: Mapping[str, Any], prefix: str, folder: Path) -> Iterator[str]:
    for key, value in INSTEAD.items():
        if _is_said(role.get(key)) and role[key] != value:
            yield _set(prefix + key, value)
    for path in ("model", "reference.model"):
        if model := _at(role, path):
            yield from _of_model(model, f"{prefix}{path}", folder)


def _is_said(value: Any) -> bool:
    return any(map(_is_said, value.values())) if isinstance(value, Mapping) else value is not None


def _of_rollouts(stage: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Few short responses; as many optimizer steps over them as before, one or two."""
    own, generate = stage[stage["algorithm"]], stage["generate"]
    batches = {"train": _at(stage, "train.global_batch")}
    for name, role in stage["roles"].items():
        if said := _at(role, "train.global_batch"):
            batches[f"roles.{name}.train"] = said
            if said > BATCH:
                yield _set(f"{prefix}roles.{name}.train.global_batch", BATCH)
    turns = 1 if own["rollouts"] <= max(batches.values()) else 2
    responses = min(own.get("responses") or 1, BATCH)
    if own.get("responses", responses) != responses:
        yield _set(f"{prefix}{stage['algorithm']}.responses", responses)
    if own["truncated"] != "keep":  # a model that has not learnt to end would be taught nothing
        yield _set(f"{prefix}{stage['algorithm']}.truncated", "keep")
    rollouts = math.lcm(responses, *(min(batch, BATCH) for batch in batches.values())) * turns
    if own["rollouts"] > rollouts:
        yield _set(f"{prefix}{stage['algorithm']}.rollouts", rollouts)
    yield from _of_sampling(generate, prefix)


def _of_sampling(generate: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in SAMPLING.items():
        if generate.get(key, value) != value:
            yield _set(f"{prefix}generate.{key}", value)
    for key in ("max_tokens", "min_tokens"):
        if generate[key] > RESPONSE:
            yield _set(f"{prefix}generate.{key}", RESPONSE)


def _of_model(said: Any, path: str, folder: Path) -> Iterator[str]:
    """The model's small sibling; one that comes from another stage has shrunk there."""
    if isinstance(said, Mapping) and isinstance(said.get("from"), str):
        return
    model, _ = models.resolve(said, path, folder)
    if model is None:
        return
    small = {key: value for key, value in dataclasses.asdict(shrunk(model.shape)).items() if value != {}}
    kept = {key: said[key] for key in ("chat_template",) if isinstance(said, Mapping) and said.get(key)}
    if (words := twin_words.tokenizer_of(model, folder)) == model.tokenizer:
        small["vocab"] = model.shape.vocab  # it is here, and has all its entries
    yield _set(path, {"shape": small, **kept, **({"tokenizer": words} if words else {})})


def _are_judged(stage: Mapping[str, Any]) -> bool:
    """Whether rows to learn from are of a form of which no data set may say that it is a conversation."""
    spec = algorithms.load(stage["algorithm"]).Spec
    data = sections.inner(spec, "data") if "data" in sections.keys(spec) else None
    rows = sections.inner(data, "train") if data and "train" in sections.keys(data) else None
    if rows is None:
        return False
    return "format" not in rows.model_fields or "chat" not in get_args(rows.model_fields["format"].annotation)


def _may_chat(stage: Mapping[str, Any], key: str) -> bool:
    """Whether a data set may say that its rows are conversations; of a list nobody asks."""
    data = sections.inner(algorithms.load(stage["algorithm"]).Spec, "data")
    rows = sections.inner(data, key) if data and key in sections.keys(data) else None
    form = rows.model_fields.get("format") if rows else None
    return rows is None or (form is not None and "chat" in get_args(form.annotation))


def _of_data(
    said: Any, path: str, folder: Path, chats: bool, judged: bool, subset: str | None = None
) -> Iterator[str]:
    """Few of the rows that are here; generated ones of the same form in place of those that are not. The
    algorithm itself may say in which form: `subset`.
    """
    several = isinstance(said, list)
    small = [_few(rows, folder, chats, judged, subset) for rows in (said if several else [said])]
    if any(rows is not None for rows in small):
        given = [rows or before for rows, before in zip(small, said if several else [said], strict=True)]
        yield _set(path, given if several else given[0])


def _few(said: Any, folder: Path, chats: bool, judged: bool, subset: str | None) -> dict[str, Any] | None:
    """A data set made small; None for one that another stage makes."""
    rows = {"path": said} if isinstance(said, str) else said
    source = rows.get("from") if rows else None
    elsewhere = isinstance(source, Mapping) and source.get("run") and not _is_here(source["run"], folder)
    if not rows or ("path" not in rows and not elsewhere):
        return None
    limit = min(rows.get("limit") or ROWS, ROWS)
    if not elsewhere and _is_here(rows["path"], folder):
        return {**rows, "limit": limit}
    kept = {key: value for key, value in rows.items() if key not in ("path", "from", "split", "subset")}
    says_nothing = isinstance(said, str)  # but where it lies
    forms_itself = kept.get("prompt", "{input}") != "{input}" or ("format" not in kept and not says_nothing)
    form = {"format": "chat"} if chats and not judged and not forms_itself else {}
    form = {"subset": subset} if subset else form
    return {**kept, **form, "path": "builtin:arithmetic", "limit": limit}


def _is_here(path: str, folder: Path) -> bool:
    """Generated rows, or a file that this machine has."""
    if path.startswith("builtin:"):
        return True
    return "://" not in path and (folder / Path(path).expanduser()).exists()


def _at(stage: Mapping[str, Any], path: str) -> Any:
    value: Any = stage
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _set(path: str, value: Any) -> str:
    """JSON is YAML, so any value can be written like this."""
    return f"{path}={json.dumps(value)}"
