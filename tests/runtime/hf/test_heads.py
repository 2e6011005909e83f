"""Heads of numbers in Hugging Face's form: what transformers computes with them, in and out."""

import dataclasses
import json

import families
import pytest

from runtime.problem import Problem
from specc.plan import Layout

pytestmark = pytest.mark.torch

LENGTHS = (37, 23, 5, 12)
NAMES = ("helpfulness", "verbosity", "humor")


def texts(vocab=270):
    import torch

    generator = torch.Generator().manual_seed(11)
    return [torch.randint(0, vocab, (n,), generator=generator).tolist() for n in LENGTHS]


def classifier(folder, name="llama", **changes):
    """A random model of transformers with a head of three numbers."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model_type, own = families.CONFIGS[name]
    torch.manual_seed(5)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}
    small = families.SMALL | own | {"pad_token_id": 0} | labels | changes
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(model_type, **small))
    model.save_pretrained(folder)
    return folder


def theirs(folder):
    """What transformers says of `texts` with the model in a folder."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.cat([model(torch.tensor([tokens])).logits for tokens in texts()])


def role(folder, layout=None, attributes=NAMES, **changes):
    """A role with a head of these attributes, whose weights are in the folder."""
    found = families.role(folder, layout, **changes)
    head = "attributes" if attributes else "scalar"
    return dataclasses.replace(
        found, model=dataclasses.replace(found.model, head=head, attributes=attributes)
    )


def engine_of(role, source, with_head=True):
    from runtime import cpu, engine, parallel
    from runtime.hf import import_weights

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    model = engine.Engine(role, here)
    import_weights(model, role, source, here, with_head=with_head)
    return model, here


def scores(role, source, target=None, with_head=True):
    """What the engine says of `texts`; where a target is given, the model is exported there, too."""
    import torch

    from runtime.algorithms.reward import predictions
    from runtime.batch import Sample, dealt
    from runtime.hf import export_weights

    model, here = engine_of(role, source, with_head)
    samples = [Sample(i, [*t, t[-1]], [0] * len(t) + [1]) for i, t in enumerate(texts())]
    batches = dealt([[s] for s in samples], here.dp_rank, role.layout.dp, 1, multiple=2 * role.layout.tp)
    found = [predictions(v, b) for v, b in zip(model.forward(batches, of="values"), batches, strict=True)]
    if target:
        export_weights(model, role, target, here, "float32")
    return torch.cat(found)


@pytest.mark.parametrize("name", families.CONFIGS)
def test_scores_are_those_of_transformers_in_and_out(world, tmp_path, name):
    folder = classifier(tmp_path / "model", name)
    (ours,) = world(1, scores, role(folder), str(folder), str(tmp_path / "hf"))
    expected = theirs(folder)
    assert (ours - expected).abs().max() < 1e-4 * max(1.0, expected.abs().max().item())
    assert theirs(tmp_path / "hf").equal(expected)
    before, after = families.tensors(folder), families.tensors(tmp_path / "hf")
    assert sorted(before) == sorted(after)
    assert all(before[n].equal(after[n]) for n in before)


@pytest.mark.parametrize("layout", [Layout(tp=2), Layout(pp=2), Layout(tp=2, pp=2)], ids=str)
def test_every_layout_gives_the_same_scores_and_folder(world, tmp_path, layout):
    folder = classifier(tmp_path / "model", "llama-tied")
    ours = world(layout.world_size, scores, role(folder, layout), str(folder), str(tmp_path / "hf"))
    expected = theirs(folder)
    for rank in ours:
        assert (rank - expected).abs().max() < 1e-4 * max(1.0, expected.abs().max().item())
    assert theirs(tmp_path / "hf").equal(expected)


def test_the_folder_says_what_each_number_means(world, tmp_path):
    folder = classifier(tmp_path / "model")
    world(1, scores, role(folder), str(folder), str(tmp_path / "hf"))
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["id2label"] == {"0": "helpfulness", "1": "verbosity", "2": "humor"}
    assert not (tmp_path / "hf" / "generation_config.json").exists()


def test_a_language_model_gets_a_head_of_its_own(world, tmp_path):
    folder = families.saved(tmp_path / "model", "llama")
    (ours,) = world(1, scores, role(folder, attributes=()), str(folder), str(tmp_path / "hf"))
    expected = theirs(tmp_path / "hf")
    assert expected.shape == (len(LENGTHS), 1)
    assert (ours - expected).abs().max() < 1e-4
    assert ours.std() > 0


def test_a_head_that_is_not_asked_for_begins_anew(world, tmp_path):
    folder = classifier(tmp_path / "model")
    (ours,) = world(1, scores, role(folder, attributes=("one",)), str(folder), None, False)
    assert ours.shape == (len(LENGTHS), 1)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (("helpfulness", "humor"), "`score.weight` in `{}` is [3, 64], but the plan's model wants [2, 64]"),
        (("helpfulness", "humor", "verbosity"), "its head has the attributes helpfulness, verbosity, humor"),
    ],
)
def test_a_head_of_other_attributes_is_refused(world, tmp_path, attributes, said):
    folder = classifier(tmp_path / "model")
    (message,) = world(1, refusal, role(folder, attributes=attributes), str(folder))
    assert said.format(folder) in message


def refusal(role, source):
    try:
        engine_of(role, source)
    except Problem as problem:
        return f"{problem.code} {problem.message}"
    return ""
