"""Parts of a layer whose gradients are written by hand, because they then pass over memory less often.

    rms_norm   y = x r w,  r = 1 / sqrt(mean x^2 + e)     keeps x and r, and no normalised copy
    gated      y = f(a) b,  (a, b) = the halves of x      keeps x alone; both gradients go into one tensor
    rotated    rotary positions                           no half is turned by a copy

They are what autograd would make of the same formulae, to the last few bits. Nothing here is about a device.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., h] over its root mean square, times weight [h]; all in the type of x."""
    if not torch.is_grad_enabled():
        return _normed(x, weight, eps)[0]
    return _RmsNorm.apply(x, weight, eps)  # type: ignore[no-any-return]


def gated(x: Tensor, activation: str) -> Tensor:
    """f(a) * b of x [..., 2 f] = (a, b); `activation` is `swiglu` or `geglu` (with tanh)."""
    if not torch.is_grad_enabled():
        return _product(x, activation)
    return _Gated.apply(x, activation)  # type: ignore[no-any-return]


def rotated(t: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """t cos + (-t2, t1) sin, of t [..., d] = (t1, t2); cos and sin have t's last size and broadcast."""
    if not torch.is_grad_enabled():
        return _turned(t, cos, sin, 1)
    return _Rotated.apply(t, cos, sin)  # type: ignore[no-any-return]


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, r = _normed(x, weight, eps)
        ctx.save_for_backward(x, weight, r)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """With n = x r: dw = sum g n;  dx = r (g w - n mean(g w n))."""
        (x, weight, r), g = ctx.saved_tensors, gradients[0]
        turned = (g * x).mul_(r)  # g n
        mean = (turned @ weight).div_(x.size(-1)).unsqueeze(-1)
        of_weight = turned.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        del turned
        of_x = (g * weight).mul_(r).addcmul_(x, mean.mul_(r).mul_(r), value=-1)
        return of_x, of_weight, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.activation = activation
        return _product(x, activation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """d/da = g b f'(a);  d/db = g f(a)."""
        (x,), g = ctx.saved_tensors, gradients[0]
        a, b = x.chunk(2, dim=-1)
        grad = torch.empty_like(x)
        of_a, of_b = grad.chunk(2, dim=-1)
        torch.mul(_activated(a, ctx.activation), g, out=of_b)
        if ctx.activation == "swiglu":
            torch.ops.aten.silu_backward.grad_input(g * b, a, grad_input=of_a)
        else:
            torch.ops.aten.gelu_backward.grad_input(g * b, a, approximate="tanh", grad_input=of_a)
        return grad, None


def _normed(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    r = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (x * r).mul_(weight), r


def _product(x: Tensor, activation: str) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return _activated(a, activation).mul_(b)


def _activated(a: Tensor, activation: str) -> Tensor:
    return F.silu(a) if activation == "swiglu" else F.gelu(a, approximate="tanh")


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(t, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Back by the same angle."""
        cos, sin = ctx.saved_tensors
        return _turned(gradients[0], cos, sin, -1), None, None


def _turned(t: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    half = t.size(-1) // 2
    out = t * cos
    out[..., :half].addcmul_(t[..., half:], sin[..., :half], value=-sign)
    out[..., half:].addcmul_(t[..., :half], sin[..., half:], value=sign)
    return out
