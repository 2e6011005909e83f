"""Rewards of rows: transformers' own numbers, any layout, any kill; and how a text is cut."""

import json
import os
import random
import signal

import llamas
import pytest
import toy_rewards
import toy_rows
import toy_runs
from toy_rows import attempt, job, judge, plan, role

from specc.models import shape_from_config
from specc.plan import Layout, Model, Weights

pytestmark = pytest.mark.torch

NAMES = ("helpfulness", "verbosity", "humor")
WEIGHTS = {"helpfulness": 1.0, "humor": -0.5}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Thirteen rows of different lengths, some with the same prompt."""
    draw = random.Random(3)
    words = ["".join(draw.choice("abc de") for _ in range(draw.randint(1, 30))) for _ in range(26)]
    rows = [
        {"input": f"{p}?", "output": f" {r}!", "finish": "stop"}
        for p, r in zip(words[::2], words[1::2], strict=True)
    ]
    return toy_rows.written(tmp_path_factory.mktemp("answers") / "rows.jsonl", rows)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A random model of transformers with three numbers for a head."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(5)
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    folder = tmp_path_factory.mktemp("classifier")
    LlamaForSequenceClassification(
        LlamaConfig(**(llamas.SMALL | names | {"pad_token_id": 0}))
    ).save_pretrained(folder)
    return folder


def scored(folder, answers, classifier, layout=None, **settings):
    """A plan that scores the answers with that model."""
    shape = shape_from_config(json.loads((classifier / "config.json").read_text()))
    model = Model("judge", shape, Weights("hf", str(classifier)), head="attributes", attributes=NAMES)
    settings = {"function": "", "merge": WEIGHTS, "batch": 5, "seq_length": 96, "standardise": ""} | settings
    data = {"rows": {"path": str(answers)}}
    return toy_runs.written(folder, plan(job("score", role("score", layout, model=model), settings, data)))


def theirs(classifier, texts):
    """What transformers says at the last token of each text, in float32 [N, 3]."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(classifier, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.cat([model(torch.tensor([tokens])).logits for tokens in texts]).double()


def tokens_of(answers, longest=96, end=(257,)):
    """Prompt and response, byte by byte, cut at the right, with the end token behind."""
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    return [[*(row["input"] + row["output"]).encode()[: longest - len(end)], *end] for row in rows]


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory, answers, classifier):
    folder = tmp_path_factory.mktemp("whole")
    assert world(1, attempt, str(scored(folder, answers, classifier)), "score") == [0]
    return folder


def test_scores_are_those_of_transformers(whole, answers, classifier):
    expected = theirs(classifier, tokens_of(answers))
    found = toy_rows.rows(whole, "score")
    assert len(found) == 13
    for row, logits in zip(found, expected.tolist(), strict=True):
        named = dict(zip(NAMES, logits, strict=True))
        assert row["attributes"] == pytest.approx(named, abs=1e-5)
        assert row["reward"] == pytest.approx(named["helpfulness"] - 0.5 * named["humor"], abs=1e-5)
    assert [{k: row[k] for k in ("input", "output", "finish")} for row in found] == [
        json.loads(line) for line in answers.read_text().splitlines()
    ]


@pytest.mark.parametrize(
    "layout", [Layout(tp=2), Layout(pp=2), Layout(dp=2), Layout(tp=2, pp=2), Layout(tp=2, dp=2)], ids=str
)
def test_the_layout_shows_in_no_row_but_for_rounding(world, tmp_path, answers, classifier, whole, layout):
    n = layout.world_size
    file = scored(tmp_path, answers, classifier, layout)
    assert world(n, attempt, str(file), "score") == [0] * n
    numbers = ("reward", "attributes")
    for ours, expected in zip(toy_rows.rows(tmp_path, "score"), toy_rows.rows(whole, "score"), strict=True):
        assert ours["reward"] == pytest.approx(expected["reward"], abs=1e-5)
        assert ours["attributes"] == pytest.approx(expected["attributes"], abs=1e-5)
        assert {k: v for k, v in ours.items() if k not in numbers} == {
            k: v for k, v in expected.items() if k not in numbers
        }


def died(plan_file, stage, step):
    """An attempt of which the last rank is killed in that step."""
    from runtime import judges

    asking, calls = judges.heard, []

    def dying(*given):
        calls.append(1)
        if len(calls) == step and int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return asking(*given)

    judges.heard = dying
    return attempt(plan_file, stage)


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2), Layout(pp=2), Layout(dp=2)], ids=str)
def test_a_kill_does_not_show(world, tmp_path, answers, classifier, layout):
    from worlds import WorldFailed

    n, same = layout.world_size, {"standardise": "rows"}
    for name in ("let be", "killed"):
        file = scored(tmp_path / name, answers, classifier, layout, **same)
        if name == "killed":
            with pytest.raises(WorldFailed):
                world(n, died, str(file), "score", 2)
            assert (tmp_path / name / "score" / "shards" / "000000.jsonl").exists()
        assert world(n, attempt, str(file), "score", "2") == [0] * n
    one, other = ((tmp_path / name / "score" / "rows.jsonl").read_bytes() for name in ("let be", "killed"))
    assert one == other


def test_a_text_that_is_too_long_loses_its_last_tokens_before_the_end(world, tmp_path, answers, classifier):
    longest = 24
    file = scored(tmp_path, answers, classifier, seq_length=longest)
    assert world(1, attempt, str(file), "score") == [0]
    expected = theirs(classifier, tokens_of(answers, longest))[:, 0].tolist()
    found = [row["attributes"]["helpfulness"] for row in toy_rows.rows(tmp_path, "score")]
    assert found == pytest.approx(expected, abs=1e-5)
    cut = sum(len(tokens) > longest for tokens in tokens_of(answers))
    assert 0 < cut < 13
    assert toy_rows.output(tmp_path, "score")["texts_cut"] == cut


def test_without_an_end_token_the_score_is_read_at_the_last_of_the_text(world, tmp_path, answers, classifier):
    assert world(1, attempt, str(scored(tmp_path, answers, classifier, add_eos=False)), "score") == [0]
    expected = theirs(classifier, tokens_of(answers, end=()))[:, 0].tolist()
    found = [row["attributes"]["helpfulness"] for row in toy_rows.rows(tmp_path, "score")]
    assert found == pytest.approx(expected, abs=1e-5)


def test_an_error_is_said_of_a_long_text_where_that_is_asked(world, tmp_path, answers, classifier):
    file = scored(tmp_path, answers, classifier, seq_length=24, truncation="error")
    assert world(1, attempt, str(file), "score") == [1]
    assert "tokens, but seq_length is 24" in toy_rows.error(tmp_path, "score")


def test_standardised_by_all_rows_they_have_mean_0_and_deviation_1(
    world, tmp_path, answers, classifier, whole
):
    import statistics

    assert world(1, attempt, str(scored(tmp_path, answers, classifier, standardise="rows")), "score") == [0]
    found = [row["reward"] for row in toy_rows.rows(tmp_path, "score")]
    raw = [row["reward"] for row in toy_rows.rows(whole, "score")]
    assert statistics.fmean(found) == pytest.approx(0, abs=1e-12)
    assert statistics.stdev(found) == pytest.approx(1, abs=1e-12)
    said = toy_rows.output(tmp_path, "score")
    assert said["reward_mean"] == pytest.approx(statistics.fmean(raw), abs=1e-12)
    assert said["reward_std"] == pytest.approx(statistics.stdev(raw), abs=1e-12)


# ── a reward model of the same run ───────────────────────────────────────────────────────────────


def test_a_trained_judge_scores_as_in_its_training(world, tmp_path):
    """Its texts as rows: the standardised rewards have the mean and deviation that its validation had."""
    texts = toy_rewards.polite(tmp_path, 24)
    trained = toy_rewards.plan(texts, validation=texts, train={"steps": 4, "validate_every": 4, "lr": 1e-2})
    pairs = [json.loads(line) for line in texts.read_text().splitlines()]
    rows = [{"input": p["prompt"], "output": p[side]} for p in pairs for side in ("chosen", "rejected")]
    data = {"rows": {"path": str(toy_rows.written(tmp_path / "rows.jsonl", rows))}}
    model = judge(weights=Weights("stage", stage="sft"))
    settings = {"standardise": "model", "seq_length": 32, "batch": 16}
    own = job("score", role("score", model=model), settings, data)
    file = toy_runs.written(tmp_path, plan(*trained.jobs, own))
    assert world(1, toy_runs.attempt, str(file)) == [0]
    assert world(1, attempt, str(file), "score") == [0]
    said, learnt = toy_rows.output(tmp_path, "score"), toy_rows.output(tmp_path, "sft")
    assert learnt["reward_std"] > 0.05  # it tells texts apart
    assert said["reward_mean"] == pytest.approx(0, abs=1e-3)
    assert said["reward_std"] == pytest.approx(1, abs=1e-3)
    found = [row["reward"] for row in toy_rows.rows(tmp_path, "score")]
    acc = sum(a > b for a, b in zip(found[::2], found[1::2], strict=True)) / len(pairs)
    assert acc == pytest.approx(learnt["metrics"]["validation_acc"], abs=1e-9)


def test_a_conversation_is_scored_through_the_chat_template(world, tmp_path):
    """A row with `messages` scores as the text that the template makes of it."""
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    from runtime import chat, tokenizer

    bytes_ = tokenizer.load("builtin:bytes")
    tokens, _ = chat.encode(bytes_, {"messages": talk}, "")
    rows = [{"input": "not this", "output": "nor this", "messages": talk}]
    rows += [{"input": bytes_.decode(tokens), "output": ""}]
    data = {"rows": {"path": str(toy_rows.written(tmp_path / "rows.jsonl", rows))}}
    settings = {"seq_length": 200, "add_eos": False}
    file = toy_runs.written(tmp_path, plan(job("score", role("score", model=judge()), settings, data)))
    assert world(1, attempt, str(file), "score") == [0]
    one, other = toy_rows.rows(tmp_path, "score")
    assert one["reward"] == pytest.approx(other["reward"], abs=1e-6)
    assert "attributes" not in one
