"""Generation against transformers' own, and against the forward pass that trains."""

import os

import pytest

from specc.plan import Layout

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
pytestmark = pytest.mark.torch

SMALL = {
    "vocab_size": 270,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": None,
}
NEW = 16


def prompts(count, longest=60, vocab=270):
    import torch

    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(0, vocab, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama, written by transformers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def theirs(folder):
    """What transformers generates greedily, and the gap between the two largest logits of each token."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for prompt in prompts(200):
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=NEW,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        two = torch.cat(out.logits).topk(2).values
        found.append((out.sequences[0, len(prompt) :].tolist(), (two[:, 0] - two[:, 1]).tolist()))
    return found


def role_of(folder, layout):
    import json

    from specc.models import shape_from_config
    from specc.plan import Model, Role, Weights

    shape = shape_from_config(json.loads((folder / "config.json").read_text()))
    return Role(
        name="model",
        program="sft",
        nodes=1,
        gpus=layout.world_size,
        layout=layout,
        micro_batch=1,
        global_batch=8,
        model=Model(name="toy", shape=shape, weights=Weights(kind="hf", path=str(folder)), head="language"),
        precision="fp32",
        distributed_optimizer=False,
    )


def engine_of(folder, layout):
    from runtime import cpu, parallel
    from runtime.engine import Engine
    from runtime.hf import import_weights

    cpu.install()
    role = role_of(folder, layout)
    here = parallel.start(layout, "gloo", "cpu", timeout_seconds=60)
    engine = Engine(role, here)
    import_weights(engine, role, str(folder), here)
    return engine


def greedy(folder, layout):
    from runtime.generate import generate
    from runtime.sampling import Sampling

    return generate(
        engine_of(folder, layout), prompts(200), Sampling(temperature=0.0, max_tokens=NEW), slots=48
    )


LAYOUTS = [
    Layout(),
    Layout(tp=2),
    Layout(tp=2, sequence_parallel=True),
    Layout(pp=2),
    Layout(pp=2, vp=2),
    Layout(pp=2, stage_layers=(1, 3)),
    Layout(dp=2),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_greedy_tokens_are_those_of_transformers(world, folder, theirs, layout):
    answers = world(layout.world_size, greedy, folder, layout, timeout=40)
    assert all(answer == answers[0] for answer in answers)
    different = 0
    for ours, (expected, gaps) in zip(answers[0].tokens, theirs, strict=True):
        assert len(ours) == NEW
        first = next((i for i in range(NEW) if ours[i] != expected[i]), None)
        if first is not None:
            assert gaps[first] < 1e-4
            different += 1
    assert different <= 2
