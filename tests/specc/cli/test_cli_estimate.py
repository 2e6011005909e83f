"""`specc estimate`: its JSON is the contract's, and what is asked wrongly is refused by name."""

import json

import pytest

LAYOUT = [
    "--model",
    "llama3-70b",
    "--gpu",
    "h100-80gb",
    "--gpus",
    "64",
    "--tp",
    "8",
    "--pp",
    "4",
    "--seq",
    "4096",
]


def estimate(specc, *words):
    ran = specc("estimate", *words, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_the_json_has_the_keys_of_the_contract(specc):
    answer = estimate(specc, *LAYOUT, "--gbs", "128")
    assert set(answer) == {
        "fits",
        "memory",
        "step_seconds",
        "tokens_per_second_per_gpu",
        "tflops_per_gpu",
        "problems",
        "calibrated",
    }
    memory = {"total_gib", "allocated_gib", "capacity_gib", "oom_probability", "parts", "worst_rank"}
    assert set(answer["memory"]) == memory | {"lean_gib"}
    assert answer["calibrated"] is False
    assert answer["fits"] is True
    assert answer["problems"] == []
    assert sum(answer["memory"]["parts"].values()) == pytest.approx(answer["memory"]["total_gib"], abs=0.01)
    assert answer["memory"]["allocated_gib"] < answer["memory"]["total_gib"]


def test_people_get_a_table_and_a_verdict(specc):
    ran = specc("estimate", *LAYOUT)
    assert ran.code == 0
    assert "llama3-70b, pretrain in bf16, on 64 x h100-80gb: TP8·PP4·DP2" in ran.out
    assert "\nfits: runs out of memory with a probability of 0%" in ran.out
    assert "predictions: not calibrated" in ran.out


def test_what_is_not_said_is_read_both_ways_and_that_is_said(specc):
    words = ["--model", "llama3.1-405b", "--gpu", "h100", "--gpus", "1024", "--tp", "8", "--pp", "8"]
    words += ["--seq", "8192", "--gbs", "256"]
    memory = estimate(specc, *words)["memory"]
    assert memory["lean_gib"] < memory["capacity_gib"] < memory["total_gib"]
    said = specc("estimate", *words).out
    assert "\nmay fit: runs out of memory with a probability of" in said
    assert f"{memory['lean_gib']:.1f} GiB if what is not said saves memory" in said


@pytest.mark.parametrize(("gpus", "tp", "problems"), [(6, 2, []), (12, 4, []), (10, 4, ["P011", "P015"])])
def test_gpus_that_do_not_fill_their_nodes_fill_them_as_evenly_as_can_be(specc, gpus, tp, problems):
    words = ["--model", "llama3-8b", "--gpu", "h100", "--gpus", str(gpus), "--tp", str(tp)]
    assert estimate(specc, *words)["problems"] == problems


def test_a_layout_that_breaks_rules_is_not_said_to_fit(specc):
    said = specc("estimate", "--model", "llama3-8b", "--gpu", "h100", "--gpus", "8", "--ep", "2").out
    assert "\ncannot run as it is: 1 problem below" in said


def test_a_layout_that_breaks_rules_is_answered_with_their_codes(specc):
    answer = estimate(specc, "--model", "llama3-70b", "--gpu", "h100-80gb", "--gpus", "12", "--tp", "7")
    assert answer["fits"] is False
    assert {"P011", "P012", "P013"} <= set(answer["problems"])
    ran = specc("estimate", "--model", "llama3-70b", "--gpu", "h100-80gb", "--gpus", "12", "--tp", "7")
    assert ran.code == 0
    assert "problem[P012]: 64 attention heads do not divide by tp 7" in ran.out


def test_layers_that_do_not_divide_are_dealt_unevenly(specc):
    words = ["--model", "llama3.1-405b", "--gpu", "h200", "--gpus", "512", "--tp", "8", "--pp", "16"]
    assert estimate(specc, *words, "--gbs", "64")["problems"] == []
    assert "layers of each stage: 7, 8, 8," in specc("estimate", *words).out


def test_fixed_segments_are_likelier_to_run_out(specc):
    words = ["--model", "llama3-8b", "--gpu", "a100-80gb", "--gpus", "8", "--tp", "2", "--seq", "8192"]
    words += ["--mbs", "2", "--recompute", "none"]
    grown, fixed = estimate(specc, *words), estimate(specc, *words, "--no-expandable-segments")
    assert grown["memory"]["total_gib"] == fixed["memory"]["total_gib"]
    assert grown["memory"]["oom_probability"] < fixed["memory"]["oom_probability"]


def test_recomputation_that_is_not_said_may_be_any(specc):
    """What is said to hold everything is judged as that; what says nothing is read as runs usually are."""
    words = ["--model", "llama3.1-405b", "--gpu", "h100", "--gpus", "1024", "--tp", "8", "--pp", "8"]
    words += ["--seq", "8192", "--gbs", "256"]
    unsaid, none = estimate(specc, *words), estimate(specc, *words, "--recompute", "none")
    assert unsaid["memory"]["total_gib"] == none["memory"]["total_gib"]
    assert unsaid["memory"]["oom_probability"] < none["memory"]["oom_probability"]


def test_a_config_file_is_a_model(specc, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    by_file = estimate(specc, "--config", "config.json", "--gpu", "h100", "--gpus", "8", "--tp", "8")
    by_name = estimate(specc, "--model", "llama3-8b", "--gpu", "h100", "--gpus", "8", "--tp", "8")
    assert by_file == by_name


CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": 0}, "layers"),
        ({"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_a_config_with_absurd_numbers_is_refused_by_key(specc, tmp_path, change, key):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | change))
    ran = specc("estimate", "--config", "config.json", "--gpu", "h100", "--gpus", "8", "--json")
    assert ran.code == 1
    assert ran.out == ""
    assert key in ran.err


def test_a_config_with_latent_attention_is_read_and_refused_by_key(specc, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deepseek_v3", "hidden_size": 64}))
    ran = specc("estimate", "--config", "config.json", "--gpu", "h100", "--gpus", "8")
    assert ran.code == 1
    assert "`num_hidden_layers` is missing" in ran.err


def test_a_config_that_is_absent_is_missing_outside(specc):
    ran = specc("estimate", "--config", "nowhere.json", "--gpu", "h100", "--gpus", "8")
    assert ran.code == 3
    assert "cannot open nowhere.json" in ran.err


WRONG = [
    (["--model", "llama3-70", "--gpu", "h100", "--gpus", "8"], "did you mean `llama3-70b`?"),
    (["--model", "llama3-8b", "--gpu", "h101", "--gpus", "8"], "unknown GPU `h101`"),
    (["--model", "llama3-8b", "--gpus", "8"], "name a GPU with --gpu"),
    (["--model", "llama3-8b", "--gpu", "h100", "--gpus", "0"], "whole number from 1"),
    (["--model", "llama3-8b", "--gpu", "h100", "--gpus", "8", "--tp", "-2"], "--tp"),
    (["--model", "llama3-8b", "--gpu", "h100", "--gpus", "8", "--phase", "critik"], "did you mean `critic`?"),
    (["--gpu", "h100", "--gpus", "8"], "--model --config"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_wrong_question_is_a_usage_error(specc, words, said):
    ran = specc("estimate", *words)
    assert ran.code == 2
    assert said in ran.err


def test_an_unknown_gpu_is_given_by_flags(specc):
    words = ["--model", "llama3-8b", "--gpus", "8", "--tp", "8"]
    small = estimate(specc, *words, "--gpu-memory", "20", "--gpu-tflops", "100")
    large = estimate(specc, *words, "--gpu-memory", "60", "--gpu-tflops", "300")
    assert small["memory"]["capacity_gib"] == 20
    assert large["memory"]["oom_probability"] < small["memory"]["oom_probability"]
    assert large["step_seconds"] < small["step_seconds"]


def test_a_model_that_is_only_planned_for_is_known_by_name(specc):
    words = ["--gpu", "h100", "--gpus", "1024", "--tp", "2", "--pp", "16", "--ep", "64", "--gbs", "8192"]
    answer = estimate(specc, "--model", "deepseek-v3", *words, "--etp", "1")
    assert answer["problems"] == []
