"""Self-rewarding: pairs of a step as tensors, and runs of a tiny model that judges itself, or is judged by a
script through the same path.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch

META = {"meta_fraction": 0.5, "meta_batch": 6, "meta_max_rows": 1.0, "meta_max_share": 1.0}


def run(
    world: Any, folder: Path, found: Any, n: int = 1, name: str = "1", scripted: bool = True
) -> list[dict[str, Any]]:
    """The metrics of the steps."""
    import toy_judges
    import toy_ppo
    import toy_runs

    file = toy_runs.written(folder, found)
    attempt = toy_judges.scripted if scripted else toy_judges.attempt
    assert world(n, attempt, str(file), name) == [0] * n
    return toy_ppo.metrics(folder)


def plan(folder: Path, layout: Any = None, **changes: Any) -> Any:
    import toy_judges
    import toy_ppo

    return toy_judges.plan(toy_ppo.prompts(folder), layout, **changes)


def numbers(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without times and sizes of the machine."""
    timed = ("seconds", "step_time", "memory_gib", "tokens_per_second", "tflops")
    return [{k: v for k, v in line.items() if not any(part in k for part in timed)} for line in lines]


# ── pairs as tensors ─────────────────────────────────────────────────────────────────────────────


def lessons(count: int) -> list[Any]:
    from runtime.algorithms.self_rewarding import Lesson

    return [
        Lesson((1,) * (1 + i % 3), (10 + i,) * (1 + i), (100 + i,) * (1 + (7 * i) % 11), rewards=(1.0, 0.0))
        for i in range(count)
    ]


@pytest.mark.parametrize(("dp", "micro_batch", "multiple"), [(1, 1, 1), (1, 4, 2), (2, 2, 4), (3, 2, 1)])
def test_every_pair_is_in_one_microbatch_of_one_rank(dp: int, micro_batch: int, multiple: int) -> None:
    from runtime.algorithms.self_rewarding import paired
    from runtime.dealing import Table

    own = lessons(7)
    shares = [paired(own, Table(rank, dp, micro_batch, multiple, pad_id=0)) for rank in range(dp)]
    rows = [batch.rows for share in shares for batch in share]
    assert sorted(row for some in rows for row in some) == list(range(14))
    assert all(
        two == (2 * (two[0] // 2), two[0] + 1)
        for some in rows
        for two in zip(some[::2], some[1::2], strict=True)
    )
    assert len({len(share) for share in shares}) == 1
    for round_of_ranks in zip(*shares, strict=True):
        widths = {batch.tokens_BT.shape for batch in round_of_ranks}
        assert len(widths) == 1
        assert next(iter(widths))[1] % multiple == 0


def test_the_response_is_learnt_from_its_first_token_to_its_last() -> None:
    """Columns p - 1 to n - 2 of a prompt of p tokens in n: the older implementation's were one later."""
    from runtime.algorithms.self_rewarding import Lesson, paired
    from runtime.dealing import Table

    lesson = Lesson((1, 2, 3), (4, 5, 9), (6, 9), rewards=(5.0, 1.0))
    [batch] = paired([lesson], Table(micro_batch=1))
    assert batch.mask_BT.tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 0]]
    learnt = [batch.labels_BT[i][batch.mask_BT[i] > 0].tolist() for i in range(2)]
    assert learnt == [[4, 5, 9], [6, 9]]
    assert batch.labels_NL is not None
    assert batch.labels_NL.tolist() == [[5.0], [1.0]]


def test_no_pair_at_all_is_a_microbatch_that_only_fills_up() -> None:
    from runtime.algorithms.self_rewarding import paired
    from runtime.dealing import Table

    for rounds in (1, 2):
        found = paired([], Table(dp=2, micro_batch=2, rounds_multiple=rounds))
        assert [batch.tokens_BT.shape[0] for batch in found] == [4] * rounds
        assert all(float(batch.mask_BT.sum()) == 0 for batch in found)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("dpo", math.log(2)),
        ("scale", 0.0),
        ("ipo", (1 / 0.2) ** 2),
        ("rpo_sq", 0.0),
        ("rpo_bwd_kl", 0.0),
        ("rpo_fwd_kl", 0.0),
    ],
)
def test_a_bad_pair_counts_with_no_log_ratio(loss: str, expected: float) -> None:
    from runtime.algorithms import dpo
    from runtime.algorithms.self_rewarding import idle_loss

    assert idle_loss(lessons(3), dpo.Settings(loss=loss, beta=0.1)) == pytest.approx(3 * expected, abs=1e-12)
    assert idle_loss([], dpo.Settings(loss=loss)) == 0.0


def test_what_is_said_of_a_steps_pairs() -> None:
    from runtime.algorithms.self_rewarding import Lesson, Settings, said_of

    own = [
        Lesson((1,), (2, 2), (3,), (4.0, 1.0), (4.0, 1.0)),
        Lesson((1,), (2, 2, 2, 2), (3,), (2.0, 0.0), (2.0, None), ends=1, bad=True),
        Lesson((1,), (2,), (3, 3), (1.0, 0.0), of_judgements=True),
        Lesson((1,), (2,), (3, 3, 3, 3), (0.0, 0.0), ends=0, bad=True),
    ]
    assert said_of(own, Settings(responses=4)) == {
        "chosen_lengths": 2.0,
        "reject_lengths": 2.0,
        "chosen_generated_rewards": 1.5,
        "rejected_generated_rewards": 0.25,
        "bad_samples_per_GBS": 0.5,
        "bad_ends_per_GBS": 3 / 16,
        "meta_samples_per_GBS": 0.25,
    }


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────


NAMES = (
    *("loss", "preference_loss", "sft_loss", "acc", "rewards_chosen_mean", "rewards_rejected_mean"),
    *("rewards_all_mean", "rewards_all_std", "chosen_lengths", "reject_lengths", "chosen_generated_rewards"),
    *("rejected_generated_rewards", "bad_samples_per_GBS", "bad_ends_per_GBS", "lr", "grad_norm"),
    *("iteration", "epoch", "consumed_samples", "step_time"),
)
"""What the tutorial tells people to watch."""


def test_a_model_that_cannot_judge_goes_to_its_end_with_bad_samples(world: Any, tmp_path: Path) -> None:
    found = plan(tmp_path, validated=True, own={"iteration": 2})
    lines = run(world, tmp_path, found, scripted=False)
    assert [line["step"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert set(NAMES) <= set(line)
        assert line["bad_samples_per_GBS"] == 1.0
        assert line["loss"] == pytest.approx(math.log(2), abs=1e-12)
        assert line["valid_judgements"] == line["grad_norm"] == line["unjudged"] == 0.0
    assert [line["consumed_samples"] for line in lines] == [32, 40, 48]  # after 3 steps of 8 rows before
    actor = tmp_path / "ppo" / "actor"
    measured = [json.loads(line) for line in (actor / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in measured if "validation_loss" in line] == [3]
    table = [json.loads(line) for line in (actor / "samples.jsonl").read_text().splitlines()]
    assert len(table) == 4
    assert all({"step", "prompt", "chosen", "rejected"} <= set(row) for row in table)
    assert not (actor / "checkpoint" / "best.json").exists()  # the next iteration goes on from the last


@pytest.mark.slow
def test_a_model_learns_what_its_judge_likes_and_the_next_iteration_says_more_of_it(
    world: Any, tmp_path: Path
) -> None:
    """From a model that says four letters of a, b, c and d; the judge likes a."""
    import random

    import toy_judges
    import toy_runs

    from specc.plan import Weights

    draws = random.Random(0)
    rows = [
        {"input": "q" * (1 + i % 5) + ":", "output": "".join(draws.choices("abcd", k=4))} for i in range(256)
    ]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"steps": 40, "lr": 1e-2, "min_lr": 1e-3, "save_every": 0}
    tuned = toy_runs.plan(data={"path": str(tmp_path / "sft.jsonl")}, train=train, global_batch=32)
    assert world(1, toy_runs.attempt, str(toy_runs.written(tmp_path / "sft", tuned))) == [0]

    shared = {"generate": {"stop_token_ids": []}}
    likes_a = {"template": toy_judges.LIKES_A}
    weights = Weights("run", path=str(tmp_path / "sft"), stage="sft")
    first = with_weights(plan(tmp_path, own=likes_a, train={"steps": 6, "save_every": 0}, **shared), weights)
    lines = run(world, tmp_path / "one", first)
    assert lines[0]["rewards_all_std"] == lines[0]["kl"] == 0.0  # the policy is the reference, bit by bit
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert all(line["valid_judgements"] == 1.0 for line in lines)
    good = [line for line in lines if line["bad_samples_per_GBS"] < 1]
    assert all(line["chosen_generated_rewards"] > line["rejected_generated_rewards"] for line in good)
    assert sum(line["acc"] for line in lines[1:]) / 5 > 0.75
    assert lines[-1]["loss"] < 0.64
    assert lines[-1]["rewards_chosen_mean"] > lines[-1]["rewards_rejected_mean"]

    of_one = Weights("run", path=str(tmp_path / "one"), stage="ppo")
    later = plan(tmp_path, own=likes_a | {"iteration": 2}, train={"steps": 2, "save_every": 0}, **shared)
    after = run(world, tmp_path / "two", with_weights(later, of_one))
    assert after[0]["kl"] == 0.0
    before = sum(line["generated_reward"] for line in lines) / len(lines)
    assert sum(line["generated_reward"] for line in after) / len(after) > 1.4 * before


def with_weights(found: Any, weights: Any) -> Any:
    import dataclasses

    job = found.jobs[0]
    roles = [dataclasses.replace(r, model=dataclasses.replace(r.model, weights=weights)) for r in job.roles]
    return dataclasses.replace(found, jobs=(dataclasses.replace(job, roles=tuple(roles)),))


@pytest.fixture(scope="module")
def straight(world: Any, tmp_path_factory: Any) -> list[dict[str, Any]]:
    """A run with everything in it, on one process."""
    folder = tmp_path_factory.mktemp("straight")
    return run(world, folder, plan(folder, own=META, train={"steps": 4}))


def test_judgements_that_are_judged_take_the_place_of_bad_pairs(straight: list[dict[str, Any]]) -> None:
    assert straight[0]["meta_samples_per_GBS"] == 0.0 or straight[0]["bad_samples_per_GBS"] < 1.0
    taken = [line["meta_samples_per_GBS"] for line in straight]
    assert sum(taken) > 0
    assert all(line["bad_samples_per_GBS"] + line["meta_samples_per_GBS"] <= 1.0 for line in straight)


@pytest.mark.parametrize(("sizes", "n"), [({"dp": 2}, 2), ({"tp": 2}, 2), ({"pp": 2}, 2)])
def test_a_layout_changes_no_choice(
    sizes: dict[str, int], n: int, straight: list[dict[str, Any]], world: Any, tmp_path: Path
) -> None:
    from specc.plan import Layout

    steps = run(world, tmp_path, plan(tmp_path, Layout(**sizes), own=META, train={"steps": 4}), n=n)
    assert len(steps) == len(straight) == 4
    exact = ("data_hash", "chosen_lengths", "bad_samples_per_GBS", "meta_samples_per_GBS", "generated_tokens")
    for mine, theirs in zip(steps, straight, strict=True):
        assert {k: mine[k] for k in exact} == {k: theirs[k] for k in exact}
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


@pytest.mark.parametrize("calls", [2, 5, 9])
def test_a_run_that_is_killed_goes_on_with_the_same_pairs(
    calls: int, straight: list[dict[str, Any]], world: Any, tmp_path: Path
) -> None:
    """Killed at any generation: of responses, judgements or verdicts."""
    import toy_judges
    import toy_runs

    whole = plan(tmp_path, own=META, train={"steps": 4})
    file = toy_runs.written(tmp_path, whole)
    assert world(1, toy_judges.scripted, str(file), "1", calls) != [0]
    again = run(world, tmp_path, whole, name="2")
    assert numbers(again) == numbers(straight)


def test_rows_that_can_be_checked_are_not_judged(world: Any, tmp_path: Path) -> None:
    import toy_judges

    file = tmp_path / "checked.jsonl"
    rows = [{"text": "q:", "answer": 1} if i % 2 else {"text": "qq:"} for i in range(16)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"verifier": "toy_judges:says_q", "verified_by": "answer"}
    found = toy_judges.plan(file, own=own, train={"steps": 2, "shuffle": False})
    lines = run(world, tmp_path, found)
    assert [line["verified"] for line in lines] == [0.5, 0.5]
    assert all(line["generated_reward"] > 1.0 for line in lines)  # checked responses get 2.5 of 0 to 5
