"""Mistral 7B: Llama's table, with a sliding window in its first version."""

from __future__ import annotations

from typing import Any

from runtime.hf.llama import table
from runtime.hf.table import Family
from specc.plan import Shape


def config(shape: Shape) -> dict[str, Any]:
    return {"sliding_window": shape.sliding_window or None}


FAMILY = Family("mistral", table, lambda shape: ("MistralForCausalLM", "mistral"), config)
