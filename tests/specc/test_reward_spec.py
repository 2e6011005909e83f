"""Reward models in the language: what is implied, what it lowers to, and what the planner makes of pairs."""

import pytest

from specc.compile import compile_spec

SPEC = """\
name: rm
cluster: toy
algorithm: reward
model: {shape: {layers: 4, hidden: 1024, heads: 8}}
data: {train: "builtin:arithmetic"}
train: {steps: 100}
"""
NINE = 9


@pytest.fixture
def job(compile_text):
    """The job of SPEC with these lines added."""

    def made(*lines):
        done = compile_text(SPEC + "\n".join(lines) + "\n")
        assert done.plan, done.diagnostics
        return done.plan.jobs[0]

    return made


def own(job):
    return job.settings["reward"]


def test_a_scalar_learns_from_comparisons_unless_said_otherwise(job):
    found = job()
    assert (found.roles[0].program, found.roles[0].model.head, found.roles[0].model.attributes) == (
        "reward", "scalar", (),
    )  # fmt: skip
    assert (own(found)["loss"], own(found)["weights"], own(found)["average"]) == (
        "bradley_terry", [1.0], "global",
    )  # fmt: skip
    assert found.data["train"]["format"] == "comparisons"


@pytest.mark.parametrize("said", ["{head: attributes}", "{loss: regression}", "{merge: {helpfulness: 1}}"])
def test_attributes_are_the_nine_of_steerlm_unless_named(job, said):
    found = job(f"reward: {said}")
    names = found.roles[0].model.attributes
    assert (len(names), names[0], names[-1]) == (NINE, "quality", "verbosity")
    assert own(found)["loss"] == "regression"
    assert found.data["train"]["format"] == "attributes"
    assert found.data["train"]["attributes"] == list(names)


def test_weights_follow_the_order_of_the_attributes_and_are_their_mean_when_left_out(job):
    assert own(job("reward: {attributes: [a, b], merge: {b: 2.0}}"))["weights"] == [0.0, 2.0]
    assert own(job("reward: {attributes: [a, b]}"))["weights"] == [0.5, 0.5]


def test_the_defaults_are_the_tutorials(job):
    train = job().settings["train"]
    assert (train["lr"], train["min_lr"], train["weight_decay"], train["betas"]) == (
        9e-6,
        9e-7,
        0.1,
        [0.9, 0.98],
    )
    assert job().roles[0].global_batch == 64


def test_a_pair_takes_the_memory_of_two_texts(job):
    pins = "parallel: {tp: 1, pp: 1, recompute: none}\nnodes: 1"
    pair = job("reward: {loss: bradley_terry}", pins).roles[0]
    text = job("reward: {loss: regression, head: scalar}", pins).roles[0]
    assert pair.micro_batch
    assert text.micro_batch
    of_pair = pair.memory.parts["activations"] / pair.micro_batch
    of_text = text.memory.parts["activations"] / text.micro_batch
    assert of_pair == pytest.approx(2 * of_text, rel=0.02)


def test_a_text_is_never_cut_over_gpus(job):
    found = job("nodes: 4")
    assert found.roles[0].layout.cp == 1
    assert "cp as pinned" not in found.roles[0].why


def test_the_head_and_the_loss_are_part_of_what_a_stage_is(job):
    hashes = {job(f"reward: {{loss: {loss}}}").hash for loss in ("bradley_terry", "scaled_bt", "margin_bt")}
    assert len(hashes) == 3


def test_the_two_stages_of_helpsteer2_preference_hand_on_head_and_attributes():
    from specc import shipped

    plan = compile_spec(shipped.specs() / "reward_helpsteer2_preference.yaml").plan
    rate, prefer = (job for job in plan.jobs if job.roles[0].program == "reward")
    assert set(prefer.depends_on) == {
        rate.name,
        "prefer-train",
        "prefer-validation",
    }
    assert prefer.roles[0].model.attributes == rate.roles[0].model.attributes
    assert own(prefer)["loss"] == "scaled_bt"
    assert own(prefer)["load_head"]
    assert own(prefer)["weights"] == [0.0] * 4 + [1.0] + [0.0] * 4
    assert (rate.settings["train"]["steps"], prefer.settings["train"]["steps"]) == (317, 105)


@pytest.mark.parametrize(
    ("rows", "reward", "said"),
    [
        ('{"prompt": "a", "chosen": "b"}', "{}", "has no field `rejected`"),
        ('{"txt": "a"}', "{}", "has no `text`; it has `txt`"),
        ('{"text": 3}', "{}", "`text` is a number, not text"),
        ('{"chosen": [], "rejected": []}', "{}", "has no turns in `chosen`"),
        ('{"text": "a"}', "{loss: scaled_bt}", "no `label` that says how clear the preference is"),
        ('{"chosen": "a", "rejected": "b", "prompt": ""}', "{loss: scaled_bt}", "neither `strength` nor"),
        ('{"text": "a"}', "{attributes: [a]}", "has no `label`; it has `text`"),
        ('{"text": "a", "label": 3}', "{attributes: [a]}", "`label` is a number, not a list of 1: a"),
        ('{"label": [3]}', "{attributes: [a]}", "has no `text`; it has `label`"),
    ],
)
def test_rows_are_looked_at_while_compiling(compile_text, rows, reward, said):
    text = SPEC.replace('"builtin:arithmetic"', "rows.jsonl") + f"reward: {reward}\n"
    done = compile_text(text, files={"rows.jsonl": rows + "\n"})
    [diagnostic] = [d for d in done.diagnostics if d.code == "G014"]
    assert said in diagnostic.message


@pytest.mark.parametrize(
    ("rows", "reward"),
    [
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}', "{}"),
        ('{"text": "a"}\n{"text": "b"}', "{}"),
        ('{"text": "a", "label": [2, -100]}\n{"text": "b", "label": [2, -100]}', "{loss: scaled_bt}"),
        ('{"text": "a", "a": 1}', "{attributes: [a, b]}"),
        ('{"messages": [{"role": "user", "content": "x"}], "label": [1]}', "{attributes: [a]}"),
        ('{"prompt": "x", "chosen": [{"role": "a", "content": "b"}], "rejected": [{}]}', "{}"),
    ],
)
def test_rows_of_every_form_pass(compile_text, rows, reward):
    text = SPEC.replace('"builtin:arithmetic"', "rows.jsonl") + f"reward: {reward}\n"
    assert not compile_text(text, files={"rows.jsonl": rows + "\n"}).diagnostics


def test_the_tiny_twin_compares_generated_rows():
    from specc import shipped

    plan = compile_spec(shipped.specs() / "reward_hh.yaml", tiny=True, here=True).plan
    [job] = plan.jobs
    assert (job.data["train"]["path"], job.data["train"]["format"]) == ("builtin:arithmetic", "hh")
    assert job.roles[0].model.head == "scalar"


def test_the_tiny_twin_of_marks_is_prepared_from_generated_rows_of_the_published_forms():
    from specc import shipped

    plan = compile_spec(shipped.specs() / "reward_regression_13b.yaml", tiny=True, here=True).plan
    made = {job.stage: job for job in plan.jobs}
    forms = {stage: job.data["rows"].get("subset") for stage, job in made.items() if "rows" in job.data}
    assert (forms["oasst"], forms["helpsteer"], forms["marks"]) == ("oasst", "helpsteer", None)
    assert made["reward"].data["train"]["from"] == {"stage": "marks", "run": ""}
    assert made["reward"].data["train"]["format"] == "attributes"
    assert made["reward"].roles[0].model.head == "attributes"
