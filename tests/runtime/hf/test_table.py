"""The tables: every parameter has its tensors, under both kinds of names, and rows lie as they should."""

import json

import families
import pytest

from runtime.hf import table
from specc.models import shape_from_config
from specc.plan import Shape

pytestmark = pytest.mark.torch


def shape(**changes):
    fields = {
        "family": "llama", "layers": 2, "hidden": 8, "ffn": 6, "heads": 4, "kv_groups": 2, "head_dim": 2,
        "vocab": 10, "max_positions": 16,
    }  # fmt: skip
    return Shape(**(fields | changes))


def test_every_family_has_a_file():
    assert table.families() == ["gemma", "llama", "mistral", "mixtral", "qwen2", "qwen3"]


def test_queries_keys_and_values_lie_group_by_group():
    layout = table.Layout(shape())
    names, entry = layout.tensors_of("decoder.layers.1.self_attention.linear_qkv.weight")
    assert names == tuple(f"model.layers.1.self_attn.{x}_proj.weight" for x in "qkv")
    q, k, v = 0, 1, 2
    assert layout.segments(entry) == ((q, 0, 4), (k, 0, 2), (v, 0, 2), (q, 4, 8), (k, 2, 4), (v, 2, 4))


def test_gate_lies_above_up():
    layout = table.Layout(shape())
    names, entry = layout.tensors_of("decoder.layers.0.mlp.linear_fc1.weight")
    assert names == ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight")
    assert layout.segments(entry) == ((0, 0, 6), (1, 0, 6))


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        (0, 4, [(0, 0, 4)]),
        (3, 7, [(0, 3, 4), (1, 0, 2), (2, 0, 1)]),
        (13, 20, [(1, 3, 4), (2, 2, 4)]),
        (16, 20, []),
    ],
)
def test_a_cut_anywhere_is_the_rows_it_holds(first, last, found):
    layout = table.Layout(shape())
    _, entry = layout.tensors_of("decoder.layers.0.self_attention.linear_qkv.weight")
    assert list(table.within(layout.segments(entry), first, last)) == found


@pytest.mark.parametrize(
    ("te", "local"),
    [
        ("self_attention.linear_qkv.layer_norm_weight", "input_layernorm.weight"),
        ("mlp.linear_fc1.layer_norm_weight", "pre_mlp_layernorm.weight"),
    ],
)
def test_transformer_engines_names_mean_the_same(te, local):
    layout = table.Layout(shape())
    assert layout.tensors_of(f"decoder.layers.1.{te}") == layout.tensors_of(f"decoder.layers.1.{local}")


def test_a_tied_output_layer_is_the_embedding():
    tied = table.Layout(shape(tied=True))
    assert tied.tensors_of("output_layer.weight")[0] == ("model.embed_tokens.weight",)
    assert "lm_head.weight" not in dict(tied.tensors())
    assert table.Layout(shape()).tensors_of("output_layer.weight")[0] == ("lm_head.weight",)


@pytest.mark.parametrize("name", families.CONFIGS)
def test_the_tensors_and_their_sizes_are_those_that_transformers_writes(tmp_path, name):
    folder = families.saved(tmp_path, name)
    layout = table.Layout(shape_from_config(json.loads((folder / "config.json").read_text())))
    theirs = {tensor: tuple(value.shape) for tensor, value in families.tensors(folder).items()}
    assert dict(layout.tensors()) == theirs


def test_a_parameter_without_a_place_is_named():
    from runtime.problem import Problem

    with pytest.raises(Problem, match=r"R031: parameter `extra.weight` has no counterpart in the table of"):
        table.Layout(shape()).tensors_of("extra.weight")
