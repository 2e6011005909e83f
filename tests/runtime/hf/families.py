"""Tiny random Hugging Face models of every family, as folders, and the roles that load them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from specc.models import shape_from_config
from specc.plan import Layout, Model, Role, Weights

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

SMALL: dict[str, Any] = {
    "vocab_size": 270,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama3-rope": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-head-dim": ("llama", {"head_dim": 32}),
    "mistral": ("mistral", {"sliding_window": 7}),
    "qwen2": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma": ("gemma", {"head_dim": 32, "num_key_value_heads": 1}),
    "mixtral": ("mixtral", {"num_local_experts": 4}),
    "qwen3-moe": (
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True},
    ),
}


def saved(folder: Path, name: str, seed: int = 0, dtype: str = "float32", **changes: Any) -> Path:
    """A random model of that name, written by transformers; biases and norms are random too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, own = CONFIGS[name]
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **(SMALL | own | changes))
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size="100kB")
    return folder


def role(folder: Path, layout: Layout | None = None, **changes: Any) -> Role:
    """A role whose model is the one in `folder`, in fp32."""
    layout = layout or Layout()
    shape = shape_from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    model = Model(name=folder.name, shape=shape, weights=Weights(kind="hf", path=str(folder)))
    fields: dict[str, Any] = {
        "name": "model",
        "program": "sft",
        "nodes": 1,
        "gpus": layout.world_size,
        "layout": layout,
        "micro_batch": 1,
        "global_batch": 8,
        "model": model,
        "precision": "fp32",
        "distributed_optimizer": False,
    }
    return Role(**(fields | changes))


def tensors(folder: Path) -> dict[str, Any]:
    """Every tensor in a folder's safetensors files."""
    from safetensors import safe_open

    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return found
