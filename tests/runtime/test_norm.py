"""Norms against their formulae in double precision."""

import pytest

pytestmark = pytest.mark.torch


def norm(kind, one_plus, dtype=None, sequence_parallel=False):
    import torch
    from megatron.core.transformer import TransformerConfig

    from runtime import cpu
    from runtime.norm import Norm

    cpu.install()
    config = TransformerConfig(
        num_layers=1,
        hidden_size=16,
        num_attention_heads=2,
        normalization=kind,
        layernorm_zero_centered_gamma=one_plus,
        params_dtype=dtype or torch.float32,
        tensor_model_parallel_size=2 if sequence_parallel else 1,
        sequence_parallel=sequence_parallel,
    )
    return Norm(config, 16, eps=1e-5)


def formula(x, weight, kind):
    x = x.double()
    if kind == "LayerNorm":
        x = x - x.mean(-1, keepdim=True)
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()


@pytest.mark.parametrize("kind", ["RMSNorm", "LayerNorm"])
@pytest.mark.parametrize("one_plus", [False, True])
def test_the_norm_is_its_formula(kind, one_plus):
    import torch

    layer = norm(kind, one_plus)
    x, weight = torch.randn(3, 16), torch.randn(16)
    with torch.no_grad():
        layer.weight.copy_(weight)
    expected = formula(x, weight + 1 if one_plus else weight, kind)
    assert torch.allclose(layer(x).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("one_plus", [False, True])
def test_a_fresh_norm_only_normalises(one_plus):
    import torch

    x = torch.randn(3, 16)
    expected = formula(x, torch.ones(16), "RMSNorm")
    assert torch.allclose(norm("RMSNorm", one_plus)(x).double(), expected, rtol=0, atol=1e-5)


def test_bf16_is_rounded_once_at_the_end():
    import torch

    layer = norm("RMSNorm", False, torch.bfloat16)
    x = torch.randn(3, 16).bfloat16()
    assert layer(x).dtype == torch.bfloat16
    assert torch.equal(layer(x), formula(x, torch.ones(16), "RMSNorm").float().bfloat16())


def test_under_sequence_parallelism_the_weight_says_so():
    assert norm("RMSNorm", False, sequence_parallel=True).weight.sequence_parallel
    assert not norm("RMSNorm", False).weight.sequence_parallel
