"""Gemma 1: Llama's table. Its norms store the weight minus one, as Megatron's zero-centred ones do."""

from __future__ import annotations

from typing import Any

from runtime.hf.llama import table
from runtime.hf.table import Family
from specc.plan import Shape


def config(shape: Shape) -> dict[str, Any]:
    return {
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
    }


FAMILY = Family("gemma", table, lambda shape: ("GemmaForCausalLM", "gemma"), config)
