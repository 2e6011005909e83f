"""Log-probabilities against torch's own log-softmax, whole and cut."""

import pytest

pytestmark = pytest.mark.torch

VOCAB, PADDED = 250, 256


def both_ways(rank, size, dtype, group=None):
    """(log-probs, gradient of this rank's columns), and the same from torch on the whole."""
    import torch

    from runtime.logprobs import token_logprobs

    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 5, PADDED, generator=generator).mul_(4).to(dtype)
    labels = torch.randint(0, VOCAB, (3, 5), generator=generator)
    weights = torch.randn(3, 5, generator=generator)
    columns = slice(rank * PADDED // size, (rank + 1) * PADDED // size)

    whole = logits.double().requires_grad_()
    expected = whole[..., :VOCAB].log_softmax(-1).gather(-1, labels[..., None]).squeeze(-1)
    (expected * weights).sum().backward()

    part = logits[..., columns].clone().requires_grad_()
    found = token_logprobs(part * 1, labels, VOCAB, group)  # the copy: our gradient overwrites its logits
    (found * weights).sum().backward()
    return found.detach(), part.grad, expected.detach(), whole.grad[..., columns]


def on_two_ranks():
    import torch.distributed as dist

    from runtime import cpu

    cpu.install()
    dist.init_process_group("gloo")
    return both_ways(dist.get_rank(), 2, __import__("torch").float32, dist.group.WORLD)


def test_they_are_those_of_the_true_vocabulary(world):
    import torch

    found, gradient, expected, expected_gradient = both_ways(0, 1, torch.float32)
    assert torch.allclose(found.double(), expected, rtol=0, atol=1e-5)
    assert torch.allclose(gradient.double(), expected_gradient, rtol=0, atol=1e-6)
    assert not gradient[..., VOCAB:].any()


def test_two_ranks_find_the_same_as_one(world):
    import torch

    for found, gradient, expected, expected_gradient in world(2, on_two_ranks):
        assert torch.allclose(found.double(), expected, rtol=0, atol=1e-5)
        assert torch.allclose(gradient.double(), expected_gradient, rtol=0, atol=1e-6)


def test_bf16_logits_give_fp32_log_probabilities():
    import torch

    found, gradient, expected, _ = both_ways(0, 1, torch.bfloat16)
    assert found.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    assert torch.allclose(found.double(), expected, rtol=0, atol=1e-5)


def test_many_rows_run_in_blocks(monkeypatch):
    import torch

    from runtime import logprobs

    monkeypatch.setattr(logprobs, "_BLOCK", 2 * PADDED)
    found, gradient, expected, expected_gradient = both_ways(0, 1, torch.float32)
    assert torch.allclose(found.double(), expected, rtol=0, atol=1e-5)
    assert torch.allclose(gradient.double(), expected_gradient, rtol=0, atol=1e-6)


def with_entropy(rank, size, group=None):
    """Log-probs, entropies and this rank's gradient of a weighted sum of both; then torch's in float64."""
    import torch

    from runtime.logprobs import token_logprobs_and_entropy

    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(4, 3, PADDED, generator=generator).mul_(3)
    labels = torch.randint(0, VOCAB, (4, 3), generator=generator)
    first, second = torch.randn(2, 4, 3, generator=generator)
    columns = slice(rank * PADDED // size, (rank + 1) * PADDED // size)

    whole = logits.double().requires_grad_()
    log_p = whole[..., :VOCAB].log_softmax(-1)
    expected = log_p.gather(-1, labels[..., None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)
    (expected[0] * first + expected[1] * second).sum().backward()

    part = logits[..., columns].clone().requires_grad_()
    found = token_logprobs_and_entropy(part * 1, labels, VOCAB, group)
    (found[0] * first + found[1] * second).sum().backward()
    pairs = [(found[0], expected[0]), (found[1], expected[1]), (part.grad, whole.grad[..., columns])]
    return [(one.detach(), other.detach()) for one, other in pairs]


def entropy_on_two_ranks():
    import torch.distributed as dist

    from runtime import cpu

    cpu.install()
    dist.init_process_group("gloo")
    return with_entropy(dist.get_rank(), 2, dist.group.WORLD)


def test_the_entropy_and_its_gradient_are_those_of_the_whole_distribution(world):
    import torch

    for results in (with_entropy(0, 1), *world(2, entropy_on_two_ranks)):
        for found, expected in results:
            assert torch.allclose(found.double(), expected, rtol=0, atol=1e-5)
