"""The config.json of a shape, and whether a folder's config.json means the same model.

The keys are those that every version of transformers reads: `rope_theta` and `rope_scaling` rather
than the newer `rope_parameters`.
"""

from __future__ import annotations

from typing import Any

from runtime.hf.table import family
from runtime.tokenizer import Tokenizer
from specc.plan import Model, Shape


def config_of(shape: Shape, dtype: str = "bfloat16", tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """What transformers needs to build the model; ids of special tokens when the tokenizer is given."""
    own = family(shape.family)
    architecture, model_type = own.architecture(shape)
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_groups,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_positions,
        "initializer_range": shape.init_std,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_base,
        "rope_scaling": dict(shape.rope_scaling) or None,
        "tie_word_embeddings": shape.tied,
        "attention_dropout": 0.0,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    ids = {} if tokenizer is None else special_ids(tokenizer, shape.vocab)
    return config | own.config(shape) | ids


def head_config_of(model: Model) -> dict[str, Any]:
    """What config.json says of a head of numbers: the class that has one, and what each number means."""
    if model.head == "language":
        return {}
    names = model.attributes or ("reward",)
    architecture, _ = family(model.shape.family).architecture(model.shape)
    return {
        "architectures": [architecture.replace("ForCausalLM", "ForSequenceClassification")],
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": "regression",
        "use_cache": False,
    }


def other_attributes(model: Model, found: dict[str, Any]) -> str:
    """Where a folder's head has other attributes than the planned one: which; empty when they agree."""
    labels = found.get("id2label")
    names = [str(name) for _, name in sorted(labels.items(), key=_number)] if isinstance(labels, dict) else []
    is_named = any(not name.startswith("LABEL_") for name in names)
    if not is_named or not model.attributes or names == list(model.attributes):
        return ""
    return f"its head has the attributes {', '.join(names)}, the planned one {', '.join(model.attributes)}"


def _number(item: tuple[Any, Any]) -> tuple[int, str]:
    key = str(item[0])
    return (int(key), "") if key.isdecimal() else (-1, key)


def generation_config_of(tokenizer: Tokenizer, vocab: int) -> dict[str, Any]:
    """What begins and ends a generation; several ends stay several."""
    ids = special_ids(tokenizer, vocab)
    if len(tokenizer.eos_ids) > 1:
        ids["eos_token_id"] = [i for i in tokenizer.eos_ids if i < vocab]
    return ids


def special_ids(tokenizer: Tokenizer, vocab: int) -> dict[str, Any]:
    """Ids of the special tokens; null for one that the model has no row for."""
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    known = {name: i if i is not None and i < vocab else None for name, i in ids.items()}
    return {f"{name}_token_id": i for name, i in known.items()}


COMPARED = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "hidden_act", "rms_norm_eps", "rope_theta", "rope_scaling", "tie_word_embeddings",
    "sliding_window", "max_window_layers", "num_experts_per_tok", "norm_topk_prob",
)  # fmt: skip
"""Keys that change what the model computes and that the sizes of tensors do not give away."""

_ABSENT = {"norm_topk_prob": False, "hidden_act": "silu", "rope_theta": 10000.0, "attention_bias": False}
"""What transformers takes for a key that is not there, where it is not the shape's own business."""


def differences(shape: Shape, found: dict[str, Any]) -> list[str]:
    """Where a folder's config.json describes another model than the plan, as `key: 1 there, 2 planned`."""
    planned = config_of(shape)
    theirs = _plain(found)
    wrong = []
    for key in COMPARED:
        if key not in planned or (key == "max_window_layers" and not shape.sliding_window):
            continue
        absent = _ABSENT.get(key, planned[key])
        there = theirs.get(key, absent)
        there = planned[key] if there is None and key in ("head_dim", "num_key_value_heads") else there
        if not _same(there, planned[key]):
            wrong.append(f"{key} is {there!r} there and {planned[key]!r} in the plan")
    return wrong


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json in the older words, with what does not count left out."""
    plain = dict(config)
    rope = plain.pop("rope_parameters", None)
    if isinstance(rope, dict):
        plain["rope_theta"] = rope.get("rope_theta", plain.get("rope_theta", 10000.0))
        plain["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
    scaling = plain.get("rope_scaling")
    if isinstance(scaling, dict):
        scaling = {k: v for k, v in scaling.items() if k != "type"} | (
            {"rope_type": scaling["type"]} if "rope_type" not in scaling and "type" in scaling else {}
        )
        plain["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    if str(plain.get("model_type", "")).startswith("qwen") and not plain.get("use_sliding_window"):
        plain["sliding_window"] = None
    if plain.get("model_type") == "gemma":
        plain["hidden_act"] = "gelu_pytorch_tanh"  # its config.json says `gelu` and means this one
    if plain.get("hidden_act") == "swish":
        plain["hidden_act"] = "silu"
    return plain


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float | int) and isinstance(b, float | int):
        return abs(a - b) <= 1e-9 * max(abs(a), abs(b))
    return a == b
