"""PPO in the language: roles and their groups, what they start from, the settings that the runtime reads."""

import pytest

from specc.plan import SERVE, from_json, to_json

SPEC = """\
name: ppo
cluster: toy
algorithm: ppo
data: {prompts: "builtin:arithmetic"}
"""
SHAPE = "{shape: {layers: 4, hidden: 1024, heads: 8}}"
WIDER = "{shape: {layers: 4, hidden: 2048, heads: 16}}"


def roles_text(**others):
    roles = {"actor": f"{{model: {SHAPE}}}", "reward": f"{{model: {SHAPE}}}"} | others
    return "roles: {" + ", ".join(f"{name}: {text}" for name, text in roles.items()) + "}"


@pytest.fixture
def job(compile_text):
    """The job of SPEC with these lines and roles."""

    def made(*lines, **others):
        done = compile_text("\n".join([SPEC, roles_text(**others), *lines]) + "\n")
        assert done.plan, done.diagnostics
        assert from_json(to_json(done.plan)) == done.plan
        return done.plan.jobs[0]

    return made


def by_name(job):
    return {role.name: role for role in job.roles}


def test_actor_and_critic_are_groups_with_reference_and_reward_model_as_guests(job):
    found = job()
    assert [(g.name, [r.name for r in g.roles], g.serves) for g in found.groups] == [
        ("actor", ["actor", "reference"], False),
        ("critic", ["critic", "reward"], True),
    ]
    assert found.nodes == sum(group.nodes for group in found.groups)
    assert {role.program for role in found.roles} == {"ppo", SERVE}


def test_guests_of_the_same_shape_swap_weights_on_the_same_gpus(job):
    roles = by_name(job())
    for guest, host in (("reference", "actor"), ("reward", "critic")):
        assert roles[guest].swaps_with == host
        assert not roles[guest].trains
        assert (roles[guest].layout, roles[guest].nodes) == (roles[host].layout, roles[host].nodes)
    assert roles["actor"].trains
    assert roles["critic"].trains


def test_resident_weights_do_not_swap_and_take_room(job):
    apart = by_name(job(actor=f"{{model: {SHAPE}, parallel: {{tp: 1, pp: 1}}, micro_batch: 1}}"))
    beside = by_name(
        job(
            actor=f"{{model: {SHAPE}, parallel: {{tp: 1, pp: 1}}, micro_batch: 1}}",
            reference="{weights: resident}",
        )
    )
    assert beside["reference"].swaps_with == ""
    assert beside["actor"].memory.phases["train"] > apart["actor"].memory.phases["train"]


def test_a_reward_model_of_another_shape_is_a_model_of_its_own(job):
    roles = by_name(job(critic=f"{{model: {WIDER}}}"))
    assert roles["reward"].swaps_with == ""
    assert roles["reward"].group == "critic"
    assert roles["critic"].memory.parts["other models"] > 0


def test_two_servers_where_they_shall_not_be_combined(job):
    found = job("combine: false")
    assert [group.name for group in found.groups] == ["actor", "critic", "reward"]
    assert all(group.serves for group in found.groups[1:])


def test_local_roles_all_live_in_the_actors_processes(job):
    found = job("placement: local")
    assert [group.name for group in found.groups] == ["actor"]
    assert {role.program for role in found.roles} == {"ppo"}
    assert by_name(found)["reward"].swaps_with == "critic"
    assert {part.lane for part in found.timeline} <= {"actor"}


def test_split_is_what_the_job_says(job):
    assert job("placement: split").placement == "split"
    assert job().placement == "hetjob"


def test_a_function_needs_no_reward_model_and_no_kl_needs_no_reference(job):
    found = job("ppo: {kl: {coefficient: 0}}", reward='{function: "builtin:gsm8k"}')
    assert [role.name for role in found.roles] == ["actor", "critic"]
    assert found.settings["reward"]["function"] == "builtin:gsm8k"
    assert by_name(found)["critic"].model.shape == by_name(found)["actor"].model.shape


def test_the_critic_starts_from_the_reward_model_and_keeps_its_own_rates(job):
    found = job("train: {lr: 1e-6, min_lr: 1e-7, warmup_steps: 3}", critic="{train: {lr: 2e-5}}")
    assert by_name(found)["critic"].model.head == "scalar"
    actor, critic = found.settings["train"], found.settings["critic"]["train"]
    assert (actor["lr"], actor["min_lr"]) == (1e-6, 1e-7)
    assert (critic["lr"], critic["min_lr"], critic["warmup_steps"]) == (2e-5, 9e-7, 3)


def test_the_sound_choices_are_the_defaults_and_the_old_ones_can_be_had(job):
    own = job().settings["ppo"]
    assert (own["kl_estimator"], own["kl_in"], own["average"], own["truncated"]) == (
        "k1", "reward", "global", "mask",
    )  # fmt: skip
    old = "ppo: {average: micro_batch, truncated: mask_actor, kl: {estimator: absolute}}"
    own = job(old).settings["ppo"]
    assert (own["kl_estimator"], own["average"], own["truncated"]) == (
        "absolute",
        "micro_batch",
        "mask_actor",
    )


def test_prompts_get_what_responses_leave(job):
    found = job("train: {seq_length: 1024}", "generate: {max_tokens: 256}")
    assert found.settings["generate"]["max_prompt_tokens"] == 768


def test_rows_at_once_and_rows_of_a_request_are_planned_unless_said(job):
    found = job()
    assert by_name(found)["actor"].rows >= 1
    assert found.settings["serve"]["batch"] >= 1
    assert by_name(job("generate: {rows: 3}"))["actor"].rows == 3


def test_a_head_of_several_numbers_is_taken_from_the_stage_that_trained_it(compile_text):
    text = f"""\
name: chain
cluster: toy
stages:
  rm:
    algorithm: reward
    model: {SHAPE}
    data: {{train: "builtin:arithmetic"}}
    reward: {{attributes: [helpfulness, verbosity], loss: regression}}
    train: {{steps: 2}}
  ppo:
    algorithm: ppo
    data: {{prompts: "builtin:arithmetic"}}
    roles: {{actor: {{model: {SHAPE}}}, reward: {{model: {{from: rm}}, merge: {{helpfulness: 1}}}}}}
    train: {{steps: 2}}
"""
    done = compile_text(text)
    assert done.plan, done.diagnostics
    roles = by_name(done.plan.jobs[1])
    assert (roles["reward"].model.head, roles["reward"].model.attributes) == (
        "attributes", ("helpfulness", "verbosity"),
    )  # fmt: skip
    assert roles["critic"].model.head == "scalar"
    assert done.plan.jobs[1].depends_on == ("rm",)
    assert done.plan.jobs[1].settings["reward"]["merge"] == {"helpfulness": 1.0}


def test_where_it_runs_is_no_part_of_what_it_computes(job):
    said = ["placement: split", "combine: false", "placement: local", "generate: {rows: 2}"]
    assert len({job(line).hash for line in said} | {job().hash}) == 1
    assert job("ppo: {clip: 0.3}").hash != job().hash
