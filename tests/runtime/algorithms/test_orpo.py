"""Odds ratios: the formula against its definition and TRL's, then runs that do not depend on the layout."""

import math
import types

import pytest
import torch
import toy_preferences
from hypothesis import given
from hypothesis import strategies as st
from toy_preferences import polite, ran, validated

from runtime.algorithms import orpo
from runtime.algorithms.orpo import Settings, means
from runtime.batch import Sample, dealt
from specc.plan import Layout

pytestmark = pytest.mark.torch

MEANS = st.floats(-20, -1e-3)


def softplus(x):
    """log(1 + e^x) without overflow: -log sigmoid(-x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def odds(p):
    """log(e^p / (1 - e^p))."""
    return math.log(math.exp(p) / (1 - math.exp(p)))


@given(pairs=st.lists(st.tuples(MEANS, MEANS), min_size=1, max_size=6))
def test_the_loss_is_its_formula(pairs):
    wanted = [softplus(odds(r) - odds(c)) for c, r in pairs]
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
        chosen, rejected = torch.tensor(pairs, dtype=dtype).T
        found = orpo.odds_ratio(chosen, rejected)
        assert found.dtype == dtype
        assert found.tolist() == pytest.approx(wanted, rel=bound, abs=bound)


def test_a_certain_response_has_finite_odds_and_a_finite_gradient():
    p = torch.tensor([0.0, -1e-12, -1e4], dtype=torch.float64, requires_grad=True)
    found = orpo.log_odds(p)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(p.grad).all()


@pytest.mark.filterwarnings("ignore")
def test_the_loss_is_that_of_trl():
    """Where TRL is installed, its trainer's own loss on the same mean log-probabilities."""
    trl = pytest.importorskip("trl.experimental.orpo")
    draw = torch.Generator().manual_seed(2)
    chosen, rejected = -3 * torch.rand(8, generator=draw), -3 * torch.rand(8, generator=draw)
    trainer = types.SimpleNamespace(beta=0.1, accelerator=types.SimpleNamespace(device="cpu"))
    losses = trl.ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)[0]  # to be taken from the likelihood
    assert (-0.1 * orpo.odds_ratio(chosen, rejected)).tolist() == pytest.approx(losses.tolist(), rel=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_a_microbatch_s_share_is_the_mean_over_its_pairs(packed):
    sizes = [(2, 3), (2, 1), (1, 4), (1, 2)]
    samples = [Sample(i, list(range(p + n)), [0] * p + [1] * n, (1.0,)) for i, (p, n) in enumerate(sizes)]
    [batch] = dealt([samples] if packed else [[s] for s in samples], 0, 1, 1 if packed else 4, packed=packed)
    logprobs = -(1 + batch.labels_BT % 3).float()
    value, sums = orpo.loss(logprobs, batch, settings=Settings(0.3), denominator=2)
    p = [-sum(1 + t % 3 for t in range(a, a + n)) / n for a, n in sizes]
    preference = [softplus(odds(r) - odds(c)) for c, r in zip(p[::2], p[1::2], strict=True)]
    assert value.item() == pytest.approx((-p[0] - p[2] + 0.3 * sum(preference)) / 2, rel=1e-10)
    found = means({"loss": value.item(), **{k: float(v) for k, v in sums.items()}})
    assert found["sft_loss"] == pytest.approx(-(p[0] + p[2]) / 2, rel=1e-10)
    assert found["rewards_rejected_mean"] == pytest.approx(0.3 * (p[1] + p[3]) / 2, rel=1e-10)
    assert (found["chosen_lengths"], found["reject_lengths"]) == (3.5, 1.5)


@pytest.mark.parametrize(
    ("layout", "sizes"),
    [(Layout(dp=2), {"micro_batch": 2}), (Layout(tp=2, pp=2), {}), (Layout(), {"packing": True})],
    ids=str,
)
def test_every_layout_takes_the_same_steps(world, tmp_path, layout, sizes):
    rows, sizes = polite(tmp_path), dict(sizes)
    short = {"steps": 2, "save_every": 0, "lr": 1e-2}
    packed = short | ({"packing": True} if sizes.pop("packing", False) else {})
    alone = ran(world, tmp_path / "alone", toy_preferences.plan(rows, program="orpo", train=short))
    found = toy_preferences.plan(rows, layout, program="orpo", train=packed, **sizes)
    for line, wanted in zip(ran(world, tmp_path / "cut", found), alone, strict=True):
        for key in ("loss", "preference_loss", "grad_norm", "rewards_all_std"):
            assert line[key] == pytest.approx(wanted[key], rel=1e-4), key


def test_the_model_learns_to_answer_and_to_be_polite(world, tmp_path):
    rows, others = polite(tmp_path, 96), polite(tmp_path, 48, seed=1)
    train = {"steps": 30, "validate_every": 30, "lr": 1e-2, "save_every": 0}
    found = toy_preferences.plan(rows, program="orpo", own={"weight": 0.5}, validation=others, train=train)
    lines = ran(world, tmp_path / "run", found)
    [measured] = validated(tmp_path / "run")
    assert measured["validation_acc"] > 0.95
    assert measured["validation_sft_loss"] < lines[0]["sft_loss"] / 4
