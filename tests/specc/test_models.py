"""Models by name, by folder and by shape; every mistake names the key and a way out."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc import models, plan
from specc.models import ShapeError, resolve, shape_from_config, shape_from_numbers

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
QWEN3_MOE = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}


def found(model, folder: Path | str = ".") -> plan.Model:
    got, said = resolve(model, "model", folder)
    assert got is not None, said
    return got


def refused(model, folder: Path | str = "."):
    got, said = resolve(model, "model", folder)
    assert got is None
    assert [d.severity for d in said] == ["error"]
    return said[0]


def folder_with(tmp_path: Path, config: object) -> Path:
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "config.json").write_text(text)
    return tmp_path


# --- by name


@pytest.mark.parametrize(
    "name", ["llama3-8b", "Llama-3-8B", "meta-llama/Meta-Llama-3-8B", "META-LLAMA/meta-llama-3-8b"]
)
def test_a_catalog_name_and_its_hugging_face_id_are_one_model_in_any_case(name: str):
    model = found(name)
    assert model.shape == models.catalog()["llama3-8b"].shape
    assert model.weights == plan.Weights("hf", "meta-llama/Meta-Llama-3-8B")
    assert model.tokenizer == "meta-llama/Meta-Llama-3-8B"


def test_an_instruct_model_keeps_its_own_id():
    assert found("llama-3.1-8b-instruct").weights.path == "meta-llama/Llama-3.1-8B-Instruct"


def test_a_revision_goes_with_the_weights_and_the_tokenizer():
    model = found("meta-llama/Llama-2-7b-hf@01c7f73")
    assert model.weights == plan.Weights("hf", "meta-llama/Llama-2-7b-hf", "01c7f73")
    assert model.tokenizer == "meta-llama/Llama-2-7b-hf@01c7f73"


def test_a_built_in_has_random_weights_and_the_byte_tokenizer():
    model = found("tiny-llama")
    assert (model.weights.kind, model.tokenizer, model.shape.hidden) == ("random", "builtin:bytes", 64)


def test_weights_tokenizer_and_template_are_said_beside_the_name():
    model = found(
        {"name": "llama3-8b", "weights": "random", "tokenizer": "builtin:bytes", "chat_template": "extra_id"}
    )
    assert (model.weights.kind, model.tokenizer, model.chat_template) == (
        "random",
        "builtin:bytes",
        "extra_id",
    )


def test_an_unknown_model_is_answered_with_the_nearest_one():
    said = refused("meta-llama/Llama-3.1-8B-Instuct")
    assert (said.code, said.path) == ("P001", "model")
    assert said.message == "unknown model `meta-llama/Llama-3.1-8B-Instuct`"
    assert said.help == (
        "did you mean `meta-llama/Llama-3.1-8B-Instruct`? or give a folder with a config.json, "
        "or `shape:` with its numbers"
    )


def test_a_nemo_archive_is_refused_with_what_to_do():
    said = refused("/data/gpt.nemo")
    assert said.code == "P003"
    assert "convert it to a Hugging Face folder" in said.help


def test_a_family_whose_weights_are_not_read_is_planned_with_a_warning():
    model, said = resolve("nemotron4-340b", "model")
    assert model is not None
    assert [(d.code, d.severity) for d in said] == [("P003", "warning")]
    assert resolve({"name": "nemotron4-340b", "weights": "random"}, "model")[1] == []


def test_nothing_at_all_is_refused():
    assert refused({"weights": "random"}).code == "P001"


# --- by folder


def test_a_folder_gives_its_shape_weights_and_tokenizer(tmp_path: Path):
    folder = folder_with(tmp_path, LLAMA)
    model = found(str(folder))
    assert (model.shape.layers, model.shape.kv_groups, model.shape.head_dim) == (2, 2, 16)
    assert model.weights == plan.Weights("hf", str(folder))
    assert model.tokenizer == str(folder)


def test_a_relative_folder_counts_from_the_spec(tmp_path: Path):
    (tmp_path / "ckpt").mkdir()
    folder_with(tmp_path / "ckpt", LLAMA)
    assert found("ckpt", tmp_path).weights.path == str(tmp_path / "ckpt")
    assert found("./ckpt", tmp_path).weights.path == str(tmp_path / "ckpt")


def test_a_folder_of_a_models_name_does_not_hide_the_model(tmp_path: Path):
    (tmp_path / "llama3-8b").mkdir()
    assert found("llama3-8b", tmp_path).shape.layers == 32


def test_an_absent_folder_named_like_a_model_is_planned_as_that_model_with_a_warning(tmp_path: Path):
    model, said = resolve("/not/here/Llama-3.1-8B", "model", tmp_path)
    assert model is not None
    assert model.shape == models.catalog()["llama3.1-8b"].shape
    assert model.weights.path == "/not/here/Llama-3.1-8B"
    assert [(d.code, d.severity) for d in said] == [("P005", "warning")]


def test_an_absent_folder_may_say_which_model_it_is(tmp_path: Path):
    model, said = resolve({"path": "/not/here/sft", "name": "llama3-70b"}, "model", tmp_path)
    assert model is not None
    assert model.shape.layers == 80
    assert said[0].path == "model.path"


def test_an_absent_folder_of_no_known_model_is_an_error_with_the_ways_out():
    said = refused("/not/here/mine")
    assert said.code == "P005"
    assert "shape" in said.help


def test_a_url_is_planned_by_its_name():
    assert found({"path": "s3://bucket/sft", "name": "llama3-8b"}).weights.path == "s3://bucket/sft"
    assert refused("s3://bucket/sft").code == "P005"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "expected an object"),
        ({**LLAMA, "hidden_size": "64"}, "`hidden_size` is '64', not a whole number"),
        ({**LLAMA, "num_hidden_layers": True}, "`num_hidden_layers` is True, not a whole number"),
        ({k: v for k, v in LLAMA.items() if k != "vocab_size"}, "`vocab_size` is missing"),
        ({**LLAMA, "num_hidden_layers": 0}, "layers 0 is not between 1 and 10000"),
        ({**LLAMA, "num_attention_heads": 0}, "must be positive"),
        (
            {**LLAMA, "num_key_value_heads": 3},
            "num_attention_heads 4 is not a multiple of num_key_value_heads 3",
        ),
        ({**LLAMA, "hidden_size": -64}, "must be positive"),
        ({**LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type `yarn` is not run"),
        ({**LLAMA, "rope_scaling": 3}, "rope_scaling is not an object"),
        ({**LLAMA, "attention_bias": True}, "`attention_bias: true` is not supported for llama"),
        ({**LLAMA, "hidden_act": "relu"}, "hidden_act `relu` is not silu"),
        ('{"vocab_size": ' + "9" * 5000 + "}", "is not JSON: a number of thousands of digits"),
        ("[" * 100_000, "is not JSON: nested too deep"),
        ({**LLAMA, "quantization_config": {"bits": 4}}, "the weights are quantised"),
        ({**QWEN3_MOE, "norm_topk_prob": False}, "`norm_topk_prob: false`"),
        (QWEN3_MOE, "`norm_topk_prob: false`"),
        (
            {
                **LLAMA,
                "model_type": "qwen2",
                "sliding_window": 8,
                "use_sliding_window": True,
                "max_window_layers": 1,
            },
            "a window in the layers from 1 on is not run",
        ),
    ],
)
def test_a_bad_config_is_refused_by_file_and_key(tmp_path: Path, config, words: str):
    said = refused(str(folder_with(tmp_path, config)))
    assert "config.json" in said.message
    assert words in said.message
    assert said.code in ("P002", "P003")


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi3", "deepseek_v3", ""])
def test_a_family_that_is_not_run_is_refused_by_name(tmp_path: Path, family: str):
    said = refused(str(folder_with(tmp_path, {**LLAMA, "model_type": family})))
    assert said.code == "P003"
    assert f"`{family}`" in said.message
    assert "llama, mistral, mixtral, qwen2, qwen3, gemma" in said.help


def test_a_folder_without_config_is_refused(tmp_path: Path):
    assert refused(str(tmp_path)).code == "P002"


def test_a_config_that_is_no_file_or_has_no_end_is_refused(tmp_path: Path):
    assert refused("/dev/zero").message.endswith("(not a regular file)")
    os.mkfifo(tmp_path / "config.json")
    assert refused(str(tmp_path)).message.endswith("(not a regular file)")
    (tmp_path / "config.json").unlink()
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(models.MAX_BYTES + 1)
    assert refused(str(tmp_path)).message.endswith("(larger than 16 MiB)")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{")
    assert refused(str(tmp_path)).code == "P002"


# --- by shape


def test_a_shape_needs_three_numbers():
    model = found({"shape": {"layers": 2, "hidden": 64, "heads": 4}})
    assert (model.shape.ffn, model.shape.kv_groups, model.shape.head_dim) == (256, 4, 16)
    assert model.weights.kind == "random"


@pytest.mark.parametrize(
    ("shape", "path", "words"),
    [
        ({"layers": 2, "hidden": 64}, "model.shape", "`heads` is missing"),
        (
            {"layers": 2, "hidden": 64, "heads": 5},
            "model.shape.heads",
            "hidden 64 is not a multiple of heads 5",
        ),
        ({"layer": 2, "hidden": 64, "heads": 4}, "model.shape.layer", "unknown key `layer`"),
        (
            {"layers": "2", "hidden": 64, "heads": 4},
            "model.shape.layers",
            "`layers` is '2', not a whole number",
        ),
        (
            {"layers": 2, "hidden": 64, "heads": 4, "kv_groups": 3},
            "model.shape.kv_groups",
            "not a multiple of kv_groups 3",
        ),
        (
            {"layers": 2, "hidden": 64, "heads": 4, "norm": "batch"},
            "model.shape.norm",
            "norm `batch` is not one of",
        ),
        (
            {"layers": 2, "hidden": 64, "heads": 4, "experts": 4},
            "model.shape",
            "experts_per_token 0 is not between",
        ),
        ({"layers": 2, "hidden": 64, "heads": 4, "head_dim": 15}, "model.shape.head_dim", "must be even"),
    ],
)
def test_a_bad_shape_is_refused_by_key(shape, path: str, words: str):
    said = refused({"shape": shape})
    assert (said.code, said.path) == ("P004", path)
    assert words in said.message


# --- from another run


def test_a_model_of_another_run_comes_from_its_plan(tmp_path: Path):
    role = plan.Role("model", "reward", 1, 1, plan.Layout(), 1, 1, found("tiny-llama"))
    job = plan.Job("reward", "rm", 1, (), (role,), {}, {})
    cluster = plan.Cluster("local", "none", "cpu", 1, "cpu", "gloo")
    (tmp_path / "plan.json").write_text(plan.to_json(plan.Plan(plan.FORMAT, "x", "0", 0, cluster, (job,))))
    model = found({"from": {"run": str(tmp_path), "stage": "rm"}})
    assert model.weights == plan.Weights("run", str(tmp_path), stage="rm")
    assert model.shape == role.model.shape
    said = refused({"from": {"run": str(tmp_path), "stage": "sft"}})
    assert said.message.endswith("has no stage `sft`; it has `rm`")


def test_a_run_that_is_not_here_needs_a_name():
    assert refused({"from": {"run": "nowhere", "stage": "rm"}}).code == "P005"
    model, said = resolve({"from": {"run": "nowhere", "stage": "rm"}, "name": "llama3-8b"}, "model")
    assert model is not None
    assert (model.weights.kind, said[0].severity) == ("run", "warning")


# --- config.json


@pytest.mark.torch
@pytest.mark.parametrize(
    "name", ["llama3.1-8b", "llama3.2-1b", "mistral-7b-v0.1", "qwen3-8b", "gemma-7b", "mixtral-8x7b"]
)
def test_the_config_that_transformers_writes_gives_the_catalogs_shape(name: str):
    import transformers

    shape = models.catalog()[name].shape
    rope = {"rope_theta": shape.rope_base, **(shape.rope_scaling or {"rope_type": "default"})}
    config = transformers.AutoConfig.for_model(
        shape.family,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_groups,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab,
        max_position_embeddings=shape.max_positions,
        rms_norm_eps=shape.norm_epsilon,
        tie_word_embeddings=shape.tied,
        rope_parameters=rope,
        **(
            {"sliding_window": shape.sliding_window or None} if shape.family in ("mistral", "mixtral") else {}
        ),
    )
    assert shape_from_config(json.loads(config.to_json_string(use_diff=False))) == shape


def test_the_old_form_of_rope_scaling_is_read():
    config = {**LLAMA, "rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    shape = shape_from_config(config)
    assert (shape.rope_base, shape.rope_scaling) == (500000.0, {"factor": 2.0, "rope_type": "linear"})


def test_qwen_uses_its_window_only_when_told():
    config = {**LLAMA, "model_type": "qwen2", "sliding_window": 128}
    assert shape_from_config(config).sliding_window == 0
    assert shape_from_config({**config, "use_sliding_window": True}).sliding_window == 128


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.sampled_from(sorted([*LLAMA, "rope_scaling", "head_dim", "num_experts", "tie_word_embeddings"])), JSON
)
def test_any_value_gives_a_shape_or_a_shape_error(key: str, value):
    with suppress(ShapeError):
        assert shape_from_config({**LLAMA, key: value}).layers >= 1


@given(st.dictionaries(st.sampled_from(sorted(plan.Shape.__dataclass_fields__)), JSON, max_size=6))
def test_any_numbers_give_a_shape_or_a_shape_error(numbers):
    with suppress(ShapeError):
        assert shape_from_numbers({"layers": 2, "hidden": 64, "heads": 4} | numbers).layers >= 1


# --- the catalog


def test_every_entry_is_sound_and_has_a_source():
    for entry in models.catalog().values():
        assert models.checked(entry.shape) == entry.shape
        assert entry.source
        assert models.find(entry.name)[0] is entry  # type: ignore[index]


def test_no_two_entries_share_an_id():
    ids = [hf.lower() for entry in models.catalog().values() for hf in entry.hf]
    assert len(ids) == len(set(ids))
