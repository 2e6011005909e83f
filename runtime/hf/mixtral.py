"""Mixtral 8x7B and 8x22B: Mistral with experts, each with matrices w1 (gate), w3 (up), w2 (down)."""

from __future__ import annotations

from typing import Any

from runtime.hf.table import Entry, Family, attention, embeddings, experts
from specc.plan import Shape


def table(shape: Shape) -> list[Entry]:
    moe = experts("model.layers.{layer}.block_sparse_moe.", gate="w1", up="w3", down="w2")
    return [*embeddings(shape), *attention(shape), *moe]


def config(shape: Shape) -> dict[str, Any]:
    return {
        "intermediate_size": shape.expert_ffn or shape.ffn,
        "sliding_window": shape.sliding_window or None,
        "num_local_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
    }


FAMILY = Family("mixtral", table, lambda shape: ("MixtralForCausalLM", "mixtral"), config)
