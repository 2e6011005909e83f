"""Rounds, unrolled: which stages, what each takes from which, what goes when, and what identifies them."""

import pytest

from specc import source
from specc.compile import compile_spec
from specc.experiment import check
from specc.graph import lower
from specc.plan import NO_MODEL, from_json, to_json

SPEC = {
    "name": "toy",
    "algorithm": "rejection",
    "data": {"prompts": "builtin:arithmetic"},
    "roles": {"actor": {"model": "tiny-llama"}, "reward": {"model": "tiny-llama"}},
    "rounds": 3,
    "prompts_per_round": 8,
    "generate": {"samples": 4, "max_tokens": 8, "max_prompt_tokens": 32, "batch": 4},
    "train": {"global_batch": 4, "seq_length": 64},
}


def lowered(**changes):
    read, _ = source.parse(source.dump({**SPEC, **changes}), "spec.yaml")
    experiment, said = check(read)
    assert not said, [d.message for d in said]
    graph, said = lower(experiment)
    assert not said, [d.message for d in said]
    return graph


def needs(graph, name):
    return [(a.kind, a.stage) for a in graph.stage(name).inputs]


def test_a_round_answers_scores_selects_and_learns():
    graph = lowered(rounds=1)
    assert [stage.name for stage in graph.stages] == [
        f"rejection-1-{part}" for part in ("generate", "score", "select", "train")
    ]
    assert [stage.algorithm for stage in graph.stages] == ["generate", "score", "best_of_n", "sft"]
    assert needs(graph, "rejection-1-train") == [("rows", "rejection-1-select")]
    assert needs(graph, "rejection-1-generate") == []


def test_each_round_answers_its_own_prompts_with_what_the_last_one_learnt():
    graph = lowered()
    for number in (2, 3):
        generate = graph.stage(f"rejection-{number}-generate")
        assert generate.roles[0].model == {"from": f"rejection-{number - 1}-train"}
        assert generate.settings["generate"]["slice"] == {"size": 8, "index": number - 1}
        train = needs(graph, f"rejection-{number}-train")
        assert ("checkpoint", f"rejection-{number - 1}-train") in train


def test_training_may_start_from_the_first_model_each_time():
    graph = lowered(carry="start")
    assert graph.stage("rejection-3-generate").roles[0].model == {"from": "rejection-2-train"}
    assert graph.stage("rejection-3-train").roles[0].model == {"name": "tiny-llama"}


@pytest.mark.parametrize(("kept", "gone"), [(1, ["1", "2"]), (2, ["1"]), (3, [])])
def test_rounds_go_as_later_ones_end_but_for_those_that_are_kept(kept, gone):
    graph = lowered(keep_rounds=kept)
    thrown = [name for stage in graph.stages for name in stage.discards]
    parts = ("generate", "score", "select", "train")
    assert thrown == [f"rejection-{number}-{part}" for number in gone for part in parts]


def test_what_another_stage_still_reads_is_not_thrown_away():
    loop = {key: value for key, value in SPEC.items() if key != "name"}
    late = {"algorithm": "above", "data": {"rows": {"from": "loop-1-score"}}}
    read, _ = source.parse(source.dump({"name": "toy", "stages": {"loop": loop, "late": late}}), "s.yaml")
    experiment, _ = check(read)
    graph, said = lower(experiment)
    assert not said
    thrown = {name for stage in graph.stages for name in stage.discards}
    assert "loop-1-score" not in thrown
    assert "loop-1-generate" in thrown


def test_more_rounds_and_another_retention_leave_earlier_rounds_as_they_were():
    few, many = lowered(), lowered(rounds=9, keep_rounds=4)
    for stage in few.stages:
        assert many.stage(stage.name).identity == stage.identity


def test_a_selector_of_the_rest_keeps_what_is_above_its_threshold():
    graph = lowered(algorithm="rest", rest={"threshold": 0.5})
    assert graph.stage("rest-1-select").settings == {"above": {"threshold": 0.5, "truncated": "keep"}}


def test_the_reward_models_standardisation_is_that_of_its_role():
    reward = {"model": "tiny-llama", "standardise": True, "mean": 2.0, "clip": 5.0}
    graph = lowered(roles={**SPEC["roles"], "reward": reward})
    said = graph.stage("rejection-1-score").settings["score"]
    assert (said["standardise"], said["mean"], said["std"], said["clip"]) == ("model", 2.0, None, 5.0)


def test_a_decision_transformer_blends_scores_and_learns_prompts_with_rewards():
    others = [{"path": "builtin:arithmetic", "weight": 2.0}]
    graph = lowered(
        algorithm="decision_transformer",
        rounds=1,
        data={"prompts": "builtin:arithmetic", "others": others},
        decision_transformer={"weight": 1.0, "decimals": 2},
    )
    assert [stage.algorithm for stage in graph.stages] == ["generate", "mix", "score", "reward_prompt", "sft"]
    mixed = graph.stage("decision_transformer-1-mix").data["sources"]
    assert [part["weight"] for part in mixed] == [1.0, 2.0]
    select = graph.stage("decision_transformer-1-select").settings["reward_prompt"]
    assert select == {"template": "{input} <rm_score>: {reward} ", "decimals": 2}
    assert graph.stage("decision_transformer-1-train").data["train"]["format"] == "prompt_response"


def planned(tmp_path, **changes):
    spec = tmp_path / "spec.yaml"
    spec.write_text(source.dump({**SPEC, "cluster": "example-h100", **changes}))
    done = compile_spec(spec)
    assert done.plan, [d.message for d in done.diagnostics]
    return done.plan


def test_a_plan_of_rounds_counts_rows_from_stage_to_stage(tmp_path):
    from specc.planner.outlook import outlook
    from specc.spec.cluster import find_profile

    plan = planned(tmp_path, rounds=1)
    profile, _, _ = find_profile("example-h100", tmp_path)
    rows = {one.stage: one.rows for one in outlook(plan.jobs, profile)}
    assert list(rows.values()) == [8, 32, 32, 8]
    assert plan.totals.wall_seconds > 0


def test_rows_above_a_threshold_are_not_guessed(tmp_path):
    from specc.planner.outlook import outlook
    from specc.spec.cluster import find_profile

    plan = planned(tmp_path, algorithm="rest", rounds=1)
    profile, _, _ = find_profile("example-h100", tmp_path)
    assert outlook(plan.jobs, profile)[-1].steps == 0


def test_clerks_have_no_model_no_gpu_and_no_layout(tmp_path):
    plan = planned(tmp_path, rounds=1)
    [role] = plan.job("rejection-1-select").roles
    assert role.is_clerk
    assert (role.gpus, role.nodes, role.model, role.step_seconds) == (0, 1, NO_MODEL, 0.0)
    assert plan.job("rejection-1-select").env == {}
    assert from_json(to_json(plan)) == plan


def test_a_step_of_generation_counts_prompts_and_says_how_many_answers_are_made_at_once(tmp_path):
    plan = planned(tmp_path, rounds=1)
    job = plan.job("rejection-1-generate")
    [role] = job.roles
    assert (role.global_batch, role.trains) == (4, False)
    assert role.rows == role.micro_batch == job.settings["generate"]["rows"] > 0


def test_another_slice_is_another_stage_for_all_that_read_it(tmp_path):
    one, other = planned(tmp_path), planned(tmp_path, prompts_per_round=9)
    for name in ("generate", "score", "select", "train"):
        assert one.job(f"rejection-1-{name}").hash != other.job(f"rejection-1-{name}").hash


def test_what_a_composite_says_wrongly_is_told_at_its_own_path(tmp_path):
    spec = tmp_path / "spec.yaml"
    roles = {**SPEC["roles"], "actor": {"model": "tiny-llama", "nodes": 1, "parallel": {"tp": 3}}}
    spec.write_text(source.dump({**SPEC, "rounds": 1, "cluster": "example-h100", "roles": roles}))
    said = [d for d in compile_spec(spec).diagnostics if d.severity == "error"]
    assert [d.path for d in said] == ["roles.actor.parallel.tp"]


@pytest.mark.parametrize("algorithm", ["rejection", "rest", "decision_transformer"])
def test_of_a_conversation_only_the_policy_s_own_answer_is_learnt(algorithm):
    def learnt(**changes):
        stages = lowered(algorithm=algorithm, rounds=1, **changes).stages
        return next(stage.settings["sft"] for stage in stages if stage.algorithm == "sft")

    assert (learnt()["turns"], learnt()["cut_answers"]) == ("last", "open")
    assert learnt(sft={"add_eos": False})["turns"] == "last"
    said = learnt(sft={"turns": "all", "cut_answers": "closed"})
    assert (said["turns"], said["cut_answers"]) == ("all", "closed")


@pytest.mark.parametrize("scorer", [{"model": "tiny-llama"}, {"function": "builtin:gsm8k"}])
def test_scores_may_be_standardised_by_those_of_the_same_round(scorer):
    roles = {"actor": {"model": "tiny-llama"}, "reward": {**scorer, "standardise": "rows", "clip": 3.0}}
    for number in (1, 2):
        own = lowered(rounds=2, roles=roles).stage(f"rejection-{number}-score").settings["score"]
        assert (own["standardise"], own["mean"], own["std"], own["clip"]) == ("rows", None, None, 3.0)


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"standardise": "rows", "mean": 0.0}, "roles.reward.mean"),
        ({"standardise": "row"}, "roles.reward.standardise"),
        ({"standardise": True, "function": "builtin:gsm8k", "model": None}, "roles.reward.standardise"),
    ],
)
def test_what_scores_are_standardised_by_is_said_once_and_right(more, path):
    reward = {key: value for key, value in ({"model": "tiny-llama"} | more).items() if value is not None}
    roles = {"actor": {"model": "tiny-llama"}, "reward": reward}
    read, _ = source.parse(source.dump({**SPEC, "roles": roles}), "spec.yaml")
    _, said = check(read)
    assert [d.path for d in said] == [path]
    if more == {"standardise": "row"}:
        assert said[0].message.endswith("is `row`, but must be `true`, `false` or `rows`")
