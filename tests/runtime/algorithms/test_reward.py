"""Reward models: formulas against their definitions, then whole runs that must not depend on the layout."""

import collections
import dataclasses
import json
import math
import os
import types
import zlib
from pathlib import Path

import pytest
import torch
import toy_rewards
import toy_runs
from hypothesis import given
from hypothesis import strategies as st
from toy_rewards import MARKS, NAMES

from runtime.algorithms import reward
from runtime.algorithms.reward import Judge, means, predictions
from runtime.batch import Sample, dealt
from runtime.data.stream import Stream
from specc.plan import Layout, Weights

pytestmark = pytest.mark.torch

JUDGE = Judge("bradley_terry", (1.0,), ("reward",))
NUMBERS = st.floats(-30, 30)


def softplus(x):
    """log(1 + e^x) without overflow: -log sigmoid(-x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


# ── formulas ─────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(NUMBERS, st.sampled_from([1.0, 2.0, 3.0])), min_size=1, max_size=8))
def test_the_pairwise_losses_are_their_formulas(pairs):
    gaps, margins = zip(*pairs, strict=True)
    wanted = {
        "bradley_terry": [softplus(-g) for g in gaps],
        "margin_bt": [softplus(m - g) for g, m in pairs],
        "scaled_bt": [m * softplus(-g) for g, m in pairs],
    }
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        g, m = torch.tensor(gaps, dtype=dtype), torch.tensor(margins, dtype=dtype)
        found = {
            "bradley_terry": reward.bradley_terry(g),
            "margin_bt": reward.margin_bt(g, m),
            "scaled_bt": reward.scaled_bt(g, m),
        }
        for name, values in found.items():
            assert values.dtype == dtype
            assert values.tolist() == pytest.approx(wanted[name], rel=bound, abs=bound), name


def test_a_missing_label_has_neither_error_nor_gradient():
    predicted = torch.tensor([[1.0, 2.0], [3.0, float("inf")]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0.0, -100.0], [4.0, -100.0]], dtype=torch.float64)
    errors = reward.squared_errors(predicted, labels)
    errors.sum().backward()
    assert errors.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert predicted.grad.tolist() == [[2.0, 0.0], [-2.0, 0.0]]


def test_attributes_are_merged_by_their_weights():
    predicted = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    assert reward.merged(predicted, (0.5, 0.0, -1.0)).tolist() == [-2.5]


def test_mean_and_deviation_are_those_of_all_texts():
    scores = torch.tensor([3.0, 1.0, 2.0, 2.0], dtype=torch.float64)  # chosen, rejected, chosen, rejected
    batch = texts([4, 3, 2, 5])
    values_BTA = torch.zeros(4, 5, 1, dtype=torch.float64)
    values_BTA[batch.mask_BT > 0] = scores[:, None]
    _, sums = reward.loss(values_BTA, batch, judge=JUDGE, denominator=2)
    found = means({"loss": 0.0, **{name: float(value) for name, value in sums.items()}}, JUDGE)
    assert found["acc"] == 0.5  # a tie is no preference
    assert (found["rewards_chosen_mean"], found["rewards_rejected_mean"]) == (2.5, 1.5)
    assert found["rewards_all_mean"] == 2.0
    assert found["rewards_all_std"] == pytest.approx(scores.std().item(), rel=1e-12)


def sample(i, length, labels=()):
    """A text of so many tokens, read at its last one."""
    tokens = [(i * 7 + t) % 50 for t in range(length)]
    return Sample(i, [*tokens, tokens[-1]], [0] * length + [1], labels)


def texts(lengths, labels=None, **how):
    """All of them in one microbatch."""
    rows = [[sample(i, n, labels[i] if labels else ())] for i, n in enumerate(lengths)]
    [batch] = dealt(rows, 0, 1, len(rows), **how)
    return batch


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_the_score_is_read_at_the_last_token_padded_or_packed(lengths):
    for packed in (False, True):
        batch = texts(lengths, multiple=4, packed=packed)
        # values that say which token of which text they are at
        values_BTA = (batch.tokens_BT * 100 + batch.positions_BT)[..., None].double()
        found = predictions(values_BTA, batch)[:, 0].tolist()
        ends = [sample(i, n) for i, n in enumerate(lengths)]
        assert found == [s.tokens[n - 1] * 100 + n - 1 for s, n in zip(ends, lengths, strict=True)]


# ── shares of a whole batch ──────────────────────────────────────────────────────────────────────


class Texts(list):
    """Samples as `Stream` reads them."""

    def __init__(self, samples, group):
        super().__init__(samples)
        self.group = group


def stream(samples, group, packing, global_batch=64):
    return Stream(
        Texts(samples, group), global_batch=global_batch, seq_length=12, seed=1, shuffle=True, packing=packing
    )


@given(
    pairs=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=12),
    dp=st.integers(1, 4),
    micro_batch=st.integers(1, 3),
    packing=st.booleans(),
)
def test_pairs_are_never_split_over_ranks_or_microbatches(pairs, dp, micro_batch, packing):
    samples = [sample(2 * i + k, n) for i, pair in enumerate(pairs) for k, n in enumerate(pair)]
    data = stream(samples, 2, packing, len(pairs))
    bins = data.bins(0)
    seen = []
    for rank in range(dp):
        for batch in dealt(bins, rank, dp, micro_batch * data.lines, packed=packing):
            assert all(b == a + 1 for a, b in zip(batch.rows[::2], batch.rows[1::2], strict=True))
            assert all(a % 2 == 0 for a in batch.rows[::2])
            seen += batch.rows
    assert sorted(seen) == list(range(2 * len(pairs)))


def labelled(count, seed):
    """Texts of which each has one to three labels."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for i in range(count):
        marks = torch.rand(3, generator=draw) * 4
        marks[1:][torch.rand(2, generator=draw) < 0.5] = -100.0
        found.append(sample(i, 1 + i % 5, tuple(marks.tolist())))
    return found


def shared_loss(judge, samples, group, dp, micro_batch):
    """The loss of a step whose values are a function of the token."""
    data = stream(samples, group, packing=False, global_batch=len(samples) // group)
    bins, total = data.bins(0), 0.0
    share = reward.shares(judge, bins, data, micro_batch)
    for rank in range(dp):
        for batch in dealt(bins, rank, dp, micro_batch * data.lines):
            width = len(judge.weights)
            values = torch.stack([(batch.tokens_BT * (k + 1) % 7).double() for k in range(width)], -1)
            total += reward.loss(values, batch, judge=judge, **share)[0].item()
    return total


@pytest.mark.parametrize("formula", ["bradley_terry", "margin_bt", "scaled_bt", "regression"])
def test_the_loss_is_one_mean_whatever_the_ranks_and_microbatches(formula):
    if formula == "regression":
        judge, samples, group = Judge(formula, (1.0, 0.0, 0.0), NAMES), labelled(12, 3), 1
    else:
        strengths = [1.0, 1.0, 3.0, 3.0, 2.0, 2.0] * 2
        judge, samples = dataclasses.replace(JUDGE, loss=formula), []
        samples = [sample(i, 1 + i % 5, (s,)) for i, s in enumerate(strengths)]
        group = 2
    whole = shared_loss(judge, samples, group, 1, 12)
    for dp, micro_batch in ((1, 1), (2, 1), (3, 2), (4, 3)):
        assert shared_loss(judge, samples, group, dp, micro_batch) == pytest.approx(whole, rel=1e-12)


def test_the_older_average_is_the_mean_of_microbatches_means():
    samples = labelled(4, 5)
    judge = Judge("regression", (1.0, 0.0, 0.0), NAMES, average="micro_batch")
    each = [shared_loss(dataclasses.replace(judge, average="global"), [s], 1, 1, 1) for s in samples]
    assert shared_loss(judge, samples, 1, 2, 1) == pytest.approx(sum(each) / 4, rel=1e-12)
    whole = shared_loss(dataclasses.replace(judge, average="global"), samples, 1, 2, 1)
    assert shared_loss(judge, samples, 1, 2, 1) != pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize("formula", ["bradley_terry", "margin_bt"])
def test_the_loss_is_that_of_trl(formula):
    """Where TRL is installed, its trainer's own loss on the same scores."""
    trl = pytest.importorskip("trl")
    scores = torch.randn(12, generator=torch.Generator().manual_seed(1))
    margins = torch.tensor([1.0, 3.0, 2.0, 1.0, 2.0, 3.0])
    trainer = types.SimpleNamespace(
        model=types.SimpleNamespace(training=False),
        args=types.SimpleNamespace(center_rewards_coefficient=None),
        accelerator=types.SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"eval": collections.defaultdict(list)},
        _total_train_tokens=0,
    )
    theirs = {"margin": margins} if formula == "margin_bt" else {}
    logits = torch.cat([scores[0::2], scores[1::2]])[:, None]
    output = types.SimpleNamespace(logits=logits)
    wanted = trl.RewardTrainer.compute_loss(trainer, lambda **inputs: output, theirs).item()

    batch = texts([2] * 12, labels=[(m.item(),) for m in margins for _ in range(2)])
    values = torch.zeros(12, 2, 1)
    values[batch.mask_BT > 0] = scores[:, None]
    judge = dataclasses.replace(JUDGE, loss=formula)
    value, sums = reward.loss(values, batch, judge=judge, denominator=6)
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    assert sums["right"].item() / 6 == pytest.approx(trainer._metrics["eval"]["accuracy"][0])


# ── whole runs ───────────────────────────────────────────────────────────────────────────────────

SERIES = ("step", "loss", "grad_norm", "rewards_all_mean", "rewards_all_std")


def ran(world, folder, found, attempt="1"):
    """The lines of a run's metrics that belong to steps."""
    file = toy_runs.written(folder, found)
    size = found.jobs[0].roles[0].layout.world_size
    assert set(world(size, toy_runs.attempt, str(file), attempt)) == {0}
    return toy_runs.metrics(folder)


def assert_alike(lines, expected, rel=2e-5):
    for line, wanted in zip(lines, expected, strict=True):
        for key in SERIES:
            assert line[key] == pytest.approx(wanted[key], rel=rel, abs=1e-6), key
        assert (line.get("acc"), line["data_hash"]) == (wanted.get("acc"), wanted["data_hash"])


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    """What one process computes, for each kind of reward model: the folder of the rows, and the lines."""

    def one(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp(kind)
            data, own = KINDS[kind]
            rows = data(folder)
            known[kind] = rows, ran(world, folder / "run", toy_rewards.plan(rows, own=own, train=SHORT))
        return known[kind]

    known = {}
    return one


SHORT = {"steps": 3, "save_every": 0}
KINDS = {
    "scaled_bt": (toy_rewards.clear, {"loss": "scaled_bt"}),
    "regression": (toy_rewards.marked, MARKS),
}
LAYOUTS = [
    (Layout(tp=2), {}),
    (Layout(tp=2, sequence_parallel=True), {}),
    (Layout(pp=2), {}),
    (Layout(dp=2), {"micro_batch": 1}),
    (Layout(dp=2), {"packing": True}),
    (Layout(tp=2, pp=2), {}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layout", "how"), LAYOUTS, ids=str)
def test_every_layout_takes_the_same_steps(world, tmp_path, alone, kind, layout, how):
    if kind == "regression" and layout.pp * layout.tp > 2:
        pytest.skip("the other loss goes through this layout")
    rows, expected = alone(kind)
    train = SHORT | ({"packing": True} if how.get("packing") else {})
    sizes = {"micro_batch": how["micro_batch"]} if "micro_batch" in how else {}
    found = toy_rewards.plan(rows, layout, own=KINDS[kind][1], train=train, **sizes)
    assert_alike(ran(world, tmp_path, found), expected)


def test_the_accuracy_rises_above_nine_in_ten_on_texts_it_has_not_seen(world, tmp_path):
    rows, others = toy_rewards.polite(tmp_path, 128), toy_rewards.polite(tmp_path, 64, seed=1)
    train = {"steps": 24, "validate_every": 24, "lr": 1e-2, "save_every": 0}
    found = toy_rewards.plan(rows, Layout(dp=2), validation=others, train=train)
    lines = ran(world, tmp_path / "run", found)
    [measured] = [line for line in toy_rewards.lines(tmp_path / "run") if "validation_acc" in line]
    assert lines[0]["acc"] < 0.9
    assert measured["validation_acc"] > 0.95
    assert measured["validation_rewards_chosen_mean"] > measured["validation_rewards_rejected_mean"] + 1
    output = json.loads((tmp_path / "run" / "sft" / "output.json").read_text())
    assert output["reward_mean"] == measured["validation_rewards_all_mean"]
    assert output["reward_std"] == measured["validation_rewards_all_std"]
    assert (output["family"], output["head"], output["weights"]) == ("llama", "scalar", [1.0])


def test_without_validation_the_rewards_of_the_training_data_are_measured(world, tmp_path):
    rows = toy_rewards.marked(tmp_path, 20)
    ran(world, tmp_path / "run", toy_rewards.plan(rows, own=MARKS, train=SHORT))
    stage = tmp_path / "run" / "sft"
    output = json.loads((stage / "output.json").read_text())
    state = json.loads((stage / "checkpoint" / "step-3" / "state.json").read_text())
    assert output["attributes"] == list(NAMES)
    assert state["state"]["facts"]["reward_mean"] == output["reward_mean"]
    assert output["reward_std"] > 0


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(world, tmp_path):
    rows = toy_rewards.clear(tmp_path, 24)
    whole = toy_rewards.plan(rows, own={"loss": "margin_bt"}, train={"steps": 6, "save_every": 2})
    expected = ran(world, tmp_path / "whole", whole)
    lines = interrupted(world, tmp_path / "parts", whole, 3)
    assert [{k: line[k] for k in SERIES} for line in lines] == [
        {k: line[k] for k in SERIES} for line in expected
    ]
    outputs = [json.loads((tmp_path / p / "sft" / "output.json").read_text()) for p in ("whole", "parts")]
    assert outputs[0]["reward_mean"] == outputs[1]["reward_mean"]


def interrupted(world, folder, found, steps):
    """The lines of a run that was told to stop after so many steps and then went on."""
    file = toy_runs.written(folder, found)
    size = found.jobs[0].roles[0].layout.world_size
    assert set(world(size, stopped_after, str(file), steps)) == {0}
    assert not (folder / "sft" / "output.json").exists()
    (folder / "sft" / "stop").unlink()
    return ran(world, folder, found, attempt="2")


def stopped_after(plan_file, steps):
    """One process that is told to stop after so many steps."""
    ours = reward.step

    def step(run):
        if run.step + 1 == steps and run.place.is_first:
            (Path(plan_file).parent / "sft" / "stop").touch()
        return ours(run)

    reward.step = step
    return toy_runs.attempt(plan_file)


@pytest.mark.parametrize("load_head", [True, False])
def test_a_second_stage_takes_the_head_along_when_it_is_asked_to(world, tmp_path, load_head):
    rows = toy_rewards.clear(tmp_path, 32)
    train = {"steps": 12, "validate_every": 12, "lr": 1e-2, "save_every": 0}
    first = toy_rewards.plan(rows, validation=rows, train=train, job={"stage": "rate"})
    ran_first = toy_runs.written(tmp_path / "run", first)
    assert world(1, toy_runs.attempt, str(ran_first)) == [0]
    output = json.loads((tmp_path / "run" / "rate" / "output.json").read_text())
    second = toy_rewards.plan(
        rows,
        Layout(tp=2),
        own={"loss": "regular_bt", "load_head": load_head},
        weights=Weights("stage", stage="rate"),
        train=SHORT | {"steps": 1},
        global_batch=32,
    )
    [line] = ran(world, tmp_path / "run", second)
    same = line["rewards_all_mean"] == pytest.approx(output["reward_mean"], rel=1e-4)
    assert same == load_head


@pytest.mark.parametrize("distributed", [True, False])
def test_the_head_stays_in_fp32_beside_weights_in_bf16(world, tmp_path, distributed):
    rows = toy_rewards.polite(tmp_path, 32)
    how = {"precision": "bf16", "distributed_optimizer": distributed}
    found = toy_rewards.plan(rows, Layout(dp=2), train={"steps": 4, "save_every": 2}, **how)
    lines = ran(world, tmp_path / "run", found)
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert_alike(interrupted(world, tmp_path / "parts", found, 2), lines, rel=1e-12)
    assert world(1, head_dtypes, found.jobs[0].roles[0]) == [("torch.float32", "torch.bfloat16")]


def head_dtypes(role):
    """Types of the head's weight and of the embedding's."""
    from runtime import cpu, engine, parallel

    cpu.install()
    role = dataclasses.replace(role, layout=Layout(), gpus=1)
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    names = dict(engine.Engine(role, here).chunks[0].named_parameters())
    kinds = ("output_layer.weight", "embedding.word_embeddings.weight")
    return tuple(str(names[name].dtype) for name in kinds)


# ── real preferences ─────────────────────────────────────────────────────────────────────────────

PANDALM = (
    Path(os.environ.get("SPECC_SHARED", Path(__file__).parents[4] / "shared")) / "data/pandalm-human-prefs"
)


def majority(row):
    """Which response two or three of three people preferred: 1, 2, or 0."""
    votes = [row[f"annotator{i}"] for i in (1, 2, 3)]
    return next((side for side in (1, 2) if votes.count(side) >= 2), 0)


def preferences(folder, rows):
    """PandaLM's rows as comparisons, one half of the instructions to learn from and the other to test on."""
    parts = {True: [], False: []}
    for row in rows:
        side = majority(row)
        if side:
            # one of the answers is `true` in their file
            texts = {"chosen": str(row[f"response{side}"]), "rejected": str(row[f"response{3 - side}"])}
            # most of a tiny model's window is for the answers
            prompt = f"{row['instruction'][:40]}\n"
            parts[hash_of(row["instruction"]) % 2 == 0].append({"prompt": prompt, **texts})
    return [toy_rewards.written(folder / f"{name}.jsonl", parts[name]) for name in (True, False)]


def hash_of(text):
    return zlib.crc32(text.encode())


@pytest.mark.skipif(
    not PANDALM.exists(), reason="set SPECC_SHARED to the folder with data/pandalm-human-prefs"
)
def test_real_preferences_are_learnt(world, tmp_path):
    learnt, others = preferences(tmp_path, json.loads((PANDALM / "testset-v1.json").read_text()))
    train = {
        "steps": 30,
        "validate_every": 30,
        "seq_length": 192,
        "lr": 5e-3,
        "packing": True,
        "save_every": 0,
    }
    found = toy_rewards.plan(
        learnt, Layout(dp=2), validation=others, own={"truncation": "right"}, train=train,
        global_batch=32, micro_batch=2,
    )  # fmt: skip
    lines = ran(world, tmp_path / "run", found)
    early, late = lines[:8], lines[-8:]
    assert sum(line["loss"] for line in late) < sum(line["loss"] for line in early)
    assert sum(line["acc"] for line in late) / 8 > 0.5
    [measured] = [line for line in toy_rewards.lines(tmp_path / "run") if "validation_acc" in line]
    assert measured["validation_acc"] > 0.53  # of 460 pairs about other instructions; chance is 0.5 +- 0.02
