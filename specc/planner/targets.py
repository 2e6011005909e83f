"""Models that can be planned for but not run: latent attention, and dense layers before those with experts.

They are DeepSeek's and the models built like them, which `specc estimate` takes by name or by config.json,
and a few others, which it takes by name. A spec does not, since the runtime has no such layers. Source of
the counting: Megatron-core, where the two down-projections of latent attention are whole on every
tensor-parallel rank.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specc.models import ShapeError, checked
from specc.plan import Shape
from specc.planner.shapes import LatentShape

CATALOG = Path(__file__).parent.parent / "catalog" / "targets.json"

MODEL_TYPES = ("deepseek_v2", "deepseek_v3", "kimi_k2")

KEYS = {
    "num_hidden_layers": "layers",
    "hidden_size": "hidden",
    "intermediate_size": "ffn",
    "num_attention_heads": "heads",
    "vocab_size": "vocab",
    "max_position_embeddings": "max_positions",
    "kv_lora_rank": "kv_rank",
    "qk_nope_head_dim": "plain_dim",
    "qk_rope_head_dim": "rope_dim",
    "v_head_dim": "value_dim",
    "n_routed_experts": "experts",
    "num_experts_per_tok": "experts_per_token",
    "moe_intermediate_size": "expert_ffn",
}
"""Keys of config.json that must be there, and what we call them."""

NOT_NOTHING = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")

OPTIONAL = {
    "q_lora_rank": "query_rank",
    "first_k_dense_replace": "dense_layers",
    "num_nextn_predict_layers": "mtp_layers",
}


@dataclass(frozen=True)
class Target:
    """A model of the catalog that is planned for only."""

    name: str
    shape: Shape
    source: str


@functools.cache
def catalog() -> dict[str, Target]:
    """Every such model by name."""
    rows = json.loads(CATALOG.read_text(encoding="utf-8"))
    return {name: Target(name, _shape(row), row["source"]) for name, row in rows.items()}


def _shape(row: Mapping[str, Any]) -> Shape:
    """The shape of a row: from its `config`, or as `shape` says it in our own words."""
    return checked(Shape(**row["shape"])) if "shape" in row else shape_from_config(row["config"])


def shape_from_config(data: Mapping[str, Any]) -> LatentShape:
    """The shape that such a config.json describes; ShapeError names the key of a missing or absurd number."""
    values: dict[str, Any] = {ours: _number(data, key) for key, ours in KEYS.items()}
    for key in NOT_NOTHING:
        if not values[KEYS[key]]:
            raise ShapeError(f"`{key}` is 0, and latent attention needs it", key)
    values |= {ours: _number(data, key) for key, ours in OPTIONAL.items() if data.get(key) is not None}
    if values.get("dense_layers", 0) > values["layers"]:
        key, most = "first_k_dense_replace", values["layers"]
        raise ShapeError(f"`{key}` is {values['dense_layers']}, more than num_hidden_layers {most}", key)
    shared = _number(data, "n_shared_experts") if data.get("n_shared_experts") is not None else 0
    shape = LatentShape(
        family="llama",
        kv_groups=values["heads"],
        head_dim=max(1, (values["plain_dim"] + values["rope_dim"] + values["value_dim"]) // 4 * 2),
        shared_expert_ffn=shared * values["expert_ffn"],
        tied=bool(data.get("tie_word_embeddings", False)),
        **values,
    )
    checked(shape, {ours: key for key, ours in KEYS.items()})
    return shape


def _number(data: Mapping[str, Any], key: str) -> int:
    value = data.get(key)
    if value is None:
        raise ShapeError(f"`{key}` is missing", key, f"add `{key}`")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 100_000_000:
        raise ShapeError(f"`{key}` is {value!r}, not a whole number from 0 to 100000000", key)
    return value
