"""The random state of a process, kept and put back bit by bit.

Everything is tensors, so that it is kept as safetensors and nothing has to be unpickled: Python's and
numpy's generators as well as torch's, the device's, and the named streams of Megatron's tracker.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.tensor_parallel.random import CudaRNGStatesTracker
from safetensors.torch import load, save

from runtime import manifest

_STREAM = "tracker."


def write(path: Path, device: torch.device) -> None:
    """Keep this process's random state in a safetensors file, on the disk; OSError."""
    manifest.write_durably(path, save(captured(device)))


def read(path: Path, device: torch.device) -> None:
    """Put the random state of a file back into this process; OSError, or ValueError for another device."""
    restore(load(path.read_bytes()), device)


def captured(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of every generator of this process, by name; uint8 as torch gives it, else int64 and fp64."""
    _, python_words, python_gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    words = numpy_state["state"]  # type: ignore[index]
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(python_words, dtype=torch.int64),
        "python.gauss": _optional(python_gauss),
        "numpy": torch.tensor([*words["key"].tolist(), words["pos"]], dtype=torch.int64),
        "numpy.gauss": _optional(numpy_state["gauss"] if numpy_state["has_gauss"] else None),  # type: ignore[index]
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state | {_STREAM + name: value.clone() for name, value in _tracker().get_states().items()}


def restore(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put a captured state back; ValueError when it was captured on another kind of device."""
    if ("cuda" in state) != (device.type == "cuda"):
        raise ValueError(f"the random state is not one of device `{device.type}`")
    torch.set_rng_state(state["torch"])
    random.setstate((3, tuple(state["python"].tolist()), _value(state["python.gauss"])))
    words, gauss = state["numpy"].tolist(), _value(state["numpy.gauss"])
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": np.array(words[:-1], dtype=np.uint32), "pos": words[-1]},
            "has_gauss": int(gauss is not None),
            "gauss": gauss or 0.0,
        }
    )
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    streams = {name.removeprefix(_STREAM): value for name, value in state.items() if name.startswith(_STREAM)}
    _tracker().set_states(streams)


def _tracker() -> CudaRNGStatesTracker:
    tracker = get_cuda_rng_tracker()
    assert tracker is not None
    return tracker


def _optional(value: float | None) -> torch.Tensor:
    return torch.tensor([] if value is None else [value], dtype=torch.float64)


def _value(tensor: torch.Tensor) -> float | None:
    return tensor.item() if tensor.numel() else None
