"""One token from logits: truncation and penalty against transformers' own, the draw against its law."""

import pytest

pytestmark = pytest.mark.torch

VOCAB = 50


def logits(rows, seed=0):
    import torch

    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def knobs(*rows):
    from runtime.sampling import Knobs

    return Knobs.of(rows, VOCAB, "cpu")


def settings(**fields):
    from runtime.sampling import Sampling

    return Sampling(**fields)


@pytest.mark.parametrize("top_k", [0, 1, 5, 49, 400])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-6])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_truncation_keeps_what_transformers_keeps(top_k, top_p, temperature):
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    from runtime.sampling import truncated

    scores = logits(40)
    expected = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        expected = TopKLogitsWarper(min(top_k, VOCAB))(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    rows = [settings(top_k=top_k, top_p=top_p, temperature=temperature)] * 40
    found = truncated(scores / temperature, knobs(*rows))
    assert torch.equal(found, expected)


def test_each_row_is_truncated_by_its_own_settings():
    import torch

    from runtime.sampling import truncated

    rows = [
        settings(top_k=3),
        settings(top_p=0.5),
        settings(),
        settings(top_k=2, top_p=0.9),
        settings(temperature=0),
    ]
    together = truncated(logits(5), knobs(*rows))
    for i, row in enumerate(rows):
        assert torch.equal(together[i], truncated(logits(5)[i : i + 1], knobs(row))[0])
    assert together.isfinite().sum(-1).tolist()[2::2] == [VOCAB, VOCAB]


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.3])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    from runtime.sampling import allowed

    ids = torch.randint(0, VOCAB, (8, 12), generator=torch.Generator().manual_seed(1))
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits(8).clone())
    seen = torch.zeros(8, VOCAB, dtype=torch.bool).scatter(1, ids, True)
    found = allowed(logits(8), knobs(*[settings(repetition_penalty=penalty)] * 8), seen, None)
    assert torch.equal(found, expected)


def test_the_logprob_is_of_the_distribution_before_all_that_is_done_to_it():
    import torch

    from runtime.sampling import choose

    scores = logits(6)
    before = scores.clone()
    rows = [settings(temperature=0.5, top_k=4, repetition_penalty=1.5)] * 6
    seen = torch.zeros(6, VOCAB, dtype=torch.bool)
    seen[:, :10] = True
    banned = (torch.arange(6), scores.argmax(-1))
    tokens, logprobs = choose(scores, knobs(*rows), torch.rand(6).double(), seen, banned)
    assert torch.equal(scores, before)
    assert torch.allclose(logprobs, scores.log_softmax(-1).gather(1, tokens[:, None])[:, 0])
    assert (tokens != scores.argmax(-1)).all()


def test_greedy_rows_take_the_largest_beside_rows_that_draw():
    import torch

    from runtime.sampling import choose

    rows = [settings(temperature=0), settings(temperature=100.0)] * 20
    tokens, _ = choose(logits(40), knobs(*rows), torch.full((40,), 0.999, dtype=torch.float64))
    assert torch.equal(tokens[::2], logits(40).argmax(-1)[::2])
    assert (tokens[1::2] > 40).all()


@pytest.mark.parametrize("penalty", [1.0, 1e-3, 1e-40])
@pytest.mark.parametrize("temperature", [5e-324, 1e-45, 1e-39, 1e-9])
def test_the_coldest_row_that_draws_takes_the_largest(temperature, penalty):
    import torch

    from runtime.sampling import choose

    row = settings(temperature=temperature, repetition_penalty=penalty)
    scores = 1000 * logits(8)
    seen = torch.zeros_like(scores, dtype=torch.bool)
    seen[torch.arange(8), scores.argmax(-1)] = True
    tokens, _ = choose(scores, knobs(*[row] * 8), torch.full((8,), 0.999, dtype=torch.float64), seen)
    assert torch.equal(tokens, scores.argmax(-1))


def test_draws_follow_the_distribution():
    import numpy as np
    import torch

    from runtime.sampling import drawn, stream_of, uniforms

    scores = logits(1)[:, :6]
    count = 200_000
    numbers = uniforms(np.full(count, stream_of(7, 3)), np.arange(count))
    tokens = drawn(scores.expand(count, 6), torch.from_numpy(numbers))
    shares = torch.bincount(tokens, minlength=6) / count
    deviation = (scores[0].softmax(-1) / count).sqrt()
    assert ((shares - scores[0].softmax(-1)).abs() < 5 * deviation).all()


def test_a_token_without_mass_is_never_drawn():
    import torch

    from runtime.sampling import drawn

    scores = torch.full((4, 9), -torch.inf)
    scores[:, 3] = scores[:, 5] = 0.0
    ends = torch.tensor([0.0, 0.5, 0.5 - 2.0**-52, 1 - 2.0**-52], dtype=torch.float64)
    assert drawn(scores, ends).tolist() == [3, 5, 3, 5]


def test_streams_of_neighbours_have_nothing_in_common():
    import numpy as np

    from runtime.sampling import stream_of, uniforms

    streams = [stream_of(seed, sequence) for seed in range(-2, 30) for sequence in range(30)]
    assert len(set(streams)) == len(streams)
    table = np.stack([uniforms(np.full(200, stream), np.arange(200)) for stream in streams[:200]])
    assert table.min() >= 0
    assert table.max() < 1
    assert abs(table.mean() - 0.5) < 0.01
    assert abs(table.var() - 1 / 12) < 0.002
    correlations = np.corrcoef(table) - np.eye(200)
    assert np.abs(correlations).max() < 6 / np.sqrt(200)
    assert abs(np.corrcoef(table[:, :-1].ravel(), table[:, 1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0},
        {"min_tokens": 5, "max_tokens": 4},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"stop": ("",)},
    ],
    ids=str,
)
def test_settings_without_meaning_are_refused(fields):
    from runtime.sampling import SamplingError

    with pytest.raises(SamplingError, match=next(iter(fields)).replace("max_tokens", "(max|min)_tokens")):
        settings(**fields)
