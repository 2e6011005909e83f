"""Parameters from a shape: against published counts, and against Hugging Face's own modules."""

import pytest

from specc import models
from specc.plan import Layout, Shape
from specc.planner import shapes, targets

PUBLISHED = {name: entry for name, entry in models.catalog().items() if entry.parameters is not None}

ROUNDED = {  # billions, from the models' cards and papers
    "nemotron3-4b": 4.19,
    "nemotron3-8b": 8.54,
    "nemotron4-15b": 15.63,
    "nemotron4-340b": 341.03,
    "gpt-2b-001": 2.25,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_count_equals_the_published_one(name: str):
    assert shapes.parameters(PUBLISHED[name].shape) == PUBLISHED[name].parameters


@pytest.mark.parametrize("name", ROUNDED)
def test_the_count_rounds_to_the_published_billions(name: str):
    assert shapes.parameters(models.catalog()[name].shape) / 1e9 == pytest.approx(ROUNDED[name], abs=0.006)


def test_gpt_2b_fills_its_published_file_of_fp32():
    assert shapes.parameters(models.catalog()["gpt-2b-001"].shape) * 4 / 1e9 == pytest.approx(9.02, abs=0.01)


@pytest.mark.torch
@pytest.mark.parametrize(
    "name", ["llama3.2-1b", "qwen2.5-7b", "qwen3-0.6b", "gemma-2b", "mixtral-8x7b", "mistral-7b-v0.1"]
)
def test_the_count_equals_that_of_transformers(name: str):
    import torch
    import transformers

    shape = models.catalog()[name].shape
    config = transformers.AutoConfig.for_model(
        shape.family,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_groups,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert shapes.parameters(shape) == sum(p.numel() for p in model.parameters())


def test_the_vocabulary_is_padded_alike_for_every_usual_tp():
    assert [shapes.padded_vocab(32000, tp) for tp in (1, 2, 4, 8)] == [32000] * 4
    assert shapes.padded_vocab(50257, 8) == 50304
    assert shapes.padded_vocab(1000, 3) % (128 * 3) == 0


def test_405b_over_16_stages_gives_the_first_and_last_a_layer_less():
    assert shapes.balanced(126, 16) == (7, *[8] * 14, 7)


def test_embedding_and_loss_are_slots_where_they_make_it_even():
    assert shapes.balanced(61, 16, after=1) == (3, *[4] * 14, 2)  # embedding; MTP and loss
    assert sum(shapes.balanced(61, 32, after=1)) == 61
    assert shapes.balanced(126, 32) == (3, *[4] * 30, 3)
    assert shapes.balanced(80, 8) == (10,) * 8


def test_deepseeks_dense_layers_are_the_first_ones_of_all_chunks():
    shape = targets.catalog()["deepseek-v3"].shape
    assert shapes.dense_by_chunk(shape, Layout(pp=16)) == (3, *[0] * 15)
    two = Layout(pp=2, stage_layers=(2, 59))
    assert shapes.dense_by_chunk(shape, two) == (2, 1)


@pytest.mark.parametrize(("layers", "chunks"), [(80, 8), (5, 2), (61, 16), (3, 3), (94, 8)])
def test_balanced_deals_every_layer_and_differs_by_one(layers: int, chunks: int):
    counts = shapes.balanced(layers, chunks)
    assert sum(counts) == layers
    assert len(counts) == chunks
    assert max(counts) - min(counts) <= 1


def test_the_ranks_of_a_dense_model_hold_it_once():
    """TP x PP shares add up to the whole, the replicated norms counted once per TP rank."""
    shape = models.catalog()["llama3-8b"].shape
    layout = Layout(tp=2, pp=4)
    held = sum(shapes.stage_parameters(shape, layout, stage).dense for stage in range(4)) * 2
    norms = shape.layers * 2 * shape.hidden + shape.hidden
    assert held == shapes.parameters(shape) + norms  # 128256 needs no padding


def test_a_tied_model_holds_a_second_copy_of_its_embedding_on_the_last_stage():
    shape = models.catalog()["llama3.2-1b"].shape
    whole = shapes.stage_parameters(shape, Layout(), 0).dense
    halves = sum(shapes.stage_parameters(shape, Layout(pp=2), stage).dense for stage in (0, 1))
    assert halves - whole == shape.vocab * shape.hidden


def test_a_reward_model_has_no_output_layer():
    shape = models.catalog()["llama3-8b"].shape
    assert (
        shapes.parameters(shape) - shapes.parameters(shape, "scalar")
        == shape.vocab * shape.hidden - shape.hidden
    )


@pytest.mark.parametrize(
    ("name", "kilobytes"),
    [
        ("llama3-8b", 131),
        ("llama3-70b", 328),
        ("llama3.1-405b", 516),
        ("llama2-7b", 524),
        ("qwen3-30b-a3b", 98),
    ],
)
def test_keys_and_values_of_one_token_take_what_is_published(name: str, kilobytes: int):
    assert shapes.kv_bytes_per_token(models.catalog()[name].shape) / 1000 == pytest.approx(kilobytes, abs=0.6)


def test_flops_follow_the_closed_form_of_2104_04473():
    """96 B s l h^2 (1 + s/6h + V/16lh) counts full recomputation; 72 B s l h^2 (...) is without."""
    s, layers, h, v = 2048, 24, 2304, 51200
    shape = Shape(
        "gpt", layers, h, 4 * h, 24, 24, h // 24, v, s, activation="gelu", tied=True, norm="layernorm"
    )
    closed = (
        72 * layers * h * h * (1 + s / (6 * h) + v / (12 * layers * h))
    )  # per token, without recomputation
    ours = shapes.training_flops_per_token(shape, 2 * s)  # twice: the paper counts the whole square
    assert ours == pytest.approx(closed, rel=0.001)
