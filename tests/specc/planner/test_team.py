"""Roles that work together on their machines: memory, rows, turns on one machine, and what else there was."""

import pytest

from specc import planner
from specc.planner.alternatives import compared, front

ONE_NODE = "gpus: {type: h100-80gb, per_node: 8}\nnodes: 1\nscheduler: none\n"


@pytest.fixture
def planned(compile_text):
    """The plan of a PPO spec with these lines, and its team."""

    def made(*lines, model="llama3-8b", cluster=None, roles=""):
        text = "name: ppo\ncluster: toy\nalgorithm: ppo\ndata: {prompts: 'builtin:arithmetic'}\n"
        text += f"roles: {{actor: {{model: {model}}}, reward: {{model: {model}}}{roles}}}\n"
        files = {"clusters/toy.yaml": cluster} if cluster else {}
        done = compile_text(text + "\n".join(lines) + "\n", files=files)
        assert done.plan, done.diagnostics
        (team,) = planner.teams(done.graph, done.profile).values()
        return done.plan.jobs[0], team

    return made


def by_name(job):
    return {role.name: role for role in job.roles}


def test_every_host_fits_with_margin_in_every_phase(planned):
    for lines in (["placement: local"], ["combine: false"], ["generate: {engine: trtllm, reshard: true}"]):
        job, _ = planned(*lines)
        for group in job.groups:
            assert group.role.memory.oom_probability <= 0.05, lines


def test_a_pinned_number_of_rows_is_kept_and_a_free_one_takes_the_room_there_is(planned):
    free, _ = planned("ppo: {rollouts: 1024}")
    pinned, _ = planned("ppo: {rollouts: 1024}", "generate: {rows: 2}")
    assert by_name(pinned)["actor"].rows == 2
    assert by_name(free)["actor"].rows > 2
    assert free.roles[0].step_seconds < pinned.roles[0].step_seconds


def test_models_beside_each_other_leave_each_other_room(planned):
    job, _ = planned("placement: local")
    actor, critic = by_name(job)["actor"], by_name(job)["critic"]
    assert actor.memory.parts["other models"] > 0
    assert critic.memory.parts["other models"] > 0
    assert (actor.nodes, actor.gpus) == (critic.nodes, critic.gpus)


def test_groups_of_one_machine_share_its_gpus(planned):
    job, _ = planned(model="tiny-llama", cluster=ONE_NODE)
    assert [group.gpus for group in job.groups] == [4, 4]
    assert job.nodes == 1


def test_the_step_of_the_actor_is_the_jobs_and_its_timeline_ends_with_it(planned):
    for lines in ([], ["placement: local"]):
        job, _ = planned(*lines)
        end = max(part.start + part.seconds for part in job.timeline)
        assert job.roles[0].step_seconds == pytest.approx(end, abs=0.01)
        assert max(role.step_seconds for role in job.roles) == job.roles[0].step_seconds


def test_runners_up_are_told_by_the_whole_step_and_lose(planned):
    job, team = planned("ppo: {rollouts: 128}", model="llama3-70b")
    roles = by_name(job)
    for name in ("actor", "critic"):
        request = next(r for r in team.requests if r.name == name)
        found = compared(team, request, roles)
        assert found.runners_up
        assert found.step_seconds == roles["actor"].step_seconds
        assert all(rival.slower >= -0.01 * found.step_seconds for rival in found.runners_up)
        assert all(rival.nodes == roles[name].nodes for rival in found.runners_up)


def test_the_parts_of_the_step_are_told_with_their_numbers(planned):
    job, team = planned("ppo: {rollouts: 128}")
    found = compared(team, team.requests[0], by_name(job))
    own = {timed.part: timed for timed in found.times if timed.lane == "actor"}
    assert sum(timed.seconds for timed in own.values()) == pytest.approx(found.step_seconds, abs=0.02)
    assert "2 optimizer steps x" in own["train"].text
    assert "128 rows" in own["log-probs"].text


def test_a_guest_had_no_choice(planned):
    job, team = planned()
    request = next(r for r in team.requests if r.name == "reference")
    found = compared(team, request, by_name(job))
    assert (found.runners_up, found.too_large) == ((), ())


def test_of_the_options_each_is_faster_than_all_with_fewer_nodes(planned):
    job, team = planned("ppo: {rollouts: 1024}", model="llama3-70b")
    found = front(team, by_name(job))
    assert len(found) >= 3
    nodes, seconds = [pair.nodes for pair in found], [pair.step.seconds for pair in found]
    assert nodes == sorted(set(nodes))
    assert seconds == sorted(seconds, reverse=True)


def test_an_actor_without_a_critic_is_planned_by_its_whole_step(compile_text):
    text = (
        "name: g\ncluster: toy\nalgorithm: grpo\ndata: {prompts: 'builtin:arithmetic'}\n"
        "roles: {actor: {model: llama3-8b}, reward: {function: 'builtin:gsm8k'}}\n"
    )
    job = compile_text(text).plan.jobs[0]
    assert {part.name for part in job.timeline} >= {"generate", "train", "reference"}
    assert job.roles[0].rows > 1


@pytest.mark.parametrize("reward", ["{function: 'builtin:gsm8k'}", "{model: llama3-8b}"])
def test_the_other_layouts_of_an_actor_without_a_critic_lose_by_the_whole_step(compile_text, reward):
    text = (
        "name: g\ncluster: toy\nalgorithm: grpo\ndata: {prompts: 'builtin:arithmetic'}\n"
        f"roles: {{actor: {{model: llama3-70b}}, reward: {reward}}}\n"
    )
    done = compile_text(text)
    job, (team,) = done.plan.jobs[0], planner.teams(done.graph, done.profile).values()
    found = compared(team, team.named("actor"), by_name(job))
    assert found.runners_up
    assert found.step_seconds == job.roles[0].step_seconds
    assert all(rival.slower >= -0.01 * found.step_seconds for rival in found.runners_up)
    own = [timed for timed in found.times if timed.lane == "actor"]
    assert sum(timed.seconds for timed in own) == pytest.approx(found.step_seconds, abs=0.02)
    assert all(timed.text for timed in own if timed.part != "wait")
