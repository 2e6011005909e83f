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


def elements_read(role, folder):
    """How many elements this rank takes from the files, and how many its parameters have."""
    from runtime import cpu, model, parallel
    from runtime.hf import import_weights
    from runtime.hf.source import Source

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    chunks = model.build(role, here)
    read = []
    rows = Source.rows

    def counted(*args, **kwargs):
        part = rows(*args, **kwargs)
        read.append(part.numel())
        return part

    Source.rows = counted
    import_weights(chunks, role, folder, here)
    return sum(read), max(read), sum(p.numel() for chunk in chunks for p in chunk.parameters())


@pytest.mark.parametrize("layout", [Layout(tp=2), Layout(pp=2), Layout(tp=2, pp=2)], ids=str)
def test_a_rank_reads_only_what_it_holds(world, tmp_path, layout):
    folder = families.saved(tmp_path / "model", "llama", vocab_size=256)
    for read, largest, held in world(
        layout.world_size, elements_read, families.role(folder, layout), str(folder)
    ):
        assert read == held
        assert largest <= 256 * 64


def trained_at_rate_0(role, folder, target):
    """Import, one optimizer step with learning rate 0, export."""
    from functools import partial

    from runtime import cpu, engine, parallel
    from runtime.algorithms.sft import loss
    from runtime.batch import Sample, dealt
    from runtime.hf import export_weights, import_weights

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    model = engine.Engine(role, here, engine.OptimizerSettings())
    import_weights(model, role, folder, here)
    bins = [[Sample(i, tokens, [1] * len(tokens))] for i, tokens in enumerate(rows())]
    batches = dealt(bins, here.dp_rank, role.layout.dp, 1, multiple=2 * role.layout.tp)
    model.forward_backward(batches, partial(loss, denominator=73))
    assert model.optim_step(0.0)["grad_norm"] > 0
    export_weights(model, role, target, here, role.precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["qwen2-tied", "gemma", "qwen3-moe"])
def test_a_step_at_rate_0_leaves_every_bit(world, tmp_path, name, precision):
    dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
    folder = families.saved(tmp_path / "model", name, dtype=dtype)
    role = families.role(folder, Layout(dp=2), precision=precision, distributed_optimizer=True)
    world(2, trained_at_rate_0, role, str(folder), str(tmp_path / "hf"))
    before, after = families.tensors(folder), families.tensors(tmp_path / "hf")
    assert sorted(before) == sorted(after)
    assert all(after[tensor].equal(before[tensor]) for tensor in before)
