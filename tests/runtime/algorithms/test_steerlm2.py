"""SteerLM 2.0: its formulas in float64, its rows, and its gradient under several layouts."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch


# ── the formulas ─────────────────────────────────────────────────────────────────────────────────


def softmax(numbers: list[float]) -> list[float]:
    powers = [math.exp(number) for number in numbers]
    return [power / sum(powers) for power in powers]


def by_the_paper(records: list[dict[str, Any]]) -> tuple[float, float]:
    """Loss and distance of records that give of each response its three numbers, its log-probability under
    the model, and its length, in plain Python."""
    losses, distances = [], []
    for each in records:
        w = softmax([a + p - q for a, p, q in zip(each["a"], each["p"], each["q"], strict=True)])
        b = softmax([logq - q for logq, q in zip(each["log"], each["q"], strict=True)])
        mean = sum(each["tokens"]) / len(each["tokens"])
        losses.append(sum((wi - bi) * -logq for wi, bi, logq in zip(w, b, each["log"], strict=True)) / mean)
        pairs = [(wi + 1e-8, bi + 1e-8) for wi, bi in zip(w, b, strict=True)]
        distances.append(sum(wi * math.log(wi / bi) for wi, bi in pairs))
    return sum(losses) / len(losses), sum(distances) / len(distances)


def records(count: int, responses: int) -> list[dict[str, Any]]:
    draw = random.Random(count)
    return [
        {name: [draw.uniform(-6, 0) for _ in range(responses)] for name in "apq"}
        | {
            "log": [draw.uniform(-9, -1) for _ in range(responses)],
            "tokens": [draw.randint(1, 9) for _ in range(responses)],
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize(("count", "responses"), [(1, 2), (3, 4)])
def test_shares_weights_and_distance_are_those_of_the_paper(count, responses):
    import torch

    from runtime.algorithms import steerlm2

    given = records(count, responses)
    columns = {name: torch.tensor([each[name] for each in given], dtype=torch.float64) for name in given[0]}
    optimum = torch.softmax(columns["a"] + columns["p"] - columns["q"], -1)
    shares = steerlm2.model_shares(columns["log"], columns["q"])
    weights = steerlm2.token_weights(optimum, shares, columns["tokens"])
    loss, distance = by_the_paper(given)
    assert float((weights * -columns["log"]).sum()) == pytest.approx(loss, rel=1e-12)
    assert float(steerlm2.distance(optimum, shares).mean()) == pytest.approx(distance, rel=1e-12)


def test_the_gradient_is_that_of_the_divergence_from_the_optimum():
    """Without the length: d KL(w || b) / d log q = b - w, which is what the weights multiply."""
    import torch

    from runtime.algorithms import steerlm2

    draw = torch.Generator().manual_seed(0)
    log = torch.randn(2, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    own = torch.randn(2, 3, generator=draw, dtype=torch.float64)
    optimum = torch.softmax(torch.randn(2, 3, generator=draw, dtype=torch.float64), -1)
    shares = steerlm2.model_shares(log, own)
    (optimum * (optimum / shares).log()).sum().backward()
    weights = steerlm2.token_weights(optimum, shares.detach(), torch.ones(2, 3, dtype=torch.float64))
    assert log.grad is not None
    assert torch.allclose(log.grad, -weights * 2, atol=1e-12)  # two prompts, whose mean the loss is


def test_a_model_at_its_optimum_learns_nothing():
    import torch

    from runtime.algorithms import steerlm2

    own = torch.tensor([[-1.0, -5.0, -900.0]], dtype=torch.float64)
    log = torch.tensor([[-3.0, -2.0, -901.0]], dtype=torch.float64)
    shares = steerlm2.model_shares(log, own)
    assert steerlm2.token_weights(shares, shares, torch.ones(1, 3)).abs().max() == 0
    assert float(steerlm2.distance(shares, shares)) == 0


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────


def said(text: str, **numbers: float) -> dict[str, Any]:
    given = {"log(P(a|x,y))": -1.0, "log(P(y|x))": -2.0, "log(Q(y|a,x))": -3.0} | numbers
    return {"from": "Assistant", "value": text} | given


ROW: dict[str, Any] = {
    "system": "S.",
    "prompt_turns": [
        {"from": "User", "value": "a"},
        {"from": "Assistant", "value": "b"},
        {"from": "User", "value": "c"},
    ],
    "label": "quality:4",
    "responses": [said("d"), said("ee", **{"log(P(a|x,y))": -2.0, "log(Q(y|a,x))": -5.0})],
}


def read(row: dict[str, Any], seq_length: int = 512, responses: int = 2) -> Any:
    from runtime import tokenizer
    from runtime.data.responses import Responses, ResponsesForm

    class Listed(list):
        def where(self, index):
            return f"f:{index + 1}"

    form = ResponsesForm(responses, seq_length)
    return Responses(Listed([row]), tokenizer.load("builtin:bytes"), "extra_id", form).read(0)  # type: ignore[arg-type]


def test_the_response_and_its_end_are_learnt_and_earlier_answers_are_not():
    first, _ = read(ROW)
    learnt = [token for token, bit in zip(first.tokens, first.mask, strict=True) if bit]
    assert bytes(learnt) == b"d\n<extra_id_1>"
    text = bytes(first.tokens).decode()
    assert text == (
        "<extra_id_0>System\nS.\n<extra_id_1>User\na\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nc\n"
        "<extra_id_1>Assistant\n<extra_id_2>quality:4\nd\n<extra_id_1>"
    )


def test_without_a_label_there_is_no_line_for_it():
    first, _ = read(ROW | {"label": None})
    assert b"<extra_id_2>" not in bytes(first.tokens)


def test_each_response_has_its_share_of_the_optimum_and_what_its_maker_thought_of_it():
    w = softmax([-1.0 - 2.0 + 3.0, -2.0 - 2.0 + 5.0])
    assert [sample.labels[0] for sample in read(ROW)] == pytest.approx(w)
    own = [sample.labels[1] for sample in read(ROW)]
    assert own[0] - own[1] == pytest.approx(-3.0 + 5.0)
    assert sum(own) == pytest.approx(0.0)  # about the row's mean: fp32 keeps the digits that count


def test_shares_of_very_unlike_responses_are_numbers():
    responses = [said("d", **{"log(P(y|x))": -9000.0}), said("e", **{"log(P(y|x))": -2.0})]
    assert [s.labels[0] for s in read(ROW | {"responses": responses})] == [0.0, 1.0]


def test_a_row_with_a_response_that_is_too_long_is_left_out():
    responses = [said("d"), said("e" * 900)]
    assert [bool(sample.dropped) for sample in read(ROW | {"responses": responses})] == [False, True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"responses": [said("d")]}, "1 responses, where every row has 2"),
        ({"responses": "d"}, "expected a list of objects `responses`"),
        ({"prompt_turns": []}, "expected a list of objects `prompt_turns`"),
        ({"prompt_turns": ROW["prompt_turns"][:2]}, "2 turns, the last from `Assistant`"),
        ({"responses": [said("d"), said("e") | {"from": "Bot"}]}, "responses are from `Assistant`, `Bot`"),
        ({"responses": [said("d") | {"from": "User"}] * 2}, "responses are from `User`"),
        ({"responses": [said("d"), {"from": "Assistant", "value": "e"}]}, "response 2: no `log(P(a|x,y))`"),
        ({"responses": [said("d", **{"log(P(y|x))": float("nan")})] * 2}, "`log(P(y|x))` is `nan`"),
        ({"responses": [said("d"), said(3)]}, "`value` is int"),  # type: ignore[arg-type]
        ({"label": 3}, "`label` is int"),
    ],
)
def test_a_bad_row_is_refused_by_its_place(change, words):
    from runtime.problem import Problem

    with pytest.raises(Problem, match="R010: f:1") as caught:
        read(ROW | change)
    assert words in caught.value.message


# ── runs of a tiny model ─────────────────────────────────────────────────────────────────────────


def rows_in(folder: Path, count: int = 8, responses: int = 3) -> Path:
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        texts = ["".join(draw.choice("abcd") for _ in range(draw.randint(1, 9))) for _ in range(responses)]
        made = [
            said(
                text,
                **{key: draw.uniform(-9, 0) for key in ("log(P(a|x,y))", "log(P(y|x))", "log(Q(y|a,x))")},
            )
            for text in texts
        ]
        rows.append(ROW | {"responses": made})
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def plan_of(folder: Path, layout: Any = None, weights: Any = None, **changes: Any) -> Any:
    import toy_runs

    from specc.plan import Layout, Model, Weights

    role: dict[str, Any] = {"micro_batch": 1, "global_batch": 12} | changes
    model = Model("tiny", toy_runs.LLAMA, weights or Weights(), chat_template="extra_id")
    train = {"steps": 3, "seq_length": 256, "validate_every": 3, "shuffle": False}
    job = {
        "settings": {
            "train": toy_runs.TRAIN | train,
            "steerlm2": {"responses": 3, "truncation": "drop"},
        },
        "data": {use: {"path": str(folder / "rows.jsonl")} for use in ("train", "validation")},
    }
    return toy_runs.plan(layout or Layout(), job=job, program="steerlm2", model=model, **role)


def lines_of(world: Any, folder: Path, plan: Any, n: int = 1) -> list[dict[str, Any]]:
    """All lines of the metrics."""
    import toy_runs

    file = toy_runs.written(folder, plan)
    assert world(n, toy_runs.attempt, str(file)) == [0] * n
    text = (folder / "sft" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def of_transformers(folder: Path, rows: Path) -> list[dict[str, Any]]:
    """The first four records as `by_the_paper` wants them, with transformers' log-probabilities in fp64."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    found = []
    for line in rows.read_text().splitlines()[:4]:
        row = json.loads(line)
        each: dict[str, Any] = {"log": [], "tokens": []}
        for sample in read(row, responses=3):
            tokens = torch.tensor([sample.tokens])
            with torch.no_grad():
                logprobs = model(tokens).logits[0, :-1].log_softmax(-1)
            own = logprobs.gather(1, tokens[0, 1:, None]).squeeze(1)
            mask = torch.tensor(sample.mask[1:], dtype=torch.float64)
            each["log"].append(float((own * mask).sum()))
            each["tokens"].append(float(mask.sum()))
        for name, key in (("a", "log(P(a|x,y))"), ("p", "log(P(y|x))"), ("q", "log(Q(y|a,x))")):
            each[name] = [response[key] for response in row["responses"]]
        found.append(each)
    return found


def test_the_first_step_is_that_of_the_paper_on_transformers_numbers(world, tmp_path):
    """Four records of three responses in one step, in microbatches of five."""
    from test_sft import saved_llama

    from specc.plan import Weights

    saved_llama(tmp_path / "hf")
    weights = Weights("hf", str(tmp_path / "hf"))
    rows = rows_in(tmp_path)
    first = lines_of(world, tmp_path / "run", plan_of(tmp_path, weights=weights, micro_batch=5))[0]
    loss, distance = by_the_paper(of_transformers(tmp_path / "hf", rows))
    assert first["loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)
    assert first["distance"] == pytest.approx(distance, rel=1e-4)


def test_the_run_is_the_same_whatever_the_layout_and_the_microbatch(world, tmp_path):
    from specc.plan import Layout

    rows_in(tmp_path)
    runs = [
        lines_of(world, tmp_path / str(i), plan_of(tmp_path, layout, micro_batch=micro), layout.world_size)
        for i, (layout, micro) in enumerate(
            ((Layout(), 1), (Layout(), 4), (Layout(dp=2), 1), (Layout(dp=2), 2), (Layout(pp=2), 2))
        )
    ]
    for line, *others in zip(*runs, strict=True):
        for other in others:
            for key in ("loss", "distance", "grad_norm", "validation_loss", "validation_distance"):
                assert other.get(key, 0.0) == pytest.approx(line.get(key, 0.0), rel=2e-3, abs=1e-6), key
    assert "validation_distance" in runs[0][-1]


def test_the_model_comes_nearer_to_the_optimum(world, tmp_path):
    rows_in(tmp_path, count=4)
    plan = plan_of(tmp_path)
    plan.jobs[0].settings["train"].update(steps=15, validate_every=0, save_every=0, lr=1e-2, min_lr=1e-2)
    lines = lines_of(world, tmp_path / "run", plan)
    assert lines[-1]["validation_distance"] < 0.3 * lines[0]["distance"]
