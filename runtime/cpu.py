"""The device shim: Megatron-core on a machine without CUDA.

Megatron asks for the device "cuda" by name, for the current CUDA device, its random state and its
streams. `install()` answers each of these with the CPU. The replacements are plain functions in the
places where Megatron looks, so an ordinary torch call costs nothing extra.

This is the only file that knows about the shim. It is used when the plan's device is `cpu`, also on
a machine that has CUDA.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from runtime import fused

CPU = torch.device("cpu")

_FACTORIES = ("tensor", "as_tensor", "empty", "zeros", "ones", "full", "arange", "rand", "randn", "randint")
_TYPE_NAMES = {
    torch.float32: "torch.cuda.FloatTensor",
    torch.bfloat16: "torch.cuda.BFloat16Tensor",
    torch.float16: "torch.cuda.HalfTensor",
}
_installed = False


def install() -> None:
    """Point what Megatron wants of CUDA at the CPU, once per process, before Megatron is used."""
    global _installed
    if _installed:
        return
    _installed = True
    _import_megatron_uncompiled()
    for name in _FACTORIES:
        setattr(torch, name, _on_cpu(getattr(torch, name)))
    _patch_tensors()
    _patch_cuda_module()
    _patch_megatron()


def _import_megatron_uncompiled() -> None:
    """Import Megatron with its small compiled functions left as they are.

    Compiling them on a CPU takes a C++ compiler and minutes; the decorators act at import.
    """
    import torch._dynamo  # torch's optimizers want it, and it must see torch.cuda as it was

    compile_ = torch.compile
    torch.compile = lambda fn=None, **kwargs: fn if fn else (lambda inner: inner)  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # six lines that Transformer Engine and Apex are absent
            import megatron.core.models.gpt
            import megatron.core.models.gpt.gpt_layer_specs
            import megatron.core.optimizer
            import megatron.core.pipeline_parallel  # noqa: F401
    finally:
        torch.compile = compile_


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(factory)
    def made_on_cpu(*args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs and _is_cuda(kwargs["device"]):
            kwargs["device"] = CPU
        return factory(*args, **kwargs)

    return made_on_cpu


def _is_cuda(device: Any) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.startswith("cuda")


def _patch_tensors() -> None:
    """`tensor.cuda()` is the tensor itself; `tensor.type()` gives the name Megatron compares with."""
    plain_type, plain_to = torch.Tensor.type, torch.Tensor.to

    def type_of(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return plain_type(tensor, *args, **kwargs)
        return _TYPE_NAMES.get(tensor.dtype) or plain_type(tensor)

    def moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args and _is_cuda(args[0]):
            args = (CPU, *args[1:])
        if "device" in kwargs and _is_cuda(kwargs["device"]):
            kwargs["device"] = CPU
        return plain_to(tensor, *args, **kwargs)

    torch.Tensor.cuda = lambda tensor, *args, **kwargs: tensor  # type: ignore[method-assign]
    torch.Tensor.type = type_of  # type: ignore[method-assign]
    torch.Tensor.to = moved  # type: ignore[method-assign]


class _Stream:
    """A CUDA stream or event where everything has already happened."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def record_event(self, event: Any = None) -> _Stream:
        return self

    def record(self, stream: Any = None) -> None:
        pass

    def wait(self, stream: Any = None) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


_DEFAULT_STREAM = _Stream()


@contextlib.contextmanager
def _on_stream(stream: Any) -> Iterator[None]:
    yield


def _patch_cuda_module() -> None:
    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    replacements: dict[str, Any] = {
        "current_device": lambda: CPU,
        "set_device": nothing,
        "synchronize": nothing,
        "empty_cache": nothing,
        "manual_seed": torch.manual_seed,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "Stream": _Stream,
        "Event": _Stream,
        "stream": _on_stream,
        "current_stream": lambda device=None: _DEFAULT_STREAM,
        "default_stream": lambda device=None: _DEFAULT_STREAM,
    }
    for name, replacement in replacements.items():
        setattr(torch.cuda, name, replacement)


def _patch_megatron() -> None:
    from megatron.core import jit
    from megatron.core.models.common.embeddings import rope_utils
    from megatron.core.tensor_parallel import random as megatron_random
    from megatron.core.transformer.moe import moe_utils, token_dispatcher

    jit.disable_jit_fuser()  # for modules imported later
    rope_utils._apply_rotary_pos_emb_bshd = _rotated(rope_utils._apply_rotary_pos_emb_bshd)
    megatron_random._get_cuda_rng_state = lambda device="cuda", clone=False, graph_safe=False: (
        torch.get_rng_state()
    )
    megatron_random._set_cuda_rng_state = lambda new_state, device=-1, graph_safe=False: torch.set_rng_state(
        new_state
    )
    # without Transformer Engine the name is not there, and the router asks whether it is None
    if not hasattr(moe_utils, "te_general_gemm"):
        moe_utils.te_general_gemm = None  # type: ignore[attr-defined]
    token_dispatcher.maybe_move_tensor_to_cpu = _splits_as_numpy


def _splits_as_numpy(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
    """Megatron's `maybe_move_tensor_to_cpu` for tensors that are there already."""
    return tensor.numpy() if as_numpy and isinstance(tensor, torch.Tensor) else tensor


def _rotated(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Megatron's rotary positions without its copies of halves; what only other models have goes its way."""

    last: list[Any] = [None, None, None, None]  # what the layer before asked for, where nothing is kept

    def angles(freqs: Any, scale: float, dtype: Any) -> Any:
        if last[0] is freqs and last[1:3] == [scale, dtype] and not torch.is_grad_enabled():
            return last[3]
        found = tuple((f(freqs) * scale).to(dtype) for f in (torch.cos, torch.sin))
        last[:] = [None if torch.is_grad_enabled() else freqs, scale, dtype, found]
        return found

    def rotated(t: Any, freqs: Any, *args: Any, **kwargs: Any) -> Any:
        if any(args) or kwargs.get("rotary_interleaved") or kwargs.get("multi_latent_attention"):
            return plain(t, freqs, *args, **kwargs)
        size = freqs.size(-1)
        cos, sin = angles(freqs, kwargs.get("mscale", 1.0), t.dtype)
        if size == t.size(-1):
            return fused.rotated(t, cos, sin)
        return torch.cat((fused.rotated(t[..., :size], cos, sin), t[..., size:]), dim=-1)

    return rotated
