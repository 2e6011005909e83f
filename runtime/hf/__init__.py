"""Hugging Face checkpoints in and out of the engine, one small table per family.

What lives here: one file per family says which Hugging Face tensors make up which Megatron
parameter (`llama`, `mistral`, `mixtral`, `qwen2`, `qwen3`, `gemma`; the file's name is the
family's) in the words of `table`; `source` reads safetensors folders, `imports` puts them into
whatever layout the ranks have, `exports` writes a folder that transformers opens; `fetch` finds files.

Only the slices that a rank needs are read, and an export holds one tensor at a time, so neither needs
the memory of a whole model. To add a family, add a file with `FAMILY`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.parallel import Parallel
    from specc.plan import Role


def import_weights(
    model: Any,
    role: Role,
    folder: str | Path,
    parallel: Parallel,
    alive: Callable[[], object] = lambda: None,
    with_head: bool = True,
) -> None:
    """Read the weights of a safetensors folder, URL or Hugging Face id into `model` (see `imports.fill`)."""
    from runtime.hf import imports  # torch and Megatron only when weights move

    imports.fill(model, role, str(folder), parallel, alive, with_head)


def export_weights(
    model: Any,
    role: Role,
    folder: str | Path,
    parallel: Parallel,
    dtype: str = "bfloat16",
    alive: Callable[[], object] = lambda: None,
) -> None:
    """Write `model` as a folder that transformers opens (see `exports.write`)."""
    from runtime.hf import exports

    exports.write(model, role, Path(folder), parallel, dtype, alive)
