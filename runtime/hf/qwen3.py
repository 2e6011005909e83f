"""Qwen3, dense and with experts: Llama's table, and a norm on every query and key head."""

from __future__ import annotations

from typing import Any

from runtime.hf import qwen2
from runtime.hf.table import Entry, Family, attention, embeddings, experts, gated_mlp
from specc.plan import Shape


def table(shape: Shape) -> list[Entry]:
    if not shape.experts:
        return [*embeddings(shape), *attention(shape), *gated_mlp(shape)]
    moe = experts("model.layers.{layer}.mlp.", gate="gate_proj", up="up_proj", down="down_proj")
    return [*embeddings(shape), *attention(shape), *moe]


def architecture(shape: Shape) -> tuple[str, str]:
    return ("Qwen3MoeForCausalLM", "qwen3_moe") if shape.experts else ("Qwen3ForCausalLM", "qwen3")


def config(shape: Shape) -> dict[str, Any]:
    if not shape.experts:
        return {**qwen2.config(shape), "attention_bias": False}
    return {
        "use_sliding_window": bool(shape.sliding_window),
        "sliding_window": shape.sliding_window or None,
        "attention_bias": False,
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
        "moe_intermediate_size": shape.expert_ffn,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


FAMILY = Family("qwen3", table, architecture, config)
