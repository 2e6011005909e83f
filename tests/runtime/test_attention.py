"""Core attention against the textbook: softmax of a masked (sequence x sequence) matrix."""

import math

import pytest

pytestmark = pytest.mark.torch

HEADS, GROUPS, DIM = 4, 2, 8


def attention(window=0):
    from megatron.core.transformer import TransformerConfig

    from runtime import cpu
    from runtime.attention import Attention

    cpu.install()
    config = TransformerConfig(
        num_layers=1,
        hidden_size=HEADS * DIM,
        num_attention_heads=HEADS,
        num_query_groups=GROUPS,
        kv_channels=DIM,
        window_size=(window - 1, 0) if window else None,
    )
    return Attention(config, 1, None, "self")


def textbook(query, key, value, window=0):
    """[s, h, d] and [t, g, d] -> [s, h * d]; the queries are the last of the keys."""
    import torch

    key, value = (t.repeat_interleave(HEADS // GROUPS, dim=1) for t in (key, value))
    scores = torch.einsum("shd,thd->hst", query, key) / math.sqrt(DIM)
    s, t = scores.shape[1:]
    rows, columns = torch.arange(t - s, t)[:, None], torch.arange(t)[None]
    hidden = columns > rows
    if window:
        hidden |= columns <= rows - window
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("hst,thd->shd", weights, value).flatten(1)


def qkv(s, t=None, b=2):
    import torch

    generator = torch.Generator().manual_seed(s)
    t = t or s
    sizes = [(s, b, HEADS, DIM), (t, b, GROUPS, DIM), (t, b, GROUPS, DIM)]
    return [torch.randn(size, generator=generator, requires_grad=True) for size in sizes]


def assert_like_the_textbook(out, tensors, window=0):
    import torch

    for b in range(out.size(1)):
        expected = textbook(*(t[:, b] for t in tensors), window)
        assert torch.allclose(out[:, b], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 33])
def test_causal_attention_with_grouped_heads(length):
    tensors = qkv(length)
    assert_like_the_textbook(attention()(*tensors), tensors)


@pytest.mark.parametrize("length", [3, 5, 16, 33])
@pytest.mark.parametrize("window", [1, 4, 5])
def test_a_sliding_window_sees_its_last_tokens(length, window):
    tensors = qkv(length)
    assert_like_the_textbook(attention(window)(*tensors), tensors, window)


@pytest.mark.parametrize(("queries", "keys"), [(1, 9), (3, 9)])
@pytest.mark.parametrize("window", [0, 4])
def test_fewer_queries_than_keys_are_the_last_ones(queries, keys, window):
    tensors = qkv(queries, keys)
    assert_like_the_textbook(attention(window)(*tensors), tensors, window)


@pytest.mark.parametrize("window", [0, 4])
def test_packed_segments_do_not_see_one_another(window):
    import torch
    from megatron.core.packed_seq_params import PackedSeqParams

    tensors = [t[:, 0] for t in qkv(20, b=1)]
    bounds = torch.tensor([0, 7, 8, 20], dtype=torch.int32)
    packed = PackedSeqParams(qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds)
    out = attention(window)(*tensors, packed_seq_params=packed)
    for start, end in ((0, 7), (7, 8), (8, 20)):
        expected = textbook(*(t[start:end] for t in tensors), window)
        assert torch.allclose(out[start:end], expected, rtol=0, atol=1e-5)


def test_gradients_are_those_of_the_textbook():
    import torch

    for window in (0, 4):
        ours, theirs = qkv(17, b=1), qkv(17, b=1)
        weights = torch.randn(17, HEADS * DIM)
        (attention(window)(*ours)[:, 0] * weights).sum().backward()
        (textbook(*(t[:, 0] for t in theirs), window) * weights).sum().backward()
        for our, their in zip(ours, theirs, strict=True):
            assert torch.allclose(our.grad, their.grad, rtol=0, atol=1e-5)


def test_a_long_window_makes_no_mask_of_the_whole_sequence(monkeypatch):
    from runtime import attention as module

    sizes = []
    visible = module._visible
    monkeypatch.setattr(module, "_visible", lambda *a: sizes.append(a[:2]) or visible(*a))
    attention(window=8)(*qkv(256, b=1))
    assert max(queries * keys for queries, keys in sizes) <= 8 * 15
