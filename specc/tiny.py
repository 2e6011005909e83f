"""The tiny twin of a spec: the same stages, algorithm, settings and files; everything large made small.

A model keeps what is peculiar to its family (norm, activation, biases, experts, heads shared or not) and
shrinks to two layers with random weights and the byte tokenizer. Steps, batches and lengths shrink, a
pinned layout goes, and data that is not on this machine becomes generated rows; data that is here is read
as the spec says, so that a wrong key or template is found.

The twin is the spec with some values replaced, as if by --set: `changes` gives them, and they stand in the
plan like any other override.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from specc import models
from specc.plan import Shape

STEPS, ROWS, TOKENS, BATCH = 10, 64, 512, 4
AT_MOST = {
    "train.global_batch": BATCH,
    "train.seq_length": TOKENS,
    "train.warmup_steps": 1,
    "train.constant_steps": 2,
    "train.validate_every": STEPS // 2,
    "train.save_every": STEPS // 2,
}
"""Numbers that are lowered to this when the spec has more."""
INSTEAD = {"nodes": 1, "gpus": None, "parallel": {}, "precision": "fp32"}
"""Values that are replaced whatever the spec says, where it says anything."""


def changes(resolved: Mapping[str, Any], folder: Path, asked: Sequence[str] = ()) -> list[str]:
    """What makes a resolved spec tiny, as `path=value`; relative paths start from `folder`.

    Numbers of `train` that the user `asked` for by --set stay as they are: who wants more steps gets them.
    """
    stages = resolved.get("stages")
    parts = {f"stages.{name}.": stage for name, stage in stages.items()} if stages else {"": resolved}
    found = [change for prefix, stage in parts.items() for change in _of_stage(stage, prefix, folder)]
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
    if train:
        yield _set(f"{prefix}train.steps", min(train.get("steps") or STEPS, STEPS))
    for path, most in AT_MOST.items():
        said = _at(stage, path)
        if isinstance(said, int) and said > most:
            yield _set(prefix + path, most)
    if train.get("micro_batch"):
        yield _set(f"{prefix}train.micro_batch", None)
    yield from _of_role(stage, prefix, folder)
    for name, role in (stage.get("roles") or {}).items():
        yield from _of_role(role, f"{prefix}roles.{name}.", folder)
    chats, judged = "chat_template" in stage.get("model", ""), stage.get("algorithm") == "reward"
    for key, data in (stage.get("data") or {}).items():
        yield from _of_data(data, f"{prefix}data.{key}", folder, chats, judged)


def _of_role(role: Mapping[str, Any], prefix: str, folder: Path) -> Iterator[str]:
    for key, value in INSTEAD.items():
        if role.get(key, value) != value:
            yield _set(prefix + key, value)
    if role.get("model"):
        yield from _of_model(role["model"], f"{prefix}model", folder)


def _of_model(said: Any, path: str, folder: Path) -> Iterator[str]:
    """The model's small sibling; one that comes from another stage has shrunk there."""
    if isinstance(said, Mapping) and isinstance(said.get("from"), str):
        return
    model, _ = models.resolve(said, path, folder)
    if model is None:
        return
    small = {key: value for key, value in dataclasses.asdict(shrunk(model.shape)).items() if value != {}}
    kept = {key: said[key] for key in ("chat_template",) if isinstance(said, Mapping) and said.get(key)}
    yield _set(path, {"shape": small, **kept})


def _of_data(said: Any, path: str, folder: Path, chats: bool, judged: bool) -> Iterator[str]:
    """Few of the rows that are here; generated ones in place of those that are not."""
    rows = {"path": said} if isinstance(said, str) else said
    if "path" not in rows:
        return
    if _is_here(rows["path"], folder):
        yield _set(path, {**rows, "limit": min(rows.get("limit") or ROWS, ROWS)})
    else:
        form = {"format": "chat"} if (chats and not judged) or rows.get("format") == "chat" else {}
        yield _set(path, {"path": "builtin:arithmetic", **form, "limit": ROWS})


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
