"""Weights from transformers' folders: the model computes what transformers computes."""

import families
import pytest

from specc.plan import Layout

pytestmark = pytest.mark.torch

LENGTHS = (37, 23, 5, 12)


def rows(vocab=270):
    import torch

    generator = torch.Generator().manual_seed(7)
    return [torch.randint(0, vocab, (n + 1,), generator=generator).tolist() for n in LENGTHS]


def logits(role, folder):
    """Logits of `rows`, one tensor a row, of the model in `folder` under the role's layout."""
    from runtime import cpu, engine, parallel
    from runtime.batch import Sample, dealt
    from runtime.hf import import_weights

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    model = engine.Engine(role, here)
    import_weights(model, role, folder, here)
    samples = [Sample(i, tokens, [1] * len(tokens)) for i, tokens in enumerate(rows())]
    batches = dealt([[s] for s in samples], here.dp_rank, role.layout.dp, 1, multiple=2 * role.layout.tp)
    outputs = model.forward(batches, of="logits")
    return [out[0, : s.columns].clone() for out, s in zip(outputs, samples, strict=True)]


def theirs(folder):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return [model(torch.tensor([tokens[:-1]])).logits[0] for tokens in rows()]


@pytest.mark.parametrize("name", families.CONFIGS)
def test_logits_are_those_of_transformers(world, tmp_path, name):
    folder = families.saved(tmp_path / "model", name)
    (ours,) = world(1, logits, families.role(folder), str(folder))
    for mine, reference in zip(ours, theirs(folder), strict=True):
        assert (mine - reference).abs().max() < 2e-5 * max(1.0, reference.abs().max().item())


@pytest.mark.parametrize(
    "layout",
    [Layout(tp=2), Layout(pp=2), Layout(pp=2, vp=2), Layout(pp=2, stage_layers=(1, 3)), Layout(tp=2, pp=2)],
    ids=str,
)
@pytest.mark.parametrize("name", ["llama-tied", "qwen2", "gemma"])
def test_every_layout_computes_the_same(world, tmp_path, name, layout):
    changes = {"num_key_value_heads": 2} if name == "gemma" else {}
    folder = families.saved(tmp_path / "model", name, **changes)
    ours = world(layout.world_size, logits, families.role(folder, layout), str(folder))[0]
    for mine, reference in zip(ours, theirs(folder), strict=True):
        assert (mine - reference).abs().max() < 2e-5 * max(1.0, reference.abs().max().item())
