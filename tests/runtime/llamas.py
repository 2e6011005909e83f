"""Small random Llamas as transformers writes them, and the roles that load them."""

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
    "max_position_embeddings": 96,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": None,
}


def saved(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A random model in fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**(SMALL | changes))).save_pretrained(folder)
    return folder


def role(folder: Path, layout: Layout | None = None) -> Role:
    """A role whose model is the one in `folder`."""
    layout = layout or Layout()
    shape = shape_from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    return Role(
        name="model",
        program="sft",
        nodes=1,
        gpus=layout.world_size,
        layout=layout,
        micro_batch=1,
        global_batch=8,
        model=Model(name="toy", shape=shape, weights=Weights(kind="hf", path=str(folder)), head="language"),
        precision="fp32",
        distributed_optimizer=False,
    )
