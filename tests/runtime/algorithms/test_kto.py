"""Learning from single verdicts: the formula against its definition and TRL's trainer, then whole runs."""

import collections
import math
import types

import pytest
import torch
import toy_preferences
import toy_runs
from hypothesis import given
from hypothesis import strategies as st
from toy_preferences import liked, ran, validated

from runtime.algorithms import kto
from runtime.algorithms.kto import Mismatched, Settings, means, mismatched
from runtime.batch import Sample, dealt
from runtime.data.stream import Stream
from specc.plan import Layout

pytestmark = pytest.mark.torch

NUMBERS = st.floats(-30, 30)


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@given(
    rows=st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=6),
    z=st.floats(0, 10),
    beta=st.floats(0.01, 2),
    weights=st.tuples(st.floats(0, 3), st.floats(0, 3)),
)
def test_the_loss_is_its_formula(rows, z, beta, weights):
    wanted = [
        weights[0] * (1 - sigmoid(beta * (r - z))) if good else weights[1] * (1 - sigmoid(beta * (z - r)))
        for r, good in rows
    ]
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        ratios = torch.tensor([r for r, _ in rows], dtype=dtype)
        verdicts = torch.tensor([float(good) for _, good in rows], dtype=dtype)
        found = kto.kto(ratios, verdicts, z, beta, *weights)
        assert found.dtype == dtype
        assert found.tolist() == pytest.approx(wanted, rel=bound, abs=bound)


def sample(i, prompt, length, verdict=1.0):
    tokens = [100 * i + t for t in range(prompt + length)]
    return Sample(i, tokens, [0] * prompt + [1] * length, (verdict,))


# ── mismatched texts ─────────────────────────────────────────────────────────────────────────────


def test_each_prompt_meets_the_next_one_s_response_and_the_last_one_the_first_s():
    found = mismatched([sample(1, 2, 1), sample(2, 1, 3), sample(3, 2, 2)], longest=4)
    assert [list(s.tokens) for s in found] == [[100, 101, 201, 202], [200, 302, 303], [300, 301, 102]]
    assert [list(s.mask) for s in found] == [[0, 0, 1, 1], [0, 1, 1], [0, 0, 1]]


def test_a_mismatched_response_is_cut_but_never_to_nothing():
    [one, _] = mismatched([sample(1, 5, 1), sample(2, 1, 5)], longest=6)
    assert list(one.tokens) == [100, 101, 102, 103, 104, 201]


def test_a_row_that_a_batch_holds_twice_meets_another_one():
    one, other = sample(1, 2, 1), sample(2, 1, 2)
    found = mismatched([one, one, other], longest=9)
    assert [list(s.tokens) for s in found] == [[100, 101, 201, 202], [100, 101, 201, 202], [200, 102]]


class Texts(list):
    group, hash = 1, "texts"


@pytest.mark.parametrize("packing", [False, True])
def test_mismatched_texts_are_a_data_set_of_their_own_in_the_order_of_the_steps(packing):
    samples = Texts([sample(i, 1 + i % 3, 1 + i % 4) for i in range(10)])
    data = Stream(samples, global_batch=4, seq_length=12, seed=1, shuffle=True, packing=packing)
    view = Mismatched(data, 5, data.bins)
    assert view.rows == 20
    seen = [one for step in range(5) for line in view.bins(step) for one in line]
    assert sorted(one.id for one in seen) == list(range(20))
    for one in seen:
        assert (one.tokens, one.mask) == (view[one.id].tokens, view[one.id].mask)
        assert view.tokens_before(one.id + 1) - view.tokens_before(one.id) == len(one.tokens)
        own = {s.id: s for line in data.bins(one.id // 4) for s in line}
        assert any(list(one.tokens[: kto.begin(s)]) == list(s.tokens[: kto.begin(s)]) for s in own.values())
    other = Stream(samples, global_batch=4, seq_length=12, seed=2, shuffle=True, packing=packing)
    assert Mismatched(other, 5, other.bins).hash != view.hash


def validation(rows, global_batch):
    samples = Texts([sample(i, 1 + i % 3, 1 + i % 4) for i in range(rows)])
    return Stream(samples, global_batch=global_batch, seq_length=12, seed=1, shuffle=False, packing=False)


def throughout(data):
    batches = list(data.batches())
    return Mismatched(data, len(batches), batches.__getitem__, go_on=True)


def test_of_a_validation_set_the_pairs_go_on_over_its_batches():
    """Nine rows in batches of four: the last one is alone, and meets the first."""
    own = [sample(i, 1 + i % 3, 1 + i % 4) for i in range(9)]
    wanted = [
        [*s.tokens[: kto.begin(s)], *o.tokens[kto.begin(o) :]]
        for s, o in zip(own, own[1:] + own[:1], strict=True)
    ]
    for size in (4, 3, 2, 9, 20):
        view = throughout(validation(9, size))
        texts = [one for number in range(view.count) for line in view.bins(number) for one in line]
        assert [list(one.tokens) for one in texts] == wanted, size
        assert [list(view[one.id].tokens) for one in texts] == wanted


@pytest.mark.parametrize(("rows", "z"), [(1, 0.0), (2, 3.5), (3, 14 / 3)])
def test_a_validation_set_of_one_row_has_no_distance_to_estimate(rows, z):
    """Each batch of two is said to be 7 away from the reference in all."""
    data = validation(rows, 2)
    model = types.SimpleNamespace(evaluate=lambda batches, share: collections.defaultdict(float, SUMS))
    asked = types.SimpleNamespace(answered=lambda run, some: [bins for _, bins in some])
    beside = kto.Beside(asked, None, throughout(data))
    settings = lambda form: Settings()  # noqa: E731
    run = types.SimpleNamespace(
        validation=data, reference=beside, model=model, program_settings=settings, alive=lambda: None
    )
    assert kto.evaluate(run)["validation_z"] == pytest.approx(z)


SUMS = {
    "loss": 7.0,
    **dict.fromkeys(("texts", "liked", "right", "chosen", "rejected", "squares"), 1.0),
    **dict.fromkeys(("chosen_tokens", "rejected_tokens", "moved"), 1.0),
}

# ── a microbatch ─────────────────────────────────────────────────────────────────────────────────

SIZES = [(2, 3, 1.0), (2, 1, 0.0), (1, 4, 0.0), (3, 2, 1.0), (1, 1, 0.0)]


def texts(packed=False):
    samples = [sample(i, p, n, verdict) for i, (p, n, verdict) in enumerate(SIZES)]
    rows = [samples] if packed else [[one] for one in samples]
    [batch] = dealt(rows, 0, 1, len(rows), packed=packed)
    draw = torch.Generator().manual_seed(7)
    batch.extra["reference"] = -5 * torch.rand(batch.mask_BT.shape, generator=draw)
    return batch, -5 * torch.rand(batch.mask_BT.shape, generator=draw)


def test_means_are_those_of_liked_and_of_other_responses():
    batch, logprobs = texts()
    value, sums = kto.loss(logprobs, batch, settings=Settings(0.3, 2.0, 0.5), z=0.4, denominator=5)
    change = (logprobs.double() - batch.extra["reference"].double()) * batch.mask_BT
    ratios = change.sum(1).tolist()
    each = [
        2.0 * (1 - sigmoid(0.3 * (r - 0.4))) if v else 0.5 * (1 - sigmoid(0.3 * (0.4 - r)))
        for r, (_, _, v) in zip(ratios, SIZES, strict=True)
    ]
    assert value.item() == pytest.approx(sum(each) / 5, rel=1e-10)
    found = means({"loss": value.item(), **{k: float(v) for k, v in sums.items()}})
    good = [0.3 * r for r, (_, _, v) in zip(ratios, SIZES, strict=True) if v]
    bad = [0.3 * r for r, (_, _, v) in zip(ratios, SIZES, strict=True) if not v]
    assert found["rewards_chosen_mean"] == pytest.approx(sum(good) / 2, rel=1e-10)
    assert found["rewards_rejected_mean"] == pytest.approx(sum(bad) / 3, rel=1e-10)
    spread = torch.tensor(good + bad, dtype=torch.float64).std().item()
    assert found["rewards_all_std"] == pytest.approx(spread, rel=1e-9)
    right = [(r > 0.4) if v else (r < 0.4) for r, (_, _, v) in zip(ratios, SIZES, strict=True)]
    assert found["acc"] == sum(right) / 5
    assert (found["chosen_lengths"], found["reject_lengths"]) == (2.5, 2.0)


def test_packing_changes_nothing():
    results = []
    for packed in (False, True):
        batch, _ = texts(packed)
        logprobs = -(batch.tokens_BT % 7).float()
        batch.extra["reference"] = -(batch.tokens_BT % 5).float()
        results.append(kto.loss(logprobs, batch, settings=Settings(), z=0.1, denominator=5)[0].item())
    assert results[0] == results[1]


@pytest.mark.filterwarnings("ignore")
def test_the_loss_is_that_of_trl():
    """Where TRL is installed, its trainer's own loss on the same log-probabilities and the same z."""
    trl = pytest.importorskip("trl.experimental.kto")
    batch, logprobs = texts()
    ours, theirs = (x * batch.mask_BT for x in (logprobs, batch.extra["reference"]))
    others = torch.randn(5, 3, generator=torch.Generator().manual_seed(3)).abs()
    z = others.sum(1).mean().item()
    mask = torch.cat([torch.zeros(5, 1), batch.mask_BT], 1).long()
    answers = {"policy": (ours, others.sum(1)), "reference": (theirs, torch.zeros(5))}
    trainer = trl_trainer(answers)
    inputs = {"input_ids": torch.zeros_like(mask), "completion_mask": mask, "attention_mask": mask}
    inputs["label"] = torch.tensor([bool(v) for _, _, v in SIZES])
    wanted = trl.KTOTrainer._compute_loss(trainer, trainer.model, inputs, return_outputs=False).item()
    value, _ = kto.loss(logprobs, batch, settings=Settings(0.3, 2.0, 0.5), z=z, denominator=5)
    assert value.item() == pytest.approx(wanted, rel=1e-5)


class Answering:
    """A model of which only its answers are known."""

    training = is_gradient_checkpointing = False

    def __init__(self, logprobs, apart):
        self.apart, zeros = apart, torch.zeros_like(logprobs)
        self.answer = types.SimpleNamespace(log_probs=logprobs, entropy=zeros, mean_logits=zeros)

    def __call__(self, **inputs):
        return self.answer


def trl_trainer(answers):
    """As much of TRL's trainer as its loss looks at."""
    alike = {"gather": lambda x: x, "gather_for_metrics": lambda x: x, "device": "cpu"}
    return types.SimpleNamespace(
        model=Answering(*answers["policy"]),
        ref_model=Answering(*answers["reference"]),
        accelerator=types.SimpleNamespace(**alike),
        args=types.SimpleNamespace(gradient_checkpointing_kwargs=None),
        _compute_kl_logps=lambda model, batch: model.apart,
        precompute_ref_logps=False,
        aux_loss_enabled=False,
        calculate_KL=True,
        loss_type="kto",
        beta=0.3,
        desirable_weight=2.0,
        undesirable_weight=0.5,
        _metrics={"eval": collections.defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )


# ── whole runs ───────────────────────────────────────────────────────────────────────────────────

SERIES = ("step", "loss", "grad_norm", "z", "rewards_all_mean", "rewards_all_std", "kl")
SHORT = {"steps": 3, "save_every": 0, "lr": 1e-2}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return liked(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory, rows):
    """What one process computes."""
    found = toy_preferences.plan(rows, program="kto", train=SHORT)
    lines = ran(world, tmp_path_factory.mktemp("alone"), found)
    assert lines[-1]["z"] > 0  # else the layouts below would not differ by a wrong z
    return lines


LAYOUTS = [
    (Layout(), {"micro_batch": 1}, "swap"),
    (Layout(tp=2), {}, "swap"),
    (Layout(pp=2), {}, "stored"),
    (Layout(dp=2), {"micro_batch": 2}, "swap"),
    (Layout(dp=2), {"micro_batch": 1}, "stored"),
    (Layout(dp=2), {"micro_batch": 2, "packing": True}, "swap"),
]


@pytest.mark.parametrize(("layout", "sizes", "how"), LAYOUTS, ids=str)
def test_every_layout_takes_the_same_steps(world, tmp_path, alone, rows, layout, sizes, how):
    sizes = dict(sizes)
    train = SHORT | ({"packing": True} if sizes.pop("packing", False) else {})
    own = {"reference": how}
    found = toy_preferences.plan(rows, layout, program="kto", own=own, train=train, **sizes)
    lines = ran(world, tmp_path, found)
    for line, wanted in zip(lines, alone, strict=True):
        for key in SERIES:
            assert line[key] == pytest.approx(wanted[key], rel=1e-4, abs=1e-6), key
        assert line["data_hash"] == wanted["data_hash"]
    if how == "swap":
        assert (lines[0]["loss"], lines[0]["z"], lines[0]["kl"]) == (0.5, 0.0, 0.0)


@pytest.mark.parametrize("how", ["swap", "stored"])
def test_the_model_learns_what_is_liked(world, tmp_path, how):
    rows, others = liked(tmp_path, 96), liked(tmp_path, 31, seed=1)
    train = {"steps": 30, "validate_every": 30, "lr": 1e-2, "save_every": 0}
    own = {"reference": how}
    ran(
        world,
        tmp_path / "run",
        toy_preferences.plan(rows, program="kto", own=own, validation=others, train=train),
    )
    [measured] = validated(tmp_path / "run")
    assert measured["validation_acc"] > 0.9
    assert measured["validation_rewards_chosen_mean"] > measured["validation_rewards_rejected_mean"] + 1


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(world, tmp_path, rows):
    found = toy_preferences.plan(rows, program="kto", train={"steps": 4, "save_every": 2})
    expected = ran(world, tmp_path / "whole", found)
    file = toy_runs.written(tmp_path / "parts", found)
    with pytest.raises(Exception, match="without a word"):
        world(1, killed_before, str(file), 3)
    lines = ran(world, tmp_path / "parts", found, attempt="2")
    assert [{k: line[k] for k in SERIES} for line in lines] == [
        {k: line[k] for k in SERIES} for line in expected
    ]


def killed_before(plan_file, step):
    """One process that dies before this step is done."""
    import os

    ours = kto.step
    kto.step = lambda run: os._exit(9) if run.step + 1 > step else ours(run)
    return toy_runs.attempt(plan_file)
