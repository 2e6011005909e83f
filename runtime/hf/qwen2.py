"""Qwen2 and Qwen2.5, dense: Llama's table, and a bias on queries, keys and values."""

from __future__ import annotations

from typing import Any

from runtime.hf.llama import table
from runtime.hf.table import Family
from specc.plan import Shape


def config(shape: Shape) -> dict[str, Any]:
    window = shape.sliding_window
    return {"use_sliding_window": bool(window), "sliding_window": window or None, "max_window_layers": 0}


FAMILY = Family("qwen2", table, lambda shape: ("Qwen2ForCausalLM", "qwen2"), config)
