"""Self-rewarding in the language: a stage for each iteration, what each starts from, what does not fit."""

import pytest

from specc.compile import compile_spec
from specc.plan import from_json, to_json

SPEC = """\
name: own
cluster: toy
algorithm: self_rewarding
model: {shape: {layers: 4, hidden: 1024, heads: 8, vocab: 512}}
data: {train: "builtin:arithmetic", validation: "builtin:arithmetic"}
train: {global_batch: 16, seq_length: 1024}
generate: {max_tokens: 256}
"""


@pytest.fixture
def jobs(compile_text):
    """The jobs of SPEC with these lines."""

    def made(*lines, spec=SPEC):
        done = compile_text("\n".join([spec, *lines]) + "\n")
        assert done.plan, done.diagnostics
        assert from_json(to_json(done.plan)) == done.plan
        return done.plan.jobs

    return made


@pytest.fixture
def refused(compile_text):
    """What is said of SPEC with these lines: message and path of each error."""

    def made(*lines):
        done = compile_text("\n".join([SPEC, *lines]) + "\n")
        return [(d.message, d.path) for d in done.diagnostics if d.severity == "error"]

    return made


def test_each_iteration_is_a_stage_that_starts_where_the_last_one_ended(jobs):
    found = jobs()
    assert [job.stage for job in found] == [f"self_rewarding-{i}" for i in (1, 2, 3)]
    assert [job.depends_on for job in found] == [(), ("self_rewarding-1",), ("self_rewarding-2",)]
    weights = [[(r.name, r.model.weights.kind, r.model.weights.stage) for r in job.roles] for job in found]
    assert weights == [
        [("actor", "random", ""), ("reference", "random", "")],
        [("actor", "stage", "self_rewarding-1"), ("reference", "stage", "self_rewarding-1")],
        [("actor", "stage", "self_rewarding-2"), ("reference", "stage", "self_rewarding-2")],
    ]
    assert [job.export for job in found] == [False, False, True]
    for job in found:
        actor, reference = job.roles
        assert [group.name for group in job.groups] == ["actor"]
        assert (actor.trains, reference.trains, reference.swaps_with) == (True, False, "actor")
        assert {role.program for role in job.roles} == {"self_rewarding"}


def test_the_section_crosses_flat_with_what_a_step_takes(jobs):
    own = jobs("self_rewarding: {responses: 5, judgements: 2, loss: rpo_sq, eta: 0.5}")[0].settings
    found = own["self_rewarding"]
    assert (found["rollouts"], found["responses"], found["generations"], found["learnt"]) == (80, 5, 240, 32)
    assert (found["loss"], found["eta"], found["beta"], found["length_control"]) == ("rpo_sq", 0.5, 0.1, 0.0)
    assert found["judge"] == {"max_tokens": None, "temperature": None, "top_p": None}
    assert "Score: <total>" in found["template"]
    assert "{{ judgement_a }}" in found["meta_template"]
    assert (found["low"], found["high"], found["meta_fraction"], found["verifier"]) == (0, 5, 0, "")
    assert "reward" not in own


def test_what_changes_by_iteration_is_said_for_each(jobs):
    lines = "self_rewarding: {iterations: 3, beta: [0.3, 0.2, 0.1], length_control: [0, 0, 0.1]}"
    found = [job.settings["self_rewarding"] for job in jobs(lines)]
    assert [own["iteration"] for own in found] == [1, 2, 3]
    assert [own["beta"] for own in found] == [0.3, 0.2, 0.1]
    assert [own["length_control"] for own in found] == [0, 0, 0.1]


def test_validation_measures_answers_and_training_takes_prompts(jobs):
    data = jobs()[0].data
    assert sorted(data) == ["prompts", "validation"]
    assert (data["prompts"]["split"], data["prompts"].get("learnt")) == ("train", None)
    assert (data["validation"]["split"], data["validation"]["learnt"]) == ("validation", True)


def test_the_first_iteration_may_be_fine_tuning(jobs):
    first, second, _ = jobs("self_rewarding: {first_iteration_sft: true}")
    assert [role.program for role in first.roles] == ["sft"]
    assert sorted(first.data) == ["train", "validation"]
    assert second.roles[0].model.weights.stage == "self_rewarding-1"
    assert second.settings["self_rewarding"]["iteration"] == 2
    assert first.settings["sft"]["hand_over"] == "last", "the state that it went on with, not the best"
    assert first.settings["sft"]["turns"] == "all"


def test_more_iterations_leave_those_there_are_as_they_were(jobs):
    three, four = jobs(), jobs("self_rewarding: {iterations: 4}")
    assert [job.hash for job in four[:3]] == [job.hash for job in three]
    others = jobs("self_rewarding: {beta: [0.1, 0.1, 0.2]}")
    assert [a.hash == b.hash for a, b in zip(others, three, strict=True)] == [True, True, False]
    assert len({job.hash for job in four}) == 4


def test_another_stage_takes_the_last_iteration(jobs):
    stages = SPEC.replace("name: own\ncluster: toy\n", "")
    body = "".join(f"    {line}\n" for line in stages.splitlines())
    text = f"name: two\ncluster: toy\nstages:\n  own:\n{body}  more:\n    algorithm: sft\n"
    text += '    model: {from: own}\n    data: {train: "builtin:arithmetic"}\n'
    found = jobs(spec=text)
    assert [job.stage for job in found] == ["own-1", "own-2", "own-3", "more"]
    assert found[-1].roles[0].model.weights.stage == "own-3"
    assert found[-1].depends_on == ("own-3",)


def test_meta_rewarding_is_the_same_with_judgements_that_are_judged(jobs):
    spec = SPEC.replace("algorithm: self_rewarding", "algorithm: meta_rewarding")
    found = jobs(spec=spec)
    assert [job.stage for job in found] == [f"meta_rewarding-{i}" for i in (1, 2, 3)]
    assert {role.program for job in found for role in job.roles} == {"self_rewarding"}
    assert found[0].settings["self_rewarding"]["meta_fraction"] == 0.15
    [other, *_] = jobs("self_rewarding: {meta: {max_share: 0.3}}", spec=spec)
    assert other.settings["self_rewarding"]["meta_fraction"] == 0.15
    assert other.settings["self_rewarding"]["meta_max_share"] == 0.3


def test_a_verifier_and_its_field_cross(jobs):
    own = jobs('self_rewarding: {verifier: {function: "checks:right", field: args}}')[0].settings
    assert own["self_rewarding"]["verifier"] == "checks:right"
    assert own["self_rewarding"]["verified_by"] == "args"


@pytest.mark.parametrize(
    ("line", "message", "path"),
    [
        ("{beta: [0.1, 0.2]}", "`beta` has 2 numbers for 3 iterations", "self_rewarding.beta"),
        ("{length_control: [0, 1, 2]}", "", "self_rewarding.length_control[2]"),
        ("{beta: []}", "", "self_rewarding.beta"),
        ("{beta: 0}", "", "self_rewarding.beta"),
        ("{beta: many}", "", "self_rewarding.beta"),
        ("{responses: 1}", "", "self_rewarding.responses"),
        ("{judgements: 1, meta: {fraction: 0.1}}", "cannot be compared", "self_rewarding.judgements"),
        ("{eta: 2}", "does not compare", "self_rewarding.eta"),
        ("{preference_weight: 0}", "nothing would be learnt", "self_rewarding.preference_weight"),
        ("{judge: {low: 5}}", "not below the highest", "self_rewarding.judge.low"),
        ("{judge: {pattern: x}}", "0 groups", "self_rewarding.judge.pattern"),
        ('{judge: {template: "{{ prompt }}"}}', "does not show", "self_rewarding.judge.template"),
        ("{judge: {max_tokens: 1024}}", "leave no prompt", "self_rewarding.judge.max_tokens"),
        ("{verifier: {function: nothing}}", "does not name", "self_rewarding.verifier.function"),
        ("{verifier: {function: builtin:no}}", "no verifier", "self_rewarding.verifier.function"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_stands(refused, line, message, path):
    found = refused(f"self_rewarding: {line}")
    assert any(message in said and where.startswith(path) for said, where in found), found


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ("parallel: {cp: 2}", "parallel.cp"),
        ("train: {global_batch: 16, seq_length: 1024, packing: true}", "train.packing"),
        ("train: {global_batch: 16, seq_length: 256}", "generate.max_tokens"),
    ],
)
def test_whole_texts_need_room(compile_text, lines, path):
    text = (
        SPEC
        if lines.startswith("parallel")
        else SPEC.replace("train: {global_batch: 16, seq_length: 1024}\n", "")
    )
    done = compile_text(f"{text}{lines}\n")
    assert path in [d.path for d in done.diagnostics if d.severity == "error"]


def test_a_step_is_timed_by_all_that_it_generates(compile_text):
    def seconds(**own):
        said = ", ".join(f"{key}: {value}" for key, value in own.items())
        spec = SPEC.replace("cluster: toy", "cluster: example-h100") + "nodes: 1\n"
        done = compile_text(f"{spec}self_rewarding: {{{said}}}\n")
        assert done.plan, done.diagnostics
        parts = {}
        for span in done.plan.jobs[0].timeline:
            parts[span.name] = parts.get(span.name, 0.0) + span.seconds
        return parts

    few, many = seconds(responses=2, judgements=1), seconds(responses=64, judgements=31)
    assert many["generate"] > 5 * few["generate"]
    assert many["train"] == pytest.approx(few["train"], rel=0.5)  # pairs are as many
    assert "log-probs" not in many
    assert many["reference"] > 0


def test_a_twin_has_the_first_two_iterations_with_their_own_numbers(tmp_path):
    spec = tmp_path / "own.yaml"
    text = SPEC.replace("cluster: toy", "cluster: local-cpu")
    spec.write_text(text + "self_rewarding: {iterations: 3, beta: [0.1, 0.2, 0.3], length_control: 0.5}\n")
    done = compile_spec(spec, tiny=True, here=True)
    assert done.plan, done.diagnostics
    found = [job.settings["self_rewarding"] for job in done.plan.jobs]
    assert [(own["beta"], own["length_control"]) for own in found] == [(0.1, 0.5), (0.2, 0.5)]
