"""SFT's loss: by hand, against Hugging Face on the same tokens, and the same for every microbatch."""

import dataclasses
import json

import pytest
import torch
import toy_runs
from hypothesis import given
from hypothesis import strategies as st

from runtime.algorithms.sft import loss
from runtime.batch import Sample, dealt, trained_tokens
from runtime.tensors import masked_mean, masked_sum
from specc.plan import Layout, Model, Weights

pytestmark = pytest.mark.torch


def batch_of(mask_BT):
    [batch] = dealt([[Sample(0, [0] * 4, [1] * 4)]], 0, 1, 1)
    return dataclasses.replace(batch, mask_BT=torch.tensor(mask_BT))


def test_the_loss_is_the_mean_over_trained_tokens():
    logprobs_BT = torch.tensor([[-1.0, -2.0, -4.0]])
    value, metrics = loss(logprobs_BT, batch_of([[0.0, 1.0, 1.0]]), denominator=2)
    assert value.item() == 3.0
    assert metrics["loss"].item() == 3.0


def test_what_is_not_trained_does_not_matter_even_when_it_is_not_finite():
    logprobs_BT = torch.tensor([[float("-inf"), -2.0, float("nan")]], requires_grad=True)
    value, _ = loss(logprobs_BT, batch_of([[0.0, 1.0, 0.0]]), denominator=1)
    value.backward()
    assert value.item() == 2.0
    assert logprobs_BT.grad.tolist() == [[0.0, -1.0, 0.0]]


def test_masked_sums_and_means_by_hand():
    values, mask = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    assert (masked_sum(values, mask).item(), masked_mean(values, mask).item()) == (4.0, 2.0)
    assert masked_mean(values, torch.zeros(1, 3)).item() == 0.0


@given(st.lists(st.integers(2, 12), min_size=1, max_size=9), st.integers(1, 3), st.integers(1, 3))
def test_the_shares_of_all_microbatches_add_up_to_one_loss(lengths, dp, micro_batch):
    samples = [Sample(i, list(range(n)), [0, *[1] * (n - 1)]) for i, n in enumerate(lengths)]
    bins = [[s] for s in samples]
    total = 0.0
    for rank in range(dp):
        for batch in dealt(bins, rank, dp, micro_batch):
            logprobs_BT = -batch.labels_BT.double() / 10  # any function of the label
            total += loss(logprobs_BT, batch, denominator=trained_tokens(bins))[0].item()
    labels = [t for s in samples for t in s.tokens[1:]]
    assert total == pytest.approx(sum(labels) / 10 / len(labels), rel=1e-5)


# ── against Hugging Face ──────────────────────────────────────────────────────────────────────────


def saved_llama(folder):
    """A random Hugging Face Llama of two layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    shape = toy_runs.LLAMA
    model = LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=shape.layers,
            hidden_size=shape.hidden,
            intermediate_size=shape.ffn,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_groups,
            vocab_size=shape.vocab,
            max_position_embeddings=shape.max_positions,
            rms_norm_eps=shape.norm_epsilon,
            initializer_range=0.2,
        )
    )
    model.save_pretrained(folder)
    return model.eval()


def hugging_face_loss(model, folder, global_batch):
    """The mean over trained tokens of the first global batch, one row after another."""
    from runtime.data.order import Order
    from runtime.data.tokenised import Tokenised

    [data] = (folder / "sft" / "data").iterdir()
    samples = Tokenised(data)
    nll, count = 0.0, 0
    for index in Order(len(samples), 1234).indices(0, global_batch):
        tokens = torch.tensor([samples[index].tokens])
        mask = torch.tensor([samples[index].mask])
        labels = tokens.masked_fill(mask == 0, -100)
        with torch.no_grad():
            mean = model(input_ids=tokens, labels=labels).loss.item()
        nll += mean * int(mask[0, 1:].sum())
        count += int(mask[0, 1:].sum())
    return nll / count


@pytest.mark.parametrize(
    ("layout", "packing"), [(Layout(), False), (Layout(tp=2), True), (Layout(pp=2), False)], ids=str
)
def test_the_first_loss_is_that_of_hugging_face_on_the_same_tokens(world, tmp_path, layout, packing):
    model = saved_llama(tmp_path / "hf")
    found = toy_runs.plan(
        layout, weights=Weights("hf", str(tmp_path / "hf")), train={"steps": 1, "packing": packing}
    )
    file = toy_runs.written(tmp_path / "run", found)
    assert set(world(layout.world_size, toy_runs.attempt, str(file))) == {0}
    [line] = toy_runs.metrics(tmp_path / "run")
    expected = hugging_face_loss(model, tmp_path / "run", 8)
    assert line["loss"] == pytest.approx(expected, rel=1e-5)


def test_training_at_rate_0_exports_the_weights_it_was_given(world, tmp_path):
    from safetensors.torch import load_file

    saved_llama(tmp_path / "hf")
    found = toy_runs.plan(
        Layout(tp=2),
        weights=Weights("hf", str(tmp_path / "hf")),
        train={"steps": 2, "lr": 0.0, "min_lr": 0.0},
        job={"export": True},
    )
    file = toy_runs.written(tmp_path / "run", found)
    assert set(world(2, toy_runs.attempt, str(file))) == {0}
    before = load_file(tmp_path / "hf" / "model.safetensors")
    exported = {}
    for part in (tmp_path / "run" / "sft" / "hf").glob("*.safetensors"):
        exported |= load_file(part)
    assert set(exported) == set(before)
    for name, tensor in before.items():
        assert torch.equal(exported[name], tensor), name


@pytest.mark.parametrize(("hand_over", "taken"), [("best", "step-1"), ("last", "step-2")])
def test_what_is_exported_is_what_later_stages_take(world, tmp_path, hand_over, taken):
    """The best checkpoint, here the first of two steps that make the model worse and worse; or the last."""
    from safetensors.torch import load_file

    validation = {"path": "builtin:arithmetic", "limit": 16}
    worse = {"lr": 0.3, "min_lr": 0.3, "schedule": "constant", "warmup_steps": 0, "save_every": 1}
    found = {}
    for steps in (1, 2):
        train = worse | {"steps": steps, "validate_every": 1}
        own = {**toy_runs.SFT, "hand_over": hand_over}
        planned = toy_runs.plan(train=train, sft=own, validation=validation, job={"export": True})
        file = toy_runs.written(tmp_path / str(steps), planned)
        assert world(1, toy_runs.attempt, str(file)) == [0]
        stage = tmp_path / str(steps) / "sft"
        assert json.loads((stage / "output.json").read_text())["checkpoint"] == min(taken, f"step-{steps}")
        found[steps] = load_file(stage / "hf" / "model.safetensors")
    same = all(torch.equal(found[2][name], tensor) for name, tensor in found[1].items())
    assert same is (hand_over == "best")


def test_a_stage_takes_the_model_of_the_one_before(world, tmp_path):
    """The second stage's first loss is what the first one measured at its end."""
    validation = {"path": "builtin:arithmetic", "limit": 64, "split": "train"}
    first = toy_runs.plan(
        train={"steps": 4, "validate_every": 4}, validation=validation, job={"stage": "before"}
    )
    file = toy_runs.written(tmp_path, first)
    assert world(1, toy_runs.attempt, str(file)) == [0]
    output = json.loads((tmp_path / "before" / "output.json").read_text())
    second = toy_runs.plan(
        Layout(tp=2), weights=Weights("stage", stage="before"), train={"steps": 1}, global_batch=64
    )
    toy_runs.written(tmp_path, second)
    assert world(2, toy_runs.attempt, str(file)) == [0, 0]
    [line] = toy_runs.metrics(tmp_path)
    assert line["loss"] == pytest.approx(output["metrics"]["validation_loss"], rel=1e-5)


def test_a_tokenizer_larger_than_the_model_is_refused(world, tmp_path):
    small = dataclasses.replace(toy_runs.LLAMA, vocab=100)
    file = toy_runs.written(tmp_path, toy_runs.plan(model=Model("tiny", small, Weights())))
    assert world(1, toy_runs.attempt, str(file)) == [1]
    error = json.loads((tmp_path / "sft" / "attempts" / "1" / "error-0.json").read_text())
    assert error["code"] == "R019"
    assert error["message"].startswith("data.train holds token 257, but model `tiny` has a vocabulary of 100")
