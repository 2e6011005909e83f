"""Folders that cannot be imported: one sentence each, with the way out, on every rank."""

import dataclasses
import json

import families
import pytest

pytestmark = pytest.mark.torch


def refusal(role, folder, revision=""):
    """What importing `folder` into one process says."""
    from runtime import cpu, model, parallel
    from runtime.hf import import_weights
    from runtime.problem import Problem

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    try:
        import_weights(model.build(role, here), role, folder, here)
    except Problem as problem:
        return str(problem)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return families.saved(tmp_path_factory.mktemp("healthy") / "model", "llama")


@pytest.fixture
def folder(healthy, tmp_path):
    """A copy to be spoilt."""
    import shutil

    shutil.copytree(healthy, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def says(world, healthy):
    """What is said when a folder is read for the healthy model's role."""
    return lambda path, role=None: world(1, refusal, role or families.role(healthy), str(path))[0]


def rewrite(folder, change):
    """Replace all tensors by what `change` makes of them, in one file."""
    from safetensors.torch import save_file

    tensors = families.tensors(folder)
    for file in folder.glob("model*"):
        file.unlink()
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def test_a_healthy_folder_is_not_refused(says, folder):
    assert says(folder) is None


def test_a_missing_tensor_is_named(says, folder):
    rewrite(folder, lambda tensors: tensors.pop("model.layers.2.mlp.up_proj.weight"))
    expected = "has no `model.layers.2.mlp.up_proj.weight`; it is not a whole model of the planned shape"
    assert says(folder) == f"R032: `{folder}` {expected}"


def test_many_missing_tensors_are_counted(says, folder):
    rewrite(folder, lambda tensors: [tensors.pop(n) for n in list(tensors) if ".mlp." in n])
    assert "`model.layers.2.mlp.gate_proj.weight` and 9 more; it is not a whole model" in says(folder)


def test_an_unknown_tensor_is_named(says, folder):
    rewrite(folder, lambda tensors: tensors.update(adapter=tensors["model.norm.weight"].clone()))
    expected = "has `adapter`, which the planned model has not; plan with the folder's own config.json"
    assert says(folder) == f"R032: `{folder}` {expected}"


def test_frequencies_of_old_checkpoints_do_not_matter(says, folder):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(folder, lambda tensors: tensors.update({name: tensors["model.norm.weight"].clone()}))
    assert says(folder) is None


def test_a_tensor_of_another_size_is_named(says, folder):
    rewrite(folder, lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"][:32]}))
    assert says(folder) == (
        f"R032: `model.norm.weight` in `{folder}` is [32], but the plan's model wants [64]; "
        "plan with the folder's own config.json"
    )


def test_quantised_tensors_are_refused(says, folder):
    import torch

    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(folder, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    assert says(folder) == (
        f"R031: `{name}` in `{folder}` is quantised (I8); take the bf16 form of the model"
    )


def test_a_torn_file_is_named(says, folder):
    file = sorted(folder.glob("*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-100])
    said = says(folder)
    assert said.startswith(f"R033: `{file}` is damaged (")
    assert said.endswith("); fetch it again")


def test_a_file_that_the_index_names_and_that_is_not_there(says, folder):
    file = sorted(folder.glob("*.safetensors"))[1]
    file.unlink()
    assert says(folder) == f"R030: `{file}` is missing, though the index names it; fetch it again"


def test_an_index_may_not_lead_out_of_its_folder(says, folder):
    index = folder / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"]["lm_head.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(data))
    assert says(folder) == f"R033: `{index}` names a file outside its folder: `../elsewhere.safetensors`"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (
            "pytorch_model.bin",
            "holds a pickled checkpoint (.bin), which is not read; write it as safetensors",
        ),
        ("pytorch_model.bin.index.json", "holds a pickled checkpoint (.bin), which is not read"),
        (
            "consolidated.00.pth",
            "holds a pickled checkpoint (.pth), which is not read; take the Hugging Face form",
        ),
        ("model.gguf", "holds a GGUF file, which is not read; take the safetensors form of this model"),
        ("llama.nemo", "holds a .nemo archive, which is not read; convert it to a Hugging Face folder"),
    ],
)
def test_other_formats_are_refused_by_name(says, tmp_path, file, said):
    (tmp_path / file).write_text("")
    answer = says(tmp_path)
    assert answer.startswith("R031: ")
    assert said in answer


def test_a_nemo_archive_is_refused_even_when_absent(says):
    assert says("models/llama.nemo").startswith(
        "R031: `models/llama.nemo` is a .nemo archive, which is not read"
    )


def test_an_empty_folder_is_refused(says, tmp_path):
    assert says(tmp_path) == f"R030: `{tmp_path}` holds no .safetensors file; give a model in that form"


def test_a_path_that_is_not_there(says, tmp_path):
    said = says(tmp_path / "nowhere")
    assert said == (
        f"R030: `{tmp_path}/nowhere` is not there; give a folder, a URL or a Hugging Face id that exists"
    )


def test_another_architecture_is_refused(says, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "phi3"}))
    assert says(folder) == f"R031: `{folder}` is a `phi3` model, but the plan is for `llama`; compile again"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rms_norm_eps": 1e-3}, "rms_norm_eps is 0.001 there and 1e-06 in the plan"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_theta is 500000.0 there"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu' there and 'silu' in the plan"),
    ],
)
def test_numbers_that_the_tensors_do_not_show_are_compared(says, folder, change, said):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    answer = says(folder)
    assert answer.startswith(f"R032: `{folder}/config.json` is not the planned model: ")
    assert said in answer


def test_experts_that_are_weighed_otherwise_are_refused(world, tmp_path):
    role = families.role(
        families.saved(tmp_path / "planned", "qwen3-moe")
    )  # the compiler refuses the other one
    folder = families.saved(tmp_path / "model", "qwen3-moe", norm_topk_prob=False)
    (said,) = world(1, refusal, role, str(folder))
    assert "norm_topk_prob is False there and True in the plan" in said


@pytest.mark.parametrize("name", ["nemotron", "gpt"])
def test_families_without_a_table_are_refused(says, healthy, name):
    role = families.role(healthy)
    shape = dataclasses.replace(role.model.shape, family=name)
    role = dataclasses.replace(role, model=dataclasses.replace(role.model, shape=shape))
    assert says(healthy, role) == (
        f"R031: models of family `{name}` cannot be read from or written as a Hugging Face folder; "
        "it is done for gemma, llama, mistral, mixtral, qwen2, qwen3"
    )


def test_what_one_rank_cannot_read_every_rank_says(world, tmp_path):
    from specc.plan import Layout

    folder = families.saved(tmp_path / "model", "llama")
    file = sorted(folder.glob("*.safetensors"))[-1]
    file.write_bytes(b"not a header")
    said = world(2, refusal, families.role(folder, Layout(tp=2)), str(folder))
    assert said[0] == said[1]
    assert said[0].startswith(f"R033: `{file}` is damaged")
