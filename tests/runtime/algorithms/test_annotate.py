"""Annotation: marks that transformers would give, the same under every layout and after a kill."""

import dataclasses
import json

import pytest
import toy_rows
import toy_runs

from runtime.data import steerlm
from specc.plan import Layout, Model, Weights

pytestmark = pytest.mark.torch

NAMES = ("helpfulness", "verbosity", "humor")
SHAPE = dataclasses.replace(toy_runs.LLAMA, max_positions=1024)


def classifier(folder):
    """A random model of transformers with a head of three numbers, some of them beyond 0 to 4."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(5)
    config = LlamaConfig(
        num_hidden_layers=SHAPE.layers,
        hidden_size=SHAPE.hidden,
        intermediate_size=SHAPE.ffn,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.kv_groups,
        vocab_size=SHAPE.vocab,
        max_position_embeddings=SHAPE.max_positions,
        rms_norm_eps=SHAPE.norm_epsilon,
        pad_token_id=0,
        initializer_range=0.3,
        id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
    )
    model = LlamaForSequenceClassification(config)
    model.save_pretrained(folder)
    return folder


def talks():
    """Conversations of different lengths; some answers are judged already, some not, some never."""
    found = []
    for i in range(9):
        turns = [
            steerlm.turn("User", f"question {i}"),
            steerlm.turn("Assistant", "an answer " * (i % 4), "" if i % 3 else "quality:1"),
        ]
        if i % 2:
            turns += [
                steerlm.turn("User", "more?"),
                steerlm.turn("Assistant", "x" * i, None if i == 5 else ""),
            ]
        found.append(steerlm.record(turns) | {"number": i})
    return found


def plan(folder, layout=None, batch=4, **settings):
    model = Model("judge", SHAPE, Weights("hf", str(folder / "hf")), head="attributes", attributes=NAMES)
    own = {"seq_length": 1024, "truncation": "drop", "add_eos": False, "add_bos": None} | settings
    data = {"rows": {"path": str(folder / "talks.jsonl")}}
    return toy_rows.plan(toy_rows.job("annotate", toy_rows.role("annotate", layout, batch, model), own, data))


def run(world, folder, found, name="1"):
    n = found.jobs[0].roles[0].layout.world_size
    file = toy_runs.written(folder, found)
    assert world(n, toy_rows.attempt, str(file), "annotate", name) == [0] * n
    return toy_rows.rows(folder, "annotate")


@pytest.fixture
def there(tmp_path):
    classifier(tmp_path / "hf")
    toy_rows.written(tmp_path / "talks.jsonl", talks())
    return tmp_path


def of_transformers(folder, row):
    """The row as it should come out: by the definition, on transformers' numbers in fp64."""
    import torch
    from transformers import LlamaForSequenceClassification

    model = LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    turns = []
    text = f"<extra_id_0>System\n{steerlm.SYSTEM}\n"
    for turn in row["conversations"]:
        text += f"<extra_id_1>{turn['from']}\n{turn['value']}\n"
        label = turn["label"]
        if label is not None:
            tokens = list((text + "<extra_id_2>").encode())
            with torch.no_grad():
                hidden = model.model(torch.tensor([tokens])).last_hidden_state[0, -1]
                numbers = model.score(hidden).tolist()
            marks = [round(min(4.0, max(0.0, number))) for number in numbers]
            label = ",".join(f"{name}:{mark}" for name, mark in zip(NAMES, marks, strict=True))
        turns.append({**turn, "label": label})
    return {**row, "conversations": turns}


def test_the_labels_are_those_of_transformers(world, there):
    wanted = [of_transformers(there / "hf", row) for row in talks()]
    labels = {turn["label"] for row in wanted for turn in row["conversations"]}
    assert len(labels) > 3  # a model that says the same of all would prove nothing
    assert run(world, there / "run", plan(there)) == wanted
    said = toy_rows.output(there / "run", "annotate")
    assert (said["rows"], said["read"], said["judged"]) == (9, 9, 12)


@pytest.mark.parametrize(
    ("layout", "batch"), [(Layout(dp=2), 3), (Layout(tp=2), 9), (Layout(pp=2), 2)], ids=str
)
def test_every_layout_and_batch_gives_the_same_rows(world, there, layout, batch):
    plain = run(world, there / "plain", plan(there))
    assert run(world, there / "other", plan(there, layout, batch)) == plain


def test_a_run_that_was_killed_ends_in_the_same_bytes(world, there):
    whole = run(world, there / "whole", plan(there, batch=2))
    file = toy_runs.written(there / "killed", plan(there, batch=2))
    assert world(1, killed_after, str(file), 3) == [True]
    shards = list((there / "killed" / "annotate" / "shards").glob("0*.jsonl"))
    assert len(shards) == 3
    assert run(world, there / "killed", plan(there, batch=2), "2") == whole
    first, second = (there / name / "annotate" / "rows.jsonl" for name in ("whole", "killed"))
    assert first.read_bytes() == second.read_bytes()


def killed_after(plan_file, steps):
    """A process that dies in the middle of a step."""
    from runtime.algorithms import annotate

    step, left = annotate.step, [steps]

    def until(run):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return step(run)

    annotate.step = until
    try:
        return toy_rows.attempt(plan_file, "annotate") != 0
    finally:
        annotate.step = step


def test_a_conversation_that_is_too_long_is_left_out_and_counted_or_cut(world, there):
    rows = run(world, there / "run", plan(there, seq_length=260))
    said = toy_rows.output(there / "run", "annotate")
    assert 0 < said["dropped_too_long"] == 9 - len(rows) < 9
    assert len(run(world, there / "cut", plan(there, seq_length=260, truncation="left"))) == 9


def test_a_model_of_one_number_gives_no_marks(world, there):
    found = plan(there)
    role = dataclasses.replace(
        found.jobs[0].roles[0], model=Model("judge", SHAPE, Weights(), head="scalar", attributes=())
    )
    job = dataclasses.replace(found.jobs[0], roles=(role,))
    file = toy_runs.written(there / "run", dataclasses.replace(found, jobs=(job,)))
    assert world(1, toy_rows.attempt, str(file), "annotate") == [1]
    error = json.loads((there / "run" / "annotate" / "attempts" / "1" / "error-0.json").read_text())
    assert error["code"] == "R016"
    assert "no head of several attributes" in error["message"]
