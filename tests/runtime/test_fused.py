"""Gradients that are written by hand, against autograd's of the same formulae in double precision."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.torch


def numbers(*shape: int, seed: int = 0, dtype: Any = None) -> Any:
    import torch

    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(dtype or torch.float64).requires_grad_()


def gradients(f: Any, *inputs: Any) -> list[Any]:
    """The output and, for a random gradient of it, those of the inputs."""
    import torch

    out = f(*inputs)
    found = torch.autograd.grad(out, inputs, numbers(*out.shape, seed=9).detach().to(out.dtype))
    return [out, *found]


def assert_alike(ours: list[Any], theirs: list[Any], within: float = 1e-12) -> None:
    import torch

    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.double(), other.double(), rtol=within, atol=within)


def test_the_norm_and_its_gradients_are_autograd_s() -> None:
    from runtime import fused

    def plain(x: Any, w: Any) -> Any:
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * w

    x, w = numbers(3, 5, 16), numbers(16, seed=1)
    assert_alike(gradients(lambda x, w: fused.rms_norm(x, w, 1e-5), x, w), gradients(plain, x, w))


def test_a_norm_whose_weight_is_frozen_still_passes_gradients_on() -> None:
    from runtime import fused

    x, w = numbers(4, 8), numbers(8, seed=1).detach()
    fused.rms_norm(x, w, 1e-5).sum().backward()
    assert x.grad is not None
    assert w.grad is None


@pytest.mark.parametrize("kind", ["swiglu", "geglu"])
def test_the_gate_and_its_gradient_are_autograd_s(kind: str) -> None:
    import torch.nn.functional as F

    from runtime import fused

    def plain(x: Any) -> Any:
        a, b = x.chunk(2, dim=-1)
        return (F.silu(a) if kind == "swiglu" else F.gelu(a, approximate="tanh")) * b

    x = numbers(3, 5, 12)
    assert_alike(gradients(lambda x: fused.gated(x, kind), x), gradients(plain, x))


@pytest.mark.parametrize("part", [1.0, 0.5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rotary_positions_are_megatron_s(part: float, dtype: str) -> None:
    import torch
    from megatron.core.models.common.embeddings import rope_utils

    from runtime import cpu

    def plain(t: Any, freqs: Any) -> Any:
        size = freqs.size(-1)
        t, rest = t[..., :size], t[..., size:]
        turned = t * freqs.cos().to(t.dtype) + rope_utils._rotate_half(t, False) * freqs.sin().to(t.dtype)
        return torch.cat((turned, rest), dim=-1)

    cpu.install()
    t = numbers(7, 2, 3, 16, dtype=getattr(torch, dtype))
    freqs = torch.outer(torch.arange(7.0), torch.rand(int(8 * part)))[:, None, None, :].repeat(1, 1, 1, 2)
    ours = gradients(lambda t: rope_utils._apply_rotary_pos_emb_bshd(t, freqs), t)
    assert_alike(ours, gradients(lambda t: plain(t, freqs), t), 1e-6 if dtype == "float32" else 3e-2)


def test_the_feed_forward_of_a_model_is_ours(world: Any) -> None:
    assert world(1, kinds) == [[{"FeedForward"}, {"FeedForward"}]]


def kinds() -> list[set[str]]:
    import toys
    from megatron.core.transformer.mlp import MLP

    from runtime import cpu

    cpu.install()
    from runtime import model, parallel

    found = []
    for shape in (toys.shape(), toys.shape(activation="squared_relu")):
        role = toys.role(shape=shape)
        here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
        (chunk,) = model.build(role, here)
        found.append({type(m).__name__ for m in chunk.modules() if isinstance(m, MLP)})
        parallel.parallel_state.destroy_model_parallel()
    return found
