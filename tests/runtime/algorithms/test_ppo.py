"""PPO and its siblings: their formulas against plain ones, and runs of a tiny model under every layout."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch


def run(world: Any, folder: Path, found: Any, n: int = 1, name: str = "1") -> list[dict[str, Any]]:
    """The metrics of the actor's steps."""
    import toy_ppo
    import toy_runs

    file = toy_runs.written(folder, found)
    assert world(n, toy_ppo.attempt, str(file), name) == [0] * n
    return toy_ppo.metrics(folder)


# ── formulas ─────────────────────────────────────────────────────────────────────────────────────


def numbers(*shape: int, seed: int = 0) -> Any:
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dual_clip", [0.0, 3.0])
def test_the_clipped_surrogate_is_the_papers(dual_clip: float) -> None:
    from runtime.algorithms.ppo import clipped_surrogate

    ratios, advantages = numbers(500).exp().mul(1.5), numbers(500, seed=1)
    found = clipped_surrogate(ratios, advantages, 0.2, dual_clip).tolist()
    for r, a, loss in zip(ratios.tolist(), advantages.tolist(), found, strict=True):
        objective = min(r * a, min(max(r, 0.8), 1.2) * a)
        if dual_clip and a < 0:
            objective = max(objective, dual_clip * a)
        assert loss == pytest.approx(-objective, abs=1e-12)


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_the_value_loss_is_the_worse_of_both(clip: float) -> None:
    from runtime.algorithms.ppo import value_losses

    values, old, returns = numbers(300), numbers(300, seed=1), numbers(300, seed=2)
    for v, o, r, loss in zip(values, old, returns, value_losses(values, old, returns, clip), strict=True):
        held = o + max(min(v - o, clip), -clip)
        expected = (v - r) ** 2 if not clip else max((v - r) ** 2, (held - r) ** 2)
        assert float(loss) == pytest.approx(float(expected) / 2, abs=1e-12)


def test_a_critic_that_is_right_explains_everything() -> None:
    import torch

    from runtime.algorithms.ppo import explained_variance

    returns, mask = numbers(3, 5), torch.ones(3, 5).double()
    assert explained_variance(returns, returns, mask) == pytest.approx(1.0)
    assert explained_variance(torch.zeros_like(returns), returns, mask) == pytest.approx(0.0, abs=0.2)
    assert explained_variance(returns, torch.ones_like(returns), mask) == 0.0


def rollout(id: int, prompt: int, response: int, finish: str = "stop") -> Any:
    from runtime.rollouts import Rollout

    return Rollout(id, id, (1,) * prompt, (2,) * response, (0.0,) * response, finish)


def test_rewards_advantages_and_what_counts_of_a_batch() -> None:
    import numpy as np

    from runtime.algorithms.ppo import Settings, cut_short, judged, lessons
    from runtime.judges import Answers

    rollouts = [rollout(0, 2, 3), rollout(1, 3, 1, "length")]
    old = {0: np.array([0.0, -1.0, -2.0, -3.0]), 1: np.array([0.0, 0.0, -0.5])}
    reference = {0: np.array([9.0, -1.5, -2.0, -2.0]), 1: np.array([9.0, 9.0, -1.5])}
    values = {0: np.array([5.0, 0.1, 0.2, 0.3]), 1: np.array([5.0, 5.0, 0.4])}
    answers = Answers(values, {0: 2.0, 1: 3.0})
    settings = Settings(discount=1.0, gae_lambda=1.0, whiten=False)
    found = judged(rollouts, answers, old, reference, settings, 0.5)
    # k1 of 0: 0.5, 0, -1 -> rewards -0.25, 0, 0.5 + 2; of 1: 1 -> -0.5 + 3
    assert found.shaped_NT.tolist() == [[0, -0.25, 0, 2.5], [0, 0, 2.5, 0]]
    assert found.returns_NT[0].tolist() == pytest.approx([0, 2.25, 2.5, 2.5])
    assert found.advantages_NT[0].tolist() == pytest.approx([0, 2.15, 2.3, 2.2])
    assert found.advantages_NT[1].tolist() == pytest.approx([0, 0, 2.1, 0])
    assert found.counts_NT.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]  # the second one was cut
    assert [float(lesson.mask.sum()) for lesson in lessons(found, settings)] == [3.0, 0.0]
    kept = Settings(truncated="mask_actor")
    assert [float(lesson.mask.sum()) for lesson in lessons(found, kept)] == [3.0, 1.0]
    assert cut_short(rollouts, answers, Settings(truncated_score=-1.0)).scores == {0: 2.0, 1: -1.0}


def test_group_baselines_give_every_token_of_a_response_the_same() -> None:
    import numpy as np

    from runtime.algorithms import grpo, reinforce
    from runtime.judges import Answers

    rollouts = [rollout(i, 2, 2) for i in range(4)]
    old = {i: np.array([0.0, -1.0, -1.0]) for i in range(4)}
    reference = {i: np.array([0.0, -1.0 - i, -1.0]) for i in range(4)}  # KL of response i: i
    answers = Answers({}, {0: 1.0, 1: 3.0, 2: 5.0, 3: 5.0})
    group = grpo.judged(rollouts, answers, old, reference, grpo.Settings(responses=2), 0.1)
    scale = 1 / (math.sqrt(2) + 1e-6)
    expected = [-scale, scale, 0.0, 0.0]
    assert group.advantages_NT[:, 1:].mean(1).tolist() == pytest.approx(expected)
    assert group.advantages_NT[:, 0].tolist() == [0, 0, 0, 0]
    plain = reinforce.judged(rollouts, answers, old, reference, reinforce.Settings(responses=2), 0.5)
    # rewards 1, 2.5, 4, 3.5, each less the other of its pair
    assert plain.advantages_NT[:, 2].tolist() == pytest.approx([-1.5, 1.5, 0.5, -0.5])


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────


LAYOUTS = {
    "TP2": {"tp": 2, "sequence_parallel": True},
    "PP2": {"pp": 2},
    "DP2": {"dp": 2},
    "TP2 x PP2": {"tp": 2, "pp": 2, "sequence_parallel": True},
}


@pytest.mark.parametrize("name", ["one", *LAYOUTS])
def test_a_step_begins_with_a_ratio_of_one_and_no_kl(name: str, world: Any, tmp_path: Path) -> None:
    import toy_ppo

    from specc.plan import Layout

    layout, own = Layout(**LAYOUTS.get(name, {})), {"rollouts": 8, "entropy": 0.01}
    found = toy_ppo.plan(toy_ppo.prompts(tmp_path), layout, ppo=own, train={"steps": 2})
    first, second = run(world, tmp_path / "run", found, n=layout.world_size)
    assert first["ratio"] == 1.0
    assert first["policy_kl"] == 0.0
    assert first["kl"] == 0.0  # the reference is the same model in the same place
    assert 0 < first["entropy"] <= math.log(259)
    assert second["ratio"] == 1.0
    assert second["kl"] != 0.0
    assert first["sampler_gap"] < 1e-5


SAME = (
    "loss",
    "grad_norm",
    "reward",
    "kl",
    "response_length",
    "critic_loss",
    "critic_grad_norm",
    "shaped_reward",
)


@pytest.fixture(scope="module")
def alone(world: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    import toy_ppo

    folder = tmp_path_factory.mktemp("alone")
    return run(world, folder / "run", toy_ppo.plan(toy_ppo.prompts(folder), train={"steps": 2}))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_changes_no_number(
    name: str, world: Any, tmp_path: Path, alone: list[dict[str, Any]]
) -> None:
    import toy_ppo

    from specc.plan import Layout

    layout = Layout(**LAYOUTS[name])
    found = toy_ppo.plan(toy_ppo.prompts(tmp_path), layout, train={"steps": 2})
    steps = run(world, tmp_path / "run", found, n=layout.world_size)
    assert len(steps) == len(alone) == 2
    for mine, theirs in zip(steps, alone, strict=True):
        for key in SAME:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("program", ["grpo", "reinforce"])
def test_siblings_learn_without_a_critic(program: str, world: Any, tmp_path: Path) -> None:
    import toy_ppo

    found = toy_ppo.plan(
        toy_ppo.prompts(tmp_path, 64),
        program=program,
        roles=("actor", "reference"),
        ppo={"rollouts": 64, "responses": 8, "kl": 0.001},
        train={"steps": 16, "lr": 6e-3, "min_lr": 6e-3, "save_every": 0},
        micro_batch=16,
    )
    steps = run(world, tmp_path / "run", found)
    rewards = [step["reward"] for step in steps]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05
    assert "critic_loss" not in steps[0]


def validated(folder: Path) -> dict[str, Any]:
    """What the last validation measured."""
    lines = (folder / "ppo" / "actor" / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "validation_reward" in line][-1]


def test_what_a_verifier_calls_right_is_measured_on_the_validation_prompts(
    world: Any, tmp_path: Path
) -> None:
    import toy_ppo

    held = toy_ppo.prompts(tmp_path, 24)
    train = {"steps": 1, "validate_every": 1}
    for name, function in {"verified": "is_even", "other": "share_of_e"}.items():
        found = toy_ppo.plan(
            toy_ppo.prompts(tmp_path),
            validation=held,
            train=train,
            scorer={"function": f"toy_ppo:{function}", "clip": 0.5},
        )
        run(world, tmp_path / name, found)
    measured = validated(tmp_path / "verified")
    assert 0 < measured["validation_right"] < 1
    assert measured["validation_reward"] == pytest.approx(measured["validation_right"] / 2)  # it was clipped
    assert "validation_right" not in validated(tmp_path / "other")


def test_what_the_builtin_verifiers_call_right_scores_one() -> None:
    from runtime.scoring import right_score

    assert right_score({"function": "builtin:gsm8k"}) == 1.0
    assert right_score({"function": "builtin:gsm8k", "clip": 0.25}) == 0.25
    assert right_score({"function": ""}) is None


def test_a_reward_function_that_fails_ends_the_run_and_names_the_row(world: Any, tmp_path: Path) -> None:
    import toy_ppo
    import toy_runs

    found = toy_ppo.plan(toy_ppo.prompts(tmp_path), scorer={"function": "builtin:gsm8k"})
    file = toy_runs.written(tmp_path / "run", found)
    assert world(1, toy_ppo.attempt, str(file)) == [1]
    attempts = tmp_path / "run" / "ppo" / "attempts" / "1"
    said = "".join(path.read_text() for path in attempts.rglob("*") if path.is_file())
    assert "R055" in said
    assert "the row's answer holds no number" in said


KEPT = (
    "step",
    "loss",
    "grad_norm",
    "reward",
    "kl",
    "lr",
    "critic_loss",
    "critic_grad_norm",
    "response_length",
)


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(world: Any, tmp_path: Path) -> None:
    import shutil

    import toy_ppo

    whole = toy_ppo.plan(toy_ppo.prompts(tmp_path), train={"steps": 4}, ppo={"kl_target": 0.1})
    straight = run(world, tmp_path / "straight", whole)
    folder = tmp_path / "killed"
    run(world, folder, whole)
    stage = folder / "ppo"
    # as if killed after the critic and the actor had saved step 3, and before the commit was written
    (stage / "output.json").unlink()
    for step in (3, 4):
        (stage / "commits" / f"{step}.json").unlink()
    shutil.rmtree(stage / "actor" / "checkpoint" / "step-4")
    again = run(world, folder, whole, name="2")
    assert [[line[key] for key in KEPT] for line in again] == [
        [line[key] for key in KEPT] for line in straight
    ]
    assert [line["kl_coefficient"] for line in again] == [line["kl_coefficient"] for line in straight]
    commits = sorted(int(path.stem) for path in (stage / "commits").glob("*.json"))
    assert commits[-1] == 4
    newest = json.loads((stage / "commits" / "4.json").read_text())
    assert set(newest["manifests"]) == {"actor", "critic"}
    tables = (stage / "actor" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in tables] == [step for step in (1, 2, 3, 4) for _ in range(4)]
