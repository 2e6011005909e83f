"""Llama 2, 3, 3.1, 3.2 and their kin."""

from __future__ import annotations

from typing import Any

from runtime.hf.table import Entry, Family, attention, embeddings, gated_mlp
from specc.plan import Shape


def table(shape: Shape) -> list[Entry]:
    return [*embeddings(shape), *attention(shape), *gated_mlp(shape)]


def config(shape: Shape) -> dict[str, Any]:
    return {"attention_bias": shape.linear_bias, "mlp_bias": shape.linear_bias}


FAMILY = Family("llama", table, lambda shape: ("LlamaForCausalLM", "llama"), config)
