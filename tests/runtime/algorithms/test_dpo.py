"""Preference training: formulas against their definitions and TRL's trainer, then whole runs that must not
depend on the layout, on how often they were interrupted, or on how the reference is asked.
"""

import dataclasses
import json
import math
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_preferences
import toy_runs
from hypothesis import given
from hypothesis import strategies as st
from toy_preferences import polite, ran, validated

from runtime import reference
from runtime.algorithms import dpo
from runtime.algorithms.dpo import LOSSES, Settings, means
from runtime.batch import Sample, dealt
from specc.plan import Layout, Weights

pytestmark = pytest.mark.torch

NUMBERS = st.floats(-30, 30)
LN2 = math.log(2)


# ── formulas ─────────────────────────────────────────────────────────────────────────────────────


def softplus(x):
    """log(1 + e^x) without overflow: -log sigmoid(-x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def kl(a, b):
    """KL(Bern sigmoid(a) || Bern sigmoid(b)), each logarithm from its own softplus."""
    p, q = math.exp(-softplus(-a)), math.exp(-softplus(a))
    return p * (softplus(-b) - softplus(-a)) + q * (softplus(b) - softplus(a))


FORMULAS = {
    "dpo": lambda d, g, beta, eta: softplus(-beta * d),
    "ipo": lambda d, g, beta, eta: (d - 0.5 / beta) ** 2,
    "rpo_sq": lambda d, g, beta, eta: (beta * d - eta * g) ** 2,
    "rpo_bwd_kl": lambda d, g, beta, eta: kl(eta * g, beta * d),
    "rpo_fwd_kl": lambda d, g, beta, eta: kl(beta * d, eta * g),
    "scale": lambda d, g, beta, eta: abs(g) * softplus(-beta * d),
}


@pytest.mark.parametrize("name", LOSSES)
@given(
    pairs=st.lists(st.tuples(NUMBERS, st.floats(-5, 5)), min_size=1, max_size=6),
    beta=st.floats(0.01, 2),
    eta=st.floats(0.1, 3),
)
def test_each_loss_is_its_formula(name, pairs, beta, eta):
    d, g = zip(*pairs, strict=True)
    wanted = [FORMULAS[name](x, y, beta, eta) for x, y in pairs]
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
        found = dpo.preference_losses(
            torch.tensor(d, dtype=dtype), torch.tensor(g, dtype=dtype), name, beta, eta
        )
        assert found.dtype == dtype
        assert found.tolist() == pytest.approx(wanted, rel=bound, abs=bound)


def test_the_divergences_are_zero_where_the_policy_has_the_rows_rewards():
    g = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    for name in ("rpo_sq", "rpo_bwd_kl", "rpo_fwd_kl"):
        assert dpo.preference_losses(2 * g, g, name, beta=0.5, eta=1.0).tolist() == pytest.approx(
            [0, 0, 0], abs=1e-15
        )


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_differences_have_finite_losses_and_gradients(name):
    d = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    dpo.preference_losses(d, torch.tensor([1.0, 1.0, 0.0]), name, 0.2, 1.0).sum().backward()
    assert torch.isfinite(d.grad).all()


# ── a microbatch ─────────────────────────────────────────────────────────────────────────────────


def sample(i, prompt, length, rewards=(1.0, 0.0)):
    """A text of a prompt and a response of so many tokens."""
    tokens = [(i * 7 + t) % 50 for t in range(prompt + length)]
    return Sample(i, tokens, [0] * prompt + [1] * length, (rewards[i % 2],))


def texts(sizes, packed=False, rewards=(1.0, 0.0), **how):
    """Pairs of texts of (prompt, response) tokens in one microbatch, with made-up numbers on each column."""
    samples = [sample(i, p, n, rewards) for i, (p, n) in enumerate(sizes)]
    rows = [samples] if packed else [[one] for one in samples]
    [batch] = dealt(rows, 0, 1, len(rows), packed=packed, **how)
    draw = torch.Generator().manual_seed(len(sizes))
    batch.extra["reference"] = -5 * torch.rand(batch.mask_BT.shape, generator=draw)
    return batch, -5 * torch.rand(batch.mask_BT.shape, generator=draw)


SIZES = [(2, 3), (2, 1), (1, 4), (1, 2), (3, 2), (3, 5)]


def by_hand(batch, logprobs, sizes):
    """(log p, log-ratio, tokens) of each response, by counting columns p - 1 to n - 2."""
    found = []
    ends = batch.segments.tolist() if batch.segments is not None else None
    for i, (p, n) in enumerate(sizes):
        line, start = (0, ends[i]) if ends else (i, 0)
        columns = slice(start + p - 1, start + p + n - 1)
        logp = logprobs[line, columns].double().sum().item()
        found.append((logp, logp - batch.extra["reference"][line, columns].double().sum().item(), n))
    return found


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_microbatch_s_share_is_the_mean_over_its_pairs(name, average, packed):
    batch, logprobs = texts(SIZES, packed, (2.5, 0.5), multiple=4)
    settings = Settings(name, 0.3, 0.7, 2.0, 0.5, average, average)
    value, sums = dpo.loss(logprobs, batch, settings=settings, denominator=3)
    logp, ratio, count = zip(*by_hand(batch, logprobs, SIZES), strict=True)
    if average:
        logp = [x / n for x, n in zip(logp, count, strict=True)]
        ratio = [x / n for x, n in zip(ratio, count, strict=True)]
    each = [FORMULAS[name](c - r, 2.0, 0.3, 0.7) for c, r in zip(ratio[::2], ratio[1::2], strict=True)]
    assert value.item() == pytest.approx((2.0 * sum(each) - 0.5 * sum(logp[::2])) / 3, rel=1e-10)
    found = means({"loss": value.item(), **{k: float(v) for k, v in sums.items()}})
    assert found["preference_loss"] == pytest.approx(sum(each) / 3, rel=1e-10)
    assert found["sft_loss"] == pytest.approx(-sum(logp[::2]) / 3, rel=1e-10)
    rewards = [0.3 * x for x in ratio]
    assert found["rewards_chosen_mean"] == pytest.approx(sum(rewards[::2]) / 3, rel=1e-10)
    assert found["rewards_rejected_mean"] == pytest.approx(sum(rewards[1::2]) / 3, rel=1e-10)
    assert found["rewards_all_std"] == pytest.approx(
        torch.tensor(rewards, dtype=torch.float64).std().item(), rel=1e-9
    )
    right = [c > r for c, r in zip(rewards[::2], rewards[1::2], strict=True)]
    assert found["acc"] == sum(right) / 3
    assert (found["chosen_lengths"], found["reject_lengths"]) == (3.0, 8 / 3)
    changes = (logprobs.double() - batch.extra["reference"].double())[batch.mask_BT > 0]
    assert found["kl"] == pytest.approx((torch.exp(-changes) - 1 + changes).mean().item(), rel=1e-9)


def test_a_tie_is_no_preference_and_equal_policies_lose_ln_2():
    batch, logprobs = texts(SIZES)
    batch.extra["reference"] = logprobs.clone()
    value, sums = dpo.loss(logprobs, batch, settings=Settings(), denominator=3)
    found = means({"loss": value.item(), **{k: float(v) for k, v in sums.items()}})
    assert (found["loss"], found["acc"], found["kl"], found["rewards_all_std"]) == (LN2, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("packed", [False, True])
def test_a_microbatch_that_only_fills_up_adds_nothing_and_has_a_gradient_of_zero(packed):
    [_, empty] = dealt([[sample(0, 2, 2)], [sample(1, 2, 2)]], 0, 1, 2, rounds_multiple=2, packed=packed)
    empty.extra["reference"] = torch.zeros_like(empty.mask_BT)
    logprobs = torch.randn(empty.mask_BT.shape, requires_grad=True)
    value, sums = dpo.loss(logprobs, empty, settings=Settings("rpo_sq"), denominator=1)
    value.backward()
    assert value.item() == 0
    assert not logprobs.grad.any()
    assert not any(float(number) for number in sums.values())


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
def test_the_loss_is_that_of_trl(kind):
    """Where TRL is installed, its trainer's own loss on the same log-probabilities."""
    trl = pytest.importorskip("trl")
    sizes = [(2, 3), (2, 1), (1, 4), (1, 2)]
    batch, logprobs = texts(sizes)
    width = batch.mask_BT.size(1) + 1
    order = [0, 2, 1, 3]  # theirs has all chosen first
    mask = torch.cat([torch.zeros(4, 1), batch.mask_BT], 1)[order].long()
    ours, theirs = (x * batch.mask_BT for x in (logprobs, batch.extra["reference"]))

    def answering(values):
        answer = types.SimpleNamespace(log_probs=values[order], loss=None, mean_logits=values[order])
        answer.entropy = torch.zeros(4, width - 1)
        answer.is_top1 = torch.zeros(4, width - 1, dtype=torch.bool)
        return lambda **inputs: answer

    trainer = trl_trainer(kind, answering(theirs))
    model = Answering(answering(ours))
    trainer.model = model
    inputs = {"input_ids": torch.zeros(4, width, dtype=torch.long), "completion_mask": mask}
    inputs["attention_mask"] = torch.ones(4, width, dtype=torch.long)
    wanted = trl.DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False).item()
    settings = Settings("dpo" if kind == "sigmoid" else "ipo", beta=0.3, average_log_probs=kind == "ipo")
    value, sums = dpo.loss(logprobs, batch, settings=settings, denominator=2)
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    if kind == "sigmoid":
        said = {name: values[0] for name, values in trainer._metrics["eval"].items()}
        found = means({"loss": value.item(), **{k: float(v) for k, v in sums.items()}})
        assert found["rewards_chosen_mean"] == pytest.approx(said["rewards/chosen"], rel=1e-5)
        assert found["rewards_rejected_mean"] == pytest.approx(said["rewards/rejected"], rel=1e-5)
        assert found["acc"] == pytest.approx(said["rewards/accuracies"])


class Answering:
    """A model of which only its answer is known."""

    training = is_gradient_checkpointing = False

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, **inputs):
        return self.answer(**inputs)


def trl_trainer(kind, reference_model):
    """As much of TRL's trainer as its loss looks at."""
    import collections

    return types.SimpleNamespace(
        accelerator=types.SimpleNamespace(
            device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x, unwrap_model=lambda m: m
        ),
        args=types.SimpleNamespace(gradient_checkpointing_kwargs=None, gradient_checkpointing=False),
        ref_model=Answering(reference_model),
        precompute_ref_logps=False,
        aux_loss_enabled=False,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=0.3,
        label_smoothing=0.0,
        use_weighting=False,
        _metrics={"eval": collections.defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )


# ── whole runs ───────────────────────────────────────────────────────────────────────────────────

SERIES = ("step", "loss", "grad_norm", "rewards_chosen_mean", "rewards_all_std", "kl", "acc")
SHORT = {"steps": 3, "save_every": 0}
BOTH = {"loss": "rpo_bwd_kl", "sft_weight": 0.1}


def assert_alike(lines, expected, rel=1e-4):
    for line, wanted in zip(lines, expected, strict=True):
        # before the first update a pair is a tie, or decided by the last bit
        for key in SERIES if line["step"] > 1 else SERIES[:-1]:
            assert line[key] == pytest.approx(wanted[key], rel=rel, abs=1e-6), key
        assert line["data_hash"] == wanted["data_hash"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return polite(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory, rows):
    """What one process computes."""
    found = toy_preferences.plan(rows, own=BOTH, train=SHORT)
    return ran(world, tmp_path_factory.mktemp("alone"), found)


LAYOUTS = [
    (Layout(), {"micro_batch": 1}),
    (Layout(tp=2), {}),
    (Layout(tp=2, sequence_parallel=True), {}),
    (Layout(pp=2), {}),
    (Layout(dp=2), {"micro_batch": 2}),
    (Layout(dp=2), {"packing": True, "micro_batch": 2}),
    (Layout(), {"packing": True}),
    (Layout(tp=2, pp=2), {"micro_batch": 2}),
]


@pytest.mark.parametrize("how", ["swap", "stored"])
@pytest.mark.parametrize(("layout", "sizes"), LAYOUTS, ids=str)
def test_every_layout_takes_the_same_steps(world, tmp_path, alone, rows, layout, sizes, how):
    sizes = dict(sizes)
    train = SHORT | ({"packing": True} if sizes.pop("packing", False) else {})
    found = toy_preferences.plan(rows, layout, own=BOTH | {"reference": how}, train=train, **sizes)
    lines = ran(world, tmp_path, found)
    assert_alike(lines, alone)
    if how == "swap":  # the same microbatches, so bit by bit
        assert (lines[0]["kl"], lines[0]["acc"], lines[0]["rewards_all_std"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("how", ["swap", "stored"])
def test_before_the_first_update_the_loss_is_ln_2(world, tmp_path, rows, how):
    found = toy_preferences.plan(
        rows, Layout(dp=2), own={"reference": how}, train=SHORT | {"steps": 1}, micro_batch=2
    )
    [line] = ran(world, tmp_path, found)
    assert line["loss"] == pytest.approx(LN2, abs=0 if how == "swap" else 1e-6)
    assert line["kl"] == pytest.approx(0.0, abs=0 if how == "swap" else 1e-6)


def test_the_model_learns_to_be_polite_to_texts_it_has_not_seen(world, tmp_path):
    rows, others = polite(tmp_path, 96), polite(tmp_path, 48, seed=1)
    train = {"steps": 30, "validate_every": 30, "lr": 1e-2, "save_every": 0}
    ran(world, tmp_path / "run", toy_preferences.plan(rows, validation=others, train=train))
    [measured] = validated(tmp_path / "run")
    assert measured["validation_acc"] > 0.95
    assert measured["validation_loss"] < 0.3
    assert measured["validation_rewards_chosen_mean"] > measured["validation_rewards_rejected_mean"] + 1


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(world, tmp_path, rows):
    found = toy_preferences.plan(rows, own=BOTH, train={"steps": 6, "save_every": 2})
    expected = ran(world, tmp_path / "whole", found)
    file = toy_runs.written(tmp_path / "parts", found)
    assert world(1, stopped_after, str(file), 3) == [0]
    assert not (tmp_path / "parts" / "sft" / "output.json").exists()
    (tmp_path / "parts" / "sft" / "stop").unlink()
    lines = ran(world, tmp_path / "parts", found, attempt="2")
    assert [{k: line[k] for k in SERIES} for line in lines] == [
        {k: line[k] for k in SERIES} for line in expected
    ]


def stopped_after(plan_file, steps):
    """One process that is told to stop after so many steps."""
    ours = dpo.step

    def step(run):
        if run.step + 1 == steps:
            (Path(plan_file).parent / "sft" / "stop").touch()
        return ours(run)

    dpo.step = step
    return toy_runs.attempt(plan_file)


# ── the reference ────────────────────────────────────────────────────────────────────────────────


def test_a_reference_may_be_what_another_stage_made(world, tmp_path, rows):
    first = toy_preferences.plan(rows, train=SHORT | {"steps": 4, "lr": 1e-2}, job={"stage": "before"})
    file = toy_runs.written(tmp_path, first)
    assert world(1, toy_runs.attempt, str(file)) == [0]
    ended = json.loads((tmp_path / "before" / "output.json").read_text())["metrics"]
    lines = {}
    for how in ("swap", "stored"):
        found = toy_preferences.plan(
            rows,
            reference=Weights("stage", stage="before"),
            own={"reference": how},
            train=SHORT | {"steps": 2},
        )
        lines[how] = ran(world, tmp_path, dataclasses.replace(found, name=how))
        for name in ("output.json", "identity.json", "metrics.jsonl"):
            (tmp_path / "sft" / name).unlink()
        for path in (tmp_path / "sft" / "checkpoint").glob("step-*"):
            path.rename(tmp_path / f"{how}-{path.name}")
    # the model starts from its own random weights, which the reference has left behind
    assert lines["swap"][0]["kl"] > 0.01
    assert lines["swap"][0]["rewards_chosen_mean"] < 0 < ended["rewards_chosen_mean"]
    assert_alike(lines["stored"], lines["swap"])


def test_a_pass_that_was_killed_goes_on_with_the_part_it_was_at(world, tmp_path, rows):
    found = toy_preferences.plan(rows, own={"reference": "stored"}, train=SHORT | {"steps": 2})
    file = toy_runs.written(tmp_path / "run", found)
    expected = world(1, stored_run, str(file), None, timeout=120)[0]
    [folder] = (tmp_path / "run" / "sft" / "reference").iterdir()
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(whole) == expected == 6  # parts of eight rows each

    file = toy_runs.written(tmp_path / "killed", found)
    with pytest.raises(Exception, match="without a word"):
        world(1, stored_run, str(file), 3)
    [folder] = (tmp_path / "killed" / "sft" / "reference").iterdir()
    assert sorted(p.name for p in folder.glob("0*.npy")) == [f"{i:06d}.npy" for i in range(3)]
    (folder / "000001.npy").write_bytes(b"torn")
    assert world(1, stored_run, str(file), None, timeout=120)[0] == 4
    assert {p.name: p.read_bytes() for p in folder.glob("0*.npy")} == whole
    assert toy_runs.series(tmp_path / "killed") == toy_runs.series(tmp_path / "run")


def stored_run(plan_file, killed_at):
    """One process whose stored parts are small, perhaps killed before it writes one; the parts written."""
    reference.PART_ROWS = 8
    ours, written = reference.LogProbs.write, []

    def write(self, part, numbers):
        if part == killed_at:
            import os

            os._exit(9)
        written.append(part)
        ours(self, part, numbers)

    reference.LogProbs.write = write
    assert toy_runs.attempt(plan_file) == 0
    return len(written)


def test_stored_numbers_are_read_from_the_file_by_sample(tmp_path, rows):
    from runtime.data.stream import Stream
    from runtime.data.tokenised import Tokenised, form_of, tokenised
    from runtime.tokenizer import load

    settings = {"path": str(rows), "kind": "pairs"}
    form = form_of("train", "dpo", settings, toy_runs.TRAIN, {})
    how = {"tokenizer_name": "builtin:bytes", "template": "", "seed": 1, "folder": tmp_path}
    data = Stream(
        Tokenised(tokenised(settings, form, load("builtin:bytes"), **how)),
        global_batch=4, seq_length=32, seed=1, shuffle=True, packing=False,
    )  # fmt: skip
    files = reference.LogProbs(tmp_path / "key", data)
    assert files.lost() == [0]
    numbers = [np.full(s.columns, s.id, np.float32) for s in files.samples(0)]
    files.write(0, numbers)
    assert files.lost() == []
    for line in data.bins(3):
        for each in line:
            found = files.on(each).extra["reference"]
            assert found.tolist() == [each.id] * each.columns
            assert isinstance(found, np.memmap)


# ── real preferences ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(
    not toy_preferences.PANDALM.exists(),
    reason="set SPECC_SHARED to the folder with data/pandalm-human-prefs",
)
def test_real_preferences_go_through_it(world, tmp_path):
    learnt, others = toy_preferences.real(tmp_path)
    train = {"steps": 12, "validate_every": 12, "seq_length": 192, "lr": 3e-3, "save_every": 0}
    found = toy_preferences.plan(
        learnt, Layout(dp=2), validation=others, own={"loss": "scale", "beta": 0.1},
        train=train | {"packing": True}, global_batch=32, micro_batch=4,
    )  # fmt: skip
    lines = ran(world, tmp_path / "run", found)
    [measured] = validated(tmp_path / "run")
    assert lines[0]["rewards_all_std"] == 0.0
    assert lines[-1]["kl"] > 0.01
    assert sum(line["loss"] for line in lines[-4:]) < 4 * lines[0]["loss"]
    assert 0.4 < measured["validation_acc"] < 0.8  # little can be learnt in twelve steps
    assert measured["validation_chosen_lengths"] > 20
