"""SteerLM's algorithms as specs: what they lower to, what they refuse, and the shipped recipes' numbers."""

import pytest

from specc import shipped
from specc.compile import compile_spec

HEAD = "name: toy\ncluster: toy\n"
MODEL = "{shape: {layers: 2, hidden: 64, heads: 4}, chat_template: extra_id}"

STEERLM = (
    HEAD
    + f"""\
stages:
  steer:
    algorithm: steerlm
    data: {{marks: marks.jsonl, train: talks.jsonl}}
    roles: {{reward: {{model: {MODEL}}}, actor: {{model: {MODEL}}}}}
"""
)

PREPARE = HEAD + "algorithm: prepare\ndata: {rows: trees.jsonl}\n"


def stages(compilation):
    assert compilation.plan, compilation.diagnostics
    return {job.stage: job for job in compilation.plan.jobs}


def said(compilation):
    return [(d.code, d.path, d.message) for d in compilation.diagnostics if d.severity == "error"]


# ── the composite ────────────────────────────────────────────────────────────────────────────────


def test_steerlm_is_its_steps(compile_text):
    jobs = stages(compile_text(STEERLM))
    assert {name: job.roles[0].program for name, job in jobs.items()} == {
        "steer-marks": "prepare",
        "steer-reward": "reward",
        "steer-annotate": "annotate",
        "steer-train": "sft",
    }
    assert jobs["steer-annotate"].depends_on == ("steer-reward",)
    assert jobs["steer-train"].data["train"]["from"]["stage"] == "steer-annotate"
    assert jobs["steer-reward"].settings["reward"]["add_eos"] is False
    assert jobs["steer-train"].settings["sft"]["add_eos"] is False
    assert jobs["steer-annotate"].roles[0].model.attributes == jobs["steer-reward"].roles[0].model.attributes
    assert len(jobs["steer-reward"].roles[0].model.attributes) == 9


def test_a_round_asks_for_the_best_marks_and_learns_what_was_good_enough(compile_text):
    text = STEERLM + "    steerlm: {rounds: 2, least: {quality: 3}}\n"
    jobs = stages(compile_text(text))
    programs = [(name, job.roles[0].program) for name, job in jobs.items()][4:]
    assert programs == [
        (f"steer-{k}-{what}", program)
        for k in (1, 2)
        for what, program in (
            ("ask", "prepare"),
            ("generate", "generate"),
            ("answers", "prepare"),
            ("annotate", "annotate"),
            ("keep", "prepare"),
            ("train", "sft"),
        )
    ]
    label = jobs["steer-1-ask"].settings["prepare"]["label"]
    assert (label["quality"], label["toxicity"], label["verbosity"]) == (4, 0, 4)
    assert jobs["steer-1-generate"].settings["generate"]["stop"] == ["<extra_id_1>"]
    assert jobs["steer-1-generate"].roles[0].model.weights.stage == "steer-train"
    assert jobs["steer-2-generate"].roles[0].model.weights.stage == "steer-1-train"
    assert jobs["steer-2-train"].data["train"]["from"]["stage"] == "steer-2-keep"
    assert jobs["steer-2-train"].export
    assert not jobs["steer-1-train"].export


def test_of_bootstrapped_conversations_only_the_new_answer_is_learnt(compile_text):
    text = STEERLM + "    steerlm: {rounds: 1%s}\n"
    for more, wanted in (("", ["all", "last"]), (", turns: all", ["all", "all"])):
        jobs = compile_text(text % more).plan.jobs
        assert [job.settings["sft"]["turns"] for job in jobs if "sft" in job.settings] == wanted


def test_its_name_means_the_policy_that_learnt_last(compile_text):
    more = "  more:\n    algorithm: sft\n    model: {from: steer}\n    data: {train: x.jsonl}\n"
    text = STEERLM + "    steerlm: {rounds: 1}\n" + more
    assert stages(compile_text(text))["more"].roles[0].model.weights.stage == "steer-1-train"


def test_time_and_environment_are_those_of_all_its_stages(compile_text):
    jobs = stages(compile_text(STEERLM + "    time: 2h\n    env: {A: b}\n"))
    assert {job.time_seconds for job in jobs.values()} == {7200}
    assert {job.env.get("A") for job in jobs.values()} == {"b"}


def test_more_rounds_leave_earlier_stages_as_they_are(compile_text):
    before = stages(compile_text(STEERLM))
    after = stages(compile_text(STEERLM + "    steerlm: {rounds: 1}\n"))
    for name, job in before.items():
        assert after[name].hash == job.hash


@pytest.mark.parametrize(
    ("more", "path", "words"),
    [
        ("steerlm: {label: {quality: 5}}", "steerlm.label.quality", "5 is no mark"),
        ("steerlm: {label: {qualty: 4}}", "steerlm.label.qualty", "there is no attribute `qualty`"),
        ("steerlm: {least: {beauty: 4}}", "steerlm.least.beauty", "there is no attribute `beauty`"),
        ("steerlm: {attributes: [a], rounds: 1}", "steerlm.label", "nobody knows which marks"),
        ("annotate: {attributes: [a]}", "annotate.attributes", "the attributes are those of `steerlm`"),
    ],
)
def test_what_is_mistyped_is_said_where_it_stands(compile_text, more, path, words):
    [(code, where, message)] = said(compile_text(f"{STEERLM}    {more}\n"))
    assert (code, where) == ("T009", f"stages.steer.{path}")
    assert words in message


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ("actor: {model: {shape", "actor: {model: {name: llama2-7b}}}\n#", "roles.actor.model"),
        ("reward: {model: ", "reward: {parallel: {cp: 2}, model: ", "roles.reward.parallel.cp"),
    ],
)
def test_a_template_without_labels_and_a_cut_text_are_refused(compile_text, before, after, path):
    [(code, where, _)] = said(compile_text(STEERLM.replace(before, after)))
    assert (code, where) == ("T009", f"stages.steer.{path}")


# ── prepare ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("section", "path", "words"),
    [
        ("{form: ask}", "prepare.label", "form ask needs `label`"),
        ("{form: keep}", "prepare.least", "form keep needs `least`"),
        ("{form: ask, label: {a: 7}}", "prepare.label.a", "7 is no mark"),
        ("{form: regression, split: train}", "prepare.split", "`split` says nothing of form regression"),
        ("{form: helpsteer, attributes: [helpfull]}", "prepare.attributes", "no attribute `helpfull`"),
        ("{form: oasst, attributes: [quality]}", "prepare.attributes", "says nothing of form oasst"),
    ],
)
def test_a_form_takes_what_belongs_to_it(compile_text, section, path, words):
    [(code, where, message)] = said(compile_text(f"{PREPARE}prepare: {section}\n"))
    assert (code, where) == ("T009", path)
    assert words in message


@pytest.mark.parametrize(
    ("form", "split", "wanted"),
    [
        ("helpsteer2", "validation", {"split": "validation"}),
        ("hh_prompts", "validation", {"split": "test"}),
        ("helpsteer2_preference", "validation", {"split": None, "folder": "preference"}),
        ("oasst", "train", {"split": None}),
    ],
)
def test_a_published_data_set_is_asked_for_its_own_split(compile_text, form, split, wanted):
    text = PREPARE.replace("trees.jsonl", "owner/name") + f"prepare: {{form: {form}, split: {split}}}\n"
    [job] = stages(compile_text(text)).values()
    assert {key: job.data["rows"].get(key) for key in wanted} == wanted
    assert job.roles[0].is_clerk
    assert job.settings["prepare"]["split"] == split


# ── SteerLM 2.0 ──────────────────────────────────────────────────────────────────────────────────

STEERLM2 = (
    HEAD
    + f"algorithm: steerlm2\nmodel: {MODEL}\ndata: {{train: rows.jsonl}}\n"
    + "train: {global_batch: 8}\nsteerlm2: {responses: 5}\n"
)


def test_a_batch_counts_prompts_and_a_micro_batch_responses(compile_text):
    [job] = stages(compile_text(STEERLM2)).values()
    assert job.roles[0].global_batch == 40
    assert job.settings["steerlm2"] == {"responses": 5, "truncation": "drop"}


def test_responses_are_not_packed_and_their_number_is_said(compile_text):
    packed = STEERLM2.replace("global_batch: 8", "global_batch: 8, packing: true")
    assert said(compile_text(packed))[0][:2] == ("T009", "train.packing")
    assert said(compile_text(STEERLM2.replace("{responses: 5}", "{}")))[0][:2] == (
        "T005",
        "steerlm2.responses",
    )


# ── the shipped recipes ──────────────────────────────────────────────────────────────────────────


def test_the_recipe_has_the_tutorials_numbers():
    """NeMo-Aligner's SteerLM tutorial, steps 2 to 5."""
    jobs = stages(compile_spec(shipped.specs() / "steerlm_llama2_70b.yaml"))
    judge, policy = jobs["steerlm-reward"], jobs["steerlm-train"]
    role = judge.roles[0]
    assert (role.nodes, role.layout.tp, role.layout.pp, role.layout.dp) == (32, 4, 1, 64)
    assert (role.global_batch, role.micro_batch, judge.settings["train"]["steps"]) == (512, 2, 800)
    assert (judge.settings["train"]["lr"], judge.settings["train"]["min_lr"]) == (9e-6, 9e-7)
    role, train = policy.roles[0], policy.settings["train"]
    assert (role.nodes, role.layout.tp, role.layout.pp, role.layout.dp) == (32, 8, 2, 16)
    assert (role.global_batch, role.micro_batch, train["seq_length"]) == (128, 1, 4096)
    named = ("steps", "lr", "min_lr", "warmup_steps", "constant_steps", "weight_decay")
    assert [train[key] for key in named] == [800, 6e-6, 5e-6, 1, 200, 0.01]
    assert policy.roles[0].model.chat_template == "extra_id"
    repeated = [part["from"]["stage"] for part in jobs["merged"].data["sources"]]
    assert repeated == ["oasst"] * 4 + ["helpsteer"] * 4
    assert jobs["steerlm-annotate"].data["rows"]["from"]["stage"] == "oasst"


@pytest.mark.parametrize("name", ["steerlm_llama2_70b", "steerlm_tiny", "steerlm2_llama2_70b"])
def test_the_recipes_have_twins_of_the_same_stages(name):
    large = compile_spec(shipped.specs() / f"{name}.yaml")
    small = compile_spec(shipped.specs() / f"{name}.yaml", tiny=True, here=True)
    assert list(stages(small)) == list(stages(large))
    for job in stages(small).values():
        steps = job.settings.get("train", {}).get("steps")
        assert steps is None or steps <= 10
