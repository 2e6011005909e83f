"""What a folder is that somebody wants served, and the plan that serves it, or why there is none."""

import dataclasses
import json

import pytest

from specc import models, serving
from specc.cli import serving as serving_command
from specc.machine import Gpu
from specc.plan import from_json, to_json
from specc.serving import Refused, Wishes

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 259,
    "max_position_embeddings": 512,
}
H200 = Gpu("NVIDIA H200", 140.0)


def hugging_face(folder, **changes):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(LLAMA | changes))
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def manifest(**changes):
    shape = dataclasses.asdict(models.find("tiny-llama")[0].shape)
    model = {
        "name": "tiny",
        "head": "language",
        "attributes": [],
        "tokenizer": "builtin:bytes",
        "shape": shape,
    }
    return json.dumps({"format": 1, "step": 3, "model": model | changes, "precision": "bf16"})


def stage(folder, steps=("step-3",), template="extra_id", **changes):
    """A stage of a run with these steps, each whole."""
    for step in steps:
        (folder / "checkpoint" / step).mkdir(parents=True)
        (folder / "checkpoint" / step / "MANIFEST.json").write_text(manifest(**changes))
    role = {"name": "model", "model": {"chat_template": template}}
    (folder.parent / "plan.json").write_text(json.dumps({"jobs": [{"stage": folder.name, "roles": [role]}]}))
    return folder


def planned(folder, cards=(), **wishes):
    plan = serving.plan_of(str(folder), Wishes(**wishes), cards)
    assert from_json(to_json(plan)) == plan
    [job] = plan.jobs
    return plan, job.roles[0], job.settings["answer"]


def test_a_hugging_face_folder_is_served_from_the_cpu_where_there_is_no_gpu(tmp_path):
    plan, role, own = planned(hugging_face(tmp_path / "tiny"))
    assert (plan.cluster.device, role.precision, role.layout.world_size) == ("cpu", "fp32", 1)
    assert (role.model.weights.kind, role.model.weights.path) == ("hf", str(tmp_path / "tiny"))
    assert (own["host"], own["port"], own["name"], own["length"]) == ("127.0.0.1", 1427, "tiny", 512)
    assert role.rows == 64
    assert not role.trains


def test_a_stage_is_served_by_its_steps_and_a_step_by_itself(tmp_path):
    folder = stage(tmp_path / "run" / "sft", ("step-3", "step-20"))
    _, role, own = planned(folder)
    assert (role.model.weights.kind, role.model.weights.path) == ("checkpoint", str(folder / "checkpoint"))
    assert (own["name"], role.model.chat_template) == ("run/sft", "extra_id")
    _, role, own = planned(folder / "checkpoint" / "step-3")
    assert role.model.weights.path == str(folder / "checkpoint" / "step-3")
    assert own["name"] == "run/sft/step-3"
    assert planned(folder / "checkpoint")[1].model.weights.path == str(folder / "checkpoint")


def test_a_stage_of_several_roles_is_served_by_its_actor(tmp_path):
    actor = stage(tmp_path / "run" / "ppo" / "actor")
    assert planned(tmp_path / "run" / "ppo")[1].model.weights.path == str(actor / "checkpoint")


def test_what_the_stage_ended_with_says_the_template_of_its_export(tmp_path):
    folder = hugging_face(tmp_path / "run" / "sft" / "hf")
    (tmp_path / "run" / "sft" / "output.json").write_text(json.dumps({"chat_template": "extra_id"}))
    _, role, own = planned(folder)
    assert (role.model.chat_template, own["name"]) == ("extra_id", "run/sft")


def test_wishes_win(tmp_path):
    folder = hugging_face(tmp_path / "tiny")
    wishes = {"name": "n", "tokenizer": "builtin:bytes", "chat_template": "extra_id", "port": 0, "rows": 3}
    _, role, own = planned(folder, tp=2, pp=2, gpus=8, length=100, **wishes)
    assert (role.layout.tp, role.layout.pp, role.layout.dp, role.rows) == (2, 2, 2, 3)
    assert (own["name"], own["port"], own["length"]) == ("n", 0, 100)
    assert (role.model.tokenizer, role.model.chat_template) == ("builtin:bytes", "extra_id")
    assert planned(folder, pp=3)[1].layout.stage_layers in ((1, 1, 2), (1, 2, 1), (2, 1, 1))


def test_a_large_model_takes_as_few_gpus_as_hold_it_and_cuts_the_length_before_the_rows(tmp_path):
    large = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "vocab_size": 128256}
    large |= {"num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 131072}
    folder = hugging_face(tmp_path / "large", **large)
    plan, role, own = planned(folder, [H200] * 8)
    assert (plan.cluster.device, role.precision) == ("cuda", "bf16")
    assert role.layout.tp == 2  # 141 GB of weights: one GPU is too small
    assert role.rows >= 8
    assert 4096 <= own["length"] < 131072
    with pytest.raises(Refused, match="GiB") as refused:
        planned(folder, [H200])
    assert refused.value.code == "P031"


REFUSED = {
    "nothing there": ("R005", "there is no checkpoint", lambda p: p / "nowhere"),
    "a half-written step": ("R021", "MANIFEST.json", lambda p: half(p)),
    "a run": ("R031", "say which of its stages", lambda p: stage(p / "run" / "sft").parent),
    "a stage without a step": ("R021", "no checkpoint yet", lambda p: empty(p)),
    "a torn manifest": ("R021", "is not JSON", lambda p: torn(p)),
    "another version's manifest": ("R021", "manifest", lambda p: stage(p / "r" / "s", shape={"x": 1})),
    "a reward model": ("R060", "reward model", lambda p: stage(p / "r" / "rm", head="scalar")),
    "a classifier": ("R060", "Classification", lambda p: classifier(p)),
    "no tokenizer": ("R034", "no tokenizer", lambda p: without(p, "tokenizer.json")),
    "no weights": ("R030", "safetensors", lambda p: without(p, "model.safetensors")),
    "pickled weights": ("R031", "pickled", lambda p: holding(p, "pytorch_model.bin")),
    "a .nemo archive": ("R031", ".nemo", lambda p: file(p, "model.nemo")),
    "an unpacked .nemo": ("R031", ".nemo", lambda p: file(p, "model_weights").parent),
    "Megatron-LM's": ("R031", "Megatron-LM", lambda p: file(p, "latest_checkpointed_iteration.txt").parent),
    "an adapter": ("R031", "LoRA", lambda p: file(p, "adapter_config.json").parent),
    "a text": ("R031", "is a file", lambda p: file(p, "notes.txt")),
    "an empty folder": ("R031", "no checkpoint that is known", lambda p: file(p, "notes.txt").parent),
    "another family": ("P003", "", lambda p: hugging_face(p / "x", model_type="bert", architectures=[])),
    "a torn config": ("R032", "not JSON", lambda p: file(p, "config.json", "{")),
}


def half(path):
    folder = stage(path / "run" / "sft") / "checkpoint" / "step-4"
    folder.mkdir()
    return folder


def empty(path):
    (path / "run" / "sft" / "attempts").mkdir(parents=True)
    return path / "run" / "sft"


def torn(path):
    folder = stage(path / "run" / "sft")
    (folder / "checkpoint" / "step-3" / "MANIFEST.json").write_text('{"model": {')
    return folder


def classifier(path):
    return hugging_face(path / "rm", architectures=["LlamaForSequenceClassification"])


def without(path, name):
    folder = hugging_face(path / "x")
    (folder / name).unlink()
    return folder


def holding(path, name):
    folder = without(path, "model.safetensors")
    (folder / name).write_bytes(b"x")
    return folder


def file(path, name, text="x"):
    folder = path / "folder"
    folder.mkdir()
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(("code", "word", "made"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_served_is_refused_with_a_code(tmp_path, code, word, made):
    from specc.codes import CODES

    checkpoint = made(tmp_path)
    with pytest.raises(Refused) as refused:
        planned(checkpoint)
    assert refused.value.code == code
    assert code in CODES
    assert word in refused.value.message


def test_experts_are_dealt_over_the_tensor_parallel_ranks(tmp_path):
    experts = models.find("tiny-mixtral")[0].shape
    role = planned(stage(tmp_path / "run" / "sft", shape=dataclasses.asdict(experts)), tp=2)[1]
    assert (role.layout.ep, role.layout.etp, role.layout.sequence_parallel) == (2, 1, True)
    assert not planned(tmp_path / "run" / "sft")[1].layout.sequence_parallel


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x", "x" * 5000])
def test_a_path_that_cannot_be_is_refused(name):
    with pytest.raises(Refused) as refused:
        serving.plan_of(name, Wishes())
    assert (refused.value.code, refused.value.outside) == ("R005", True)


def test_a_tokenizer_whose_name_cannot_be_is_refused(tmp_path):
    with pytest.raises(Refused) as refused:
        planned(hugging_face(tmp_path / "tiny"), tokenizer="x" * 5000)
    assert refused.value.code == "R034"


@pytest.mark.parametrize("jobs", [3, [3], [{"stage": "sft", "roles": 3}], [{"stage": "sft", "roles": [{}]}]])
def test_a_plan_beside_a_stage_that_is_none_says_no_template(tmp_path, jobs):
    folder = stage(tmp_path / "run" / "sft")
    (tmp_path / "run" / "plan.json").write_text(json.dumps({"jobs": jobs}))
    assert planned(folder)[1].model.chat_template == ""


LAYOUTS = [({"tp": 3}, "P012"), ({"tp": 4}, "P012"), ({"pp": 5}, "P016"), ({"tp": 2, "gpus": 3}, "P011")]


@pytest.mark.parametrize(("wishes", "code"), LAYOUTS)
def test_a_layout_that_does_not_cut_the_model_is_refused(tmp_path, wishes, code):
    with pytest.raises(Refused) as refused:
        planned(hugging_face(tmp_path / "tiny"), **wishes)
    assert refused.value.code == code


def test_a_feed_forward_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(Refused, match="width 97") as refused:
        planned(hugging_face(tmp_path / "tiny", intermediate_size=97), tp=2)
    assert refused.value.code == "P014"


def test_more_gpus_than_there_are_are_refused(tmp_path):
    with pytest.raises(Refused, match="has 1"):
        planned(hugging_face(tmp_path / "tiny"), [H200], gpus=2)


SMALL, STRANGE = Gpu("NVIDIA A100-SXM4-40GB", 39.5), Gpu("Banana 9", 8.0)


@pytest.mark.parametrize(
    ("cards", "places", "gpu"),
    [
        ([SMALL, H200, H200], "1,2", "h200"),
        ([H200, SMALL, SMALL, STRANGE], "0", "h200"),
        ([STRANGE, SMALL, SMALL], "1,2", "a100-40gb"),
        ([H200, H200], None, "h200"),
    ],
)
def test_where_gpus_differ_those_of_one_kind_are_used_and_no_process_sees_another(
    tmp_path, monkeypatch, cards, places, gpu
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    plan, _, _ = planned(hugging_face(tmp_path / "tiny"), cards)
    assert plan.cluster.gpu == gpu
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": places}
    assert plan.jobs[0].env == (order if places else {})
    said = serving_command.left_out(plan, cards)
    assert len(said) == bool(places)
    assert all("left out: " in line for line in said)


def test_no_more_of_a_kind_are_given_than_there_are(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(Refused, match=r"this machine has 2$"):
        planned(hugging_face(tmp_path / "tiny"), [SMALL, H200, H200], gpus=3)


def test_gpus_that_somebody_chose_from_several_kinds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(Refused, match="different kinds, NVIDIA H200 and NVIDIA A100") as refused:
        planned(hugging_face(tmp_path / "tiny"), [H200, SMALL])
    assert (refused.value.code, refused.value.outside) == ("R004", True)


def test_a_gpu_that_nobody_knows_is_said(tmp_path):
    plan, _, _ = planned(hugging_face(tmp_path / "tiny"), [STRANGE])
    assert plan.cluster.device == "cpu"
    assert "Banana 9" in serving_command.left_out(plan, [STRANGE])[0]
