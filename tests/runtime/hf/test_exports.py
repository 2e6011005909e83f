"""Weights out again: what came in byte for byte, and a folder that transformers opens."""

import dataclasses
import json

import families
import pytest

from specc.plan import Layout

pytestmark = pytest.mark.torch


def there_and_back(role, source, target, dtype="float32", file_bytes=60_000):
    """Import `source` under the role's layout, export to `target`."""
    from runtime import cpu, engine, parallel
    from runtime.hf import export_weights, exports, import_weights

    cpu.install()
    exports.FILE_BYTES = file_bytes
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    model = engine.Engine(role, here)
    import_weights(model, role, source, here)
    export_weights(model, role, target, here, dtype)


def assert_same_tensors(a, b):
    first, second = families.tensors(a), families.tensors(b)
    assert sorted(first) == sorted(second)
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        assert first[name].equal(second[name]), name


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("llama-tied", Layout(tp=2, pp=2)),
        ("qwen2", Layout(tp=2, dp=2)),
        ("qwen3", Layout(pp=2, vp=2)),
        ("gemma", Layout(pp=2, stage_layers=(1, 3))),
        ("mixtral", Layout(dp=2, ep=2)),
        ("qwen3-moe", Layout(pp=2, dp=2, ep=2)),
        ("mixtral", Layout(tp=2, etp=2, sequence_parallel=True)),
        ("qwen3-moe", Layout(tp=2, ep=2, sequence_parallel=True)),
    ],
    ids=lambda value: str(value),
)
def test_every_layout_gives_the_same_bytes(world, tmp_path, name, layout):
    source = families.saved(tmp_path / "model", name)
    world(layout.world_size, there_and_back, families.role(source, layout), str(source), str(tmp_path / "hf"))
    assert_same_tensors(source, tmp_path / "hf")


def test_a_bf16_checkpoint_survives_fp32(world, tmp_path):
    source = families.saved(tmp_path / "model", "llama", dtype="bfloat16")
    world(1, there_and_back, families.role(source), str(source), str(tmp_path / "hf"), "bf16")
    assert_same_tensors(source, tmp_path / "hf")


@pytest.mark.parametrize("name", families.CONFIGS)
def test_what_comes_in_goes_out_byte_for_byte_and_transformers_opens_it(world, tmp_path, name):
    import torch
    from transformers import AutoModelForCausalLM

    source = families.saved(tmp_path / "model", name)
    world(1, there_and_back, families.role(source), str(source), str(tmp_path / "hf"))
    assert_same_tensors(source, tmp_path / "hf")
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        for folder in (source, tmp_path / "hf")
    )
    assert type(before) is type(after)
    assert after.dtype is torch.float32
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        assert before(tokens).logits.equal(after(tokens).logits)


def test_the_files_are_named_and_indexed_as_on_the_hub(world, tmp_path):
    source = families.saved(tmp_path / "model", "llama")
    role, target = families.role(source, Layout(pp=2)), tmp_path / "hf"
    world(2, there_and_back, role, str(source), str(target))
    index = json.loads((target / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in target.glob("*.safetensors"))
    count = len(files)
    assert count > 2
    assert files == [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    assert sorted(set(index["weight_map"].values())) == files
    tensors = families.tensors(target)
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "model"]


def test_a_small_model_is_one_file_and_the_tokenizer_lies_beside_it(world, tmp_path):
    from transformers import AutoTokenizer

    source = families.saved(tmp_path / "model", "llama", vocab_size=259)
    world(1, there_and_back, families.role(source), str(source), str(tmp_path / "hf"), "float32", 10**9)
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert theirs("né").input_ids == list("né".encode())


def test_the_chat_template_goes_along_as_jinja(world, tmp_path):
    from transformers import AutoTokenizer

    source = families.saved(tmp_path / "model", "llama")
    role = families.role(source)
    role = dataclasses.replace(role, model=dataclasses.replace(role.model, chat_template="extra_id"))
    world(1, there_and_back, role, str(source), str(tmp_path / "hf"))
    asked = [{"role": "user", "content": "2+2?"}]
    text = AutoTokenizer.from_pretrained(tmp_path / "hf").apply_chat_template(
        asked, tokenize=False, add_generation_prompt=True
    )
    assert text == "<extra_id_0>System\n\n<extra_id_1>User\n2+2?\n<extra_id_1>Assistant\n"


def test_an_export_takes_the_place_of_an_older_one(world, tmp_path):
    source = families.saved(tmp_path / "model", "llama")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "stale").write_text("old")
    world(1, there_and_back, families.role(source), str(source), str(tmp_path / "hf"))
    assert not (tmp_path / "hf" / "stale").exists()
    assert_same_tensors(source, tmp_path / "hf")


def refused(role, target, dtype):
    from runtime.problem import Problem

    try:
        there_and_back(role, role.model.weights.path, target, dtype)
    except Problem as problem:
        return str(problem)


def test_a_failing_disk_is_one_problem_on_every_rank(world, tmp_path):
    source = families.saved(tmp_path / "model", "llama")
    (tmp_path / "in-the-way").write_text("")
    role = families.role(source, Layout(tp=2))
    said = world(2, refused, role, str(tmp_path / "in-the-way" / "hf"), "float32")
    assert said[0] == said[1]
    assert said[0].startswith("R037: the model cannot be exported")


def test_an_unknown_type_is_refused(world, tmp_path):
    source = families.saved(tmp_path / "model", "llama")
    (said,) = world(1, refused, families.role(source), str(tmp_path / "hf"), "int4")
    assert said == "R037: a model cannot be exported as `int4`; use bfloat16, float16, float32"
