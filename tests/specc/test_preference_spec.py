"""Learning from preferences in the language: what it lowers to, what it refuses, and what a step takes."""

import re

import pytest

from specc.planner import cost
from specc.planner.hardware import gpu
from specc.planner.step_parts import step_parts
from specc.planner.workload import Workload

MODEL = "model: {shape: {layers: 4, hidden: 1024, heads: 8}}\n"
SPECS = {
    "dpo": "name: p\ncluster: toy\nalgorithm: dpo\ndata: {train: pairs.jsonl}\ntrain: {steps: 100}\n" + MODEL,
    "kto": "name: p\ncluster: toy\nalgorithm: kto\ndata: {train: verdicts.jsonl}\ntrain: {steps: 100}\n"
    + MODEL,
    "orpo": "name: p\ncluster: toy\nalgorithm: orpo\ndata: {train: pairs.jsonl}\ntrain: {steps: 100}\n"
    + MODEL,
    "spin": "name: p\ncluster: toy\nalgorithm: spin\ndata: {train: rows.jsonl}\n"
    "train: {steps: 100, seq_length: 512}\ngenerate: {max_tokens: 128}\n" + MODEL,
}


@pytest.fixture
def jobs(compile_text):
    """The jobs of a spec with these lines added."""

    def made(algorithm, *lines, data=""):
        spec = re.sub("(?m)^data: .*$", data, SPECS[algorithm]) if data else SPECS[algorithm]
        done = compile_text(spec + "\n".join(lines) + "\n")
        assert done.plan, done.diagnostics
        return done.plan.jobs

    return made


@pytest.fixture
def refused(compile_text):
    """(code, path) of what is wrong with a spec with these lines added."""

    def said(algorithm, *lines, files=None):
        keys = {line.partition(":")[0] for line in lines}
        spec = "".join(s for s in SPECS[algorithm].splitlines(True) if s.partition(":")[0] not in keys)
        done = compile_text(spec + "\n".join(lines) + "\n", files=files or {})
        return [(d.code, d.path) for d in done.diagnostics if d.severity == "error"]

    return said


def test_a_reference_lives_in_the_learner_s_processes_with_its_weights(jobs):
    [job] = jobs("dpo")
    model, reference = job.roles
    assert (model.name, model.group, model.program, model.trains) == ("model", "model", "dpo", True)
    assert (reference.name, reference.group, reference.swaps_with, reference.trains) == (
        "reference", "model", "model", False,
    )  # fmt: skip
    assert (reference.model, reference.layout, reference.micro_batch) == (
        model.model, model.layout, model.micro_batch,
    )  # fmt: skip
    assert len(job.groups) == 1
    assert job.nodes == model.nodes
    own = job.settings["dpo"]
    assert (own["loss"], own["beta"], own["eta"], own["reference"]) == ("dpo", 0.2, 1.0, "swap")
    assert (job.data["train"]["kind"], job.data["train"]["chosen"]) == ("pairs", "{chosen}")
    assert job.identity["model.shape"] == job.identity["roles.reference.model.shape"]


def test_odds_ratios_have_no_reference(jobs):
    [job] = jobs("orpo")
    assert [role.name for role in job.roles] == ["model"]
    assert job.settings["orpo"] == {"truncation": "drop", "add_eos": True, "add_bos": False, "weight": 0.1}


def test_where_the_reference_s_weights_are_is_no_other_experiment(jobs):
    hashes = {jobs("dpo", line)[0].hash for line in ("", "reference: swap", "reference: stored")}
    assert len(hashes) == 1
    assert jobs("dpo", "dpo: {beta: 0.1}")[0].hash not in hashes


def test_a_reference_may_come_from_another_stage(compile_text):
    stages = {
        "a": SPECS["dpo"],
        "b": SPECS["dpo"].replace(MODEL, "model: {from: a}\nreference: {model: {from: a}}\n"),
    }
    body = "".join(
        f"  {name}:\n" + "".join(f"    {line}\n" for line in text.splitlines()[2:])
        for name, text in stages.items()
    )
    done = compile_text(f"name: p\ncluster: toy\nstages:\n{body}")
    assert done.plan, done.diagnostics
    model, reference = done.plan.job("b").roles
    assert model.model.weights == reference.model.weights
    assert (reference.model.weights.kind, reference.model.weights.stage) == ("stage", "a")
    assert done.plan.job("b").depends_on == ("a",)


def test_a_step_is_longer_by_what_is_asked_of_the_reference(jobs):
    pins = ("nodes: 1", "parallel: {tp: 1, pp: 1}")
    seconds = {
        (algorithm, how): jobs(algorithm, f"reference: {how}", *pins)[0].roles[0].step_seconds
        for algorithm in ("dpo", "kto")
        for how in ("swap", "stored")
    }
    assert seconds["dpo", "swap"] > 1.2 * seconds["dpo", "stored"]
    # mismatched texts: the policy reads them too, and the reference both
    assert seconds["kto", "swap"] > 1.2 * seconds["kto", "stored"]
    assert seconds["kto", "stored"] < seconds["dpo", "stored"]  # one text a row


def test_the_parts_of_a_step_add_up_with_a_reference(jobs):
    role = jobs("dpo")[0].roles[0]
    card = gpu("h100-80gb")
    work = Workload(role.model.shape, 4096, 64, texts=2, passes=1, reference="swap")
    parts = step_parts(work, role.layout, 1, "none", card, 8)
    assert {"reference", "weights that trade places"} <= {part.name for part in parts}
    whole = cost.step_seconds(work, role.layout, 1, "none", card, 8)
    assert sum(part.seconds for part in parts) == pytest.approx(whole, rel=1e-9)


def test_spin_answers_and_learns_in_turns(jobs):
    made = jobs("spin", "spin: {iterations: 2, beta: [0.1, 0.3]}")
    assert [job.stage for job in made] == [
        "spin-1-generate",
        "spin-1-train",
        "spin-2-generate",
        "spin-2-train",
    ]
    assert [job.roles[0].program for job in made] == ["generate", "dpo"] * 2
    assert [job.settings["dpo"]["beta"] for job in made[1::2]] == [0.1, 0.3]
    first, second = made[1], made[3]
    assert first.data["train"]["from"]["stage"] == "spin-1-generate"
    assert (first.data["train"]["kind"], first.data["train"]["response"]) == ("generated", "{output}")
    # the opponent is the policy that the iteration starts from, and so is what it is kept near
    for role in (*made[2].roles, *second.roles):
        assert role.model.weights.stage == "spin-1-train"
    assert second.discards == ("spin-1-generate", "spin-1-train")
    assert made[0].settings["generate"]["max_prompt_tokens"] == 512 - 128


def test_spin_answers_the_rows_it_validates_on_too(jobs):
    rows = "data: {train: rows.jsonl, validation: {path: held.jsonl, response: '{answer}'}}"
    made = jobs("spin", "spin: {iterations: 2}", data=rows)
    names = [f"spin-{k}-{end}" for k in (1, 2) for end in ("generate", "generate-validation", "train")]
    assert [job.stage for job in made] == names
    _, asked, train, _, later, _ = made
    assert asked.data["prompts"][0]["path"] == "held.jsonl"
    found = train.data["validation"]
    assert (found["from"]["stage"], found["kind"], found["response"]) == (names[1], "generated", "{answer}")
    assert train.data["train"]["response"] == "{output}"
    assert later.roles[0].model.weights.stage == "spin-1-train"
    assert made[-1].discards == tuple(names[:3])
    assert made[0].hash == jobs("spin")[0].hash
    sums = "data: {train: 'builtin:arithmetic', validation: 'builtin:arithmetic'}"
    made = jobs("spin", "spin: {iterations: 1}", data=sums)
    assert [job.data["prompts"][0]["split"] for job in made[:2]] == [None, "validation"]


def test_more_iterations_leave_those_before_them_as_they_are(jobs):
    two, three = (jobs("spin", f"spin: {{iterations: {n}}}") for n in (2, 3))
    assert [job.hash for job in two] == [job.hash for job in three[:4]]


@pytest.mark.parametrize(
    ("algorithm", "line", "path"),
    [
        ("dpo", "dpo: {eta: 2.0}", "dpo.eta"),
        ("dpo", "dpo: {preference_weight: 0.0}", "dpo.preference_weight"),
        ("dpo", "dpo: {beta: 0.0}", "dpo.beta"),
        ("dpo", "dpo: {loss: rpo}", "dpo.loss"),
        ("dpo", "parallel: {cp: 2}", "parallel.cp"),
        ("orpo", "parallel: {cp: 2}", "parallel.cp"),
        ("dpo", "reference: resident", "reference.weights"),
        ("kto", "kto: {desirable_weight: 0.0, undesirable_weight: 0.0}", "kto.desirable_weight"),
        ("spin", "spin: {iterations: 3, beta: [0.1, 0.2]}", "spin.beta"),
        ("spin", "reference: {model: llama2-7b}", "reference.model"),
        ("spin", "spin: {add_bos: true}", "generate.add_bos"),
        ("spin", "generate: {max_tokens: 512}", "generate.max_tokens"),
        ("spin", "generate: {max_tokens: 128, max_prompt_tokens: 385}", "generate.max_prompt_tokens"),
        ("dpo", "reference: {model: llama2-7b}", "reference.model"),
    ],
)
def test_what_does_not_go_together_is_said_at_its_place(refused, algorithm, line, path):
    assert [where for _, where in refused(algorithm, line)] == [path]


@pytest.mark.parametrize(
    ("algorithm", "row", "wrong"),
    [
        ("dpo", '{"prompt": "p", "chosen": "a", "rejected": "b", "chosen_reward": 2}', False),
        ("dpo", '{"prompt": [{"role": "user", "content": "p"}], "chosen": "a", "rejected": "b"}', False),
        ("dpo", '{"prompt": "p", "chosen": "a"}', True),
        ("dpo", '{"prompt": "p", "chosen": "a", "rejected": "b", "chosen_reward": "2"}', True),
        ("dpo", '{"prompt": [{"role": "user", "content": "p"}], "chosen": "a"}', True),
        ("kto", '{"prompt": "p", "response": "a", "preference": "chosen"}', False),
        ("kto", '{"prompt": "p", "response": "a", "label": false}', False),
        ("kto", '{"prompt": "p", "response": "a", "label": 1}', True),
        ("kto", '{"prompt": "p", "response": "a", "preference": "liked"}', True),
        ("kto", '{"prompt": "p", "label": true}', True),
    ],
)
def test_the_head_of_a_file_is_looked_at(refused, algorithm, row, wrong):
    name = "pairs.jsonl" if algorithm == "dpo" else "verdicts.jsonl"
    said = [code for code, _ in refused(algorithm, files={name: row + "\n"})]
    assert said == (["G014"] if wrong else [])


def test_kto_needs_two_rows_a_step(compile_text):
    text = SPECS["kto"].replace("{steps: 100}", "{steps: 100, global_batch: 1}")
    done = compile_text(text)
    assert [d.path for d in done.diagnostics if d.severity == "error"] == ["train.global_batch"]
