"""The tiny twin: what shrinks, what stays."""

import dataclasses
import re

import pytest

from specc import models, shipped, tiny
from specc.compile import compile_spec

SPEC = """\
name: large
cluster: example-h100
algorithm: sft
model: {name: NAME, chat_template: extra_id}
data: {train: DATA, validation: nowhere.jsonl}
train: {steps: 800, global_batch: 128, seq_length: 4096, lr: 1e-5, warmup_steps: 20, constant_steps: 100}
nodes: 32
parallel: {tp: 8, pp: 2}
"""


@pytest.fixture
def twin(tmp_path):
    """The plan of the tiny twin of SPEC."""

    def plan(name="llama3-70b", data="nowhere.jsonl", overrides=()):
        path = tmp_path / "large.yaml"
        path.write_text(SPEC.replace("NAME", name).replace("DATA", data))
        done = compile_spec(path, overrides, tiny=True, here=True)
        assert done.plan, done.diagnostics
        return done.plan

    return plan


def test_the_twin_runs_on_this_machines_cpu_in_one_node(twin):
    (job,) = twin().jobs
    assert (twin().cluster.device, job.nodes) == ("cpu", 1)


def test_the_algorithms_settings_stay(twin):
    (job,) = twin().jobs
    assert job.settings["train"]["lr"] == 1e-5
    assert job.settings["sft"]["answer_only"] is True
    assert job.roles[0].model.chat_template == "extra_id"


def test_steps_batches_and_lengths_shrink(twin):
    (job,) = twin().jobs
    train = job.settings["train"]
    assert (train["steps"], train["warmup_steps"], job.roles[0].global_batch) == (10, 1, 4)
    assert train["seq_length"] == 512


def test_data_that_is_absent_becomes_generated_rows_of_the_same_form(twin):
    (job,) = twin().jobs
    assert job.data["train"]["path"] == job.data["validation"]["path"] == "builtin:arithmetic"
    assert job.data["train"]["format"] == "chat"


def test_data_that_is_here_is_read_as_the_spec_says(twin, tmp_path):
    said = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    (tmp_path / "rows.jsonl").write_text(said * 100)
    rows = twin(data="rows.jsonl").jobs[0].data["train"]
    assert (rows["path"], rows["limit"]) == ("rows.jsonl", tiny.ROWS)


def test_who_wants_more_steps_gets_them_but_no_larger_model(twin):
    (job,) = twin(overrides=["train.steps=200", "model=llama3-8b"]).jobs
    assert job.settings["train"]["steps"] == 200
    assert job.roles[0].model.shape.layers == 2


def test_the_changes_stand_in_the_plan(twin):
    assert "train.steps=10" in twin().overrides


PPO = """\
name: several
cluster: example-h100
stages:
  rm:
    algorithm: reward
    model: llama3-70b
    data: {train: {path: Anthropic/hh-rlhf, format: hh}}
    train: {steps: 100}
    nodes: 4
  ppo:
    algorithm: ppo
    data: {prompts: {path: nowhere.jsonl, prompt: "Q: {question}", limit: 5000}}
    roles:
      actor: {model: llama3-70b, nodes: 8, parallel: {tp: 8}, micro_batch: 2}
      critic: {nodes: 4, train: {global_batch: 256}}
      reward: {model: {from: rm}, standardise: true}
    generate: {max_tokens: 1024, engine: trtllm, family: llama, rows: 64, expected_tokens: 300, top_p: 0.9}
    ppo: {rollouts: 512, epochs: 3}
    train: {steps: 100, global_batch: 128}
"""


@pytest.fixture
def several(tmp_path):
    """The tiny twin of PPO, as a plan's job."""
    path = tmp_path / "several.yaml"
    path.write_text(PPO)
    done = compile_spec(path, tiny=True, here=True)
    assert done.plan, done.diagnostics
    return done.plan.jobs[1]


def test_groups_of_roles_stay_apart_on_one_machine(several):
    groups = {group.name: [role.name for role in group.roles] for group in several.groups}
    assert groups == {"actor": ["actor", "reference"], "critic": ["critic", "reward"]}
    assert several.nodes == 1
    assert {role.nodes for role in several.roles} == {1}


def test_a_model_still_comes_from_the_stage_before(several):
    weights = {role.name: role.model.weights for role in several.roles}
    assert weights["reward"].stage == weights["critic"].stage == "rm"
    assert several.depends_on == ("rm",)


def test_rollouts_shrink_and_are_still_learnt_in_several_steps(several):
    assert (several.settings["ppo"]["rollouts"], several.settings["ppo"]["epochs"]) == (8, 3)
    assert {role.global_batch for role in several.roles if role.trains} == {4}
    assert several.settings["train"]["steps"] == tiny.ONLINE_STEPS


def test_responses_are_short_and_made_by_the_training_weights(several):
    generate = several.settings["generate"]
    assert (generate["max_tokens"], generate["engine"], generate["rows"]) == (tiny.RESPONSE, "megatron", None)
    assert generate["top_p"] == 0.9


def test_absent_rows_keep_their_form_and_their_template(several, tmp_path):
    said = {"path": "builtin:arithmetic", "prompt": "Q: {question}", "limit": tiny.ROWS, "format": "auto"}
    assert several.data["prompts"].items() >= said.items()
    judged = compile_spec(tmp_path / "several.yaml", tiny=True, here=True).plan.jobs[0].data["train"]
    assert (judged["path"], judged["format"]) == ("builtin:arithmetic", "hh")


@pytest.mark.parametrize("name", ["llama3-70b", "gemma-7b", "qwen2.5-7b", "qwen3-8b", "mixtral-8x7b"])
def test_a_model_keeps_what_is_peculiar_to_its_family(name):
    entry, _ = models.find(name)
    small = tiny.shrunk(entry.shape)
    kept = ("family", "norm", "activation", "tied", "qkv_bias", "qk_norm", "position", "rope_base")
    assert all(getattr(small, field) == getattr(entry.shape, field) for field in kept)
    assert small.layers == 2
    assert bool(small.experts) == bool(entry.shape.experts)
    assert (small.kv_groups < small.heads) == (entry.shape.kv_groups < entry.shape.heads)


@pytest.mark.parametrize("name", list(models.catalog()))
def test_every_model_of_the_catalog_has_a_sound_twin(name):
    entry, _ = models.find(name)
    small = tiny.shrunk(entry.shape)
    written = {key: value for key, value in dataclasses.asdict(small).items() if value != {}}
    assert models.shape_from_numbers(written) == small


@pytest.mark.parametrize("spec", sorted(shipped.specs().glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_spec_has_a_twin_with_the_same_stages(spec):
    large, small = compile_spec(spec), compile_spec(spec, tiny=True, here=True)
    assert small.plan, small.diagnostics
    names = {job.name for job in small.plan.jobs}
    kept = [job for job in large.plan.jobs if job.name in names]  # a twin has two rounds or iterations
    assert len(kept) == len(large.plan.jobs) or re.search(r"-2(-\w+)?$", kept[-1].name)
    assert [job.name for job in small.plan.jobs] == [job.name for job in kept]
    assert [job.depends_on for job in small.plan.jobs] == [job.depends_on for job in kept]


def test_a_tokenizer_that_is_absent_is_trained_with_the_marks_of_its_family(twin):
    names = {
        "llama3-70b": "llama3",
        "llama2-7b": "llama2",
        "qwen3-8b": "qwen",
        "gemma-7b": "gemma",
        "mixtral-8x7b": "mistral",
        "nemotron4-340b": "nemotron",
    }
    for name, family in names.items():
        (role,) = twin(name=name).jobs[0].roles
        assert role.model.tokenizer == f"builtin:words/{family}"
        assert role.model.shape.vocab == 512
    assert twin(name="tiny-llama").jobs[0].roles[0].model.tokenizer == "builtin:bytes"


def test_it_is_trained_on_the_rows_that_are_here(twin, tmp_path):
    said = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    (tmp_path / "rows.jsonl").write_text(said * 100)
    (role,) = twin(data="rows.jsonl").jobs[0].roles
    assert role.model.tokenizer == f"builtin:words/llama3{tmp_path / 'rows.jsonl'}"


def test_a_tokenizer_that_is_here_stays_with_its_whole_vocabulary(twin, tmp_path):
    (tmp_path / "words.json").write_text("{}")
    model = f"{{name: llama3-70b, tokenizer: {tmp_path / 'words.json'}}}"
    (role,) = twin(overrides=[f"model={model}"]).jobs[0].roles
    assert role.model.tokenizer == str(tmp_path / "words.json")
    assert role.model.shape.vocab == 128256


def test_what_stands_in_for_something_is_said(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text(SPEC.replace("NAME", "llama3-70b").replace("DATA", "nowhere.jsonl"))
    said = [
        (d.code, d.severity, d.path, d.message) for d in compile_spec(path, tiny=True, here=True).diagnostics
    ]
    rows = "data.train `nowhere.jsonl` is not on this machine: the twin reads generated rows"
    assert ("G010", "warning", "", rows) in said
    assert any("a small one with the special tokens of llama3 is trained" in message for *_, message in said)
