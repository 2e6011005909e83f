"""What each command prints, where, and with which exit code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from specc import shipped

COMMANDS = ("check", "show", "plan", "compile", "run", "explain", "init", "ls", "schema", "completion")
SHIPPED = sorted(path.stem for path in shipped.specs().glob("*.yaml"))
PLACE = ("code", "severity", "message", "path", "file", "line", "column", "end_line", "end_column", "help")


# --- check


def test_a_sound_spec_ends_in_0_and_leaves_stdout_alone(specc, spec):
    ran = specc("check", spec)
    assert (ran.code, ran.out) == (0, "")
    assert f"{spec} is fine: 1 job" in ran.err


def test_a_mistake_ends_in_1_and_is_told_on_stderr(specc, spec):
    spec.write_text(spec.read_text().replace("train: {steps", "train: {stepz"))
    ran = specc("check", spec)
    assert (ran.code, ran.out) == (1, "")
    assert "unknown key `stepz`" in ran.err
    assert ran.err.endswith(f"{spec}: 1 error\n")


@pytest.mark.parametrize("how", [["--json"], ["--format", "json"]])
def test_diagnostics_as_json_are_data(specc, spec, how):
    spec.write_text(spec.read_text().replace("train: {steps", "train: {stepz"))
    ran = specc("check", spec, *how)
    (said,) = json.loads(ran.out)
    assert ran.code == 1
    assert tuple(said) == PLACE
    assert (said["severity"], said["path"], said["line"]) == ("error", "train.stepz", 6)


def test_a_sound_spec_as_json_is_an_empty_list(specc, spec):
    assert json.loads(specc("check", spec, "--json").out) == []


def test_a_model_that_does_not_fit_is_found_by_check(specc, spec):
    profile = "gpus: {type: rtx4090, per_node: 1}\nnodes: 1\nscheduler: none\n"
    (spec.parent / "clusters").mkdir()
    (spec.parent / "clusters/home.yaml").write_text(profile)
    ran = specc("check", spec, "--set", "model=llama3-70b", "--cluster", "home")
    assert ran.code == 1
    assert "error[P031]" in ran.err


def test_a_file_that_is_not_there_is_outside(specc):
    ran = specc("check", "nowhere.yaml")
    assert (ran.code, ran.err) == (3, "specc: cannot open nowhere.yaml: no such file or directory\n")


def test_the_name_of_a_shipped_spec_leads_to_init(specc):
    assert "`specc init sft_tiny` copies" in specc("check", "sft_tiny.yaml").err


def test_a_folder_is_no_spec(specc, tmp_path):
    assert specc("check", tmp_path).code == 3


# --- show, plan


def test_what_show_prints_resolves_to_itself(specc, spec):
    once = specc("show", spec).out
    spec.write_text(once)
    assert specc("show", spec).out == once


def test_show_prints_the_value_of_an_override(specc, spec):
    assert "  lr: 0.001\n" in specc("show", spec, "--set", "train.lr=1e-3").out


@pytest.mark.parametrize(("stop", "key"), [("spec", "algorithm"), ("graph", "stages"), ("plan", "jobs")])
def test_every_value_of_the_pipeline_can_be_printed(specc, spec, stop, key):
    ran = specc("show", spec, "--stop-after", stop, "--json")
    assert ran.code == 0
    assert key in json.loads(ran.out)


def test_the_plan_as_json_has_the_keys_of_the_contract(specc, spec):
    plan = json.loads(specc("plan", spec, "--json").out)
    assert set(plan) == {"format", "name", "jobs", "totals", "outlook"}
    (job,) = plan["jobs"]
    assert set(job) == {"name", "stage", "nodes", "depends_on", "roles"}
    (role,) = job["roles"]
    words = "name program nodes gpus layout micro_batch global_batch recompute implementation memory"
    assert set(role) == {*words.split(), "step_seconds", "why", "calibration"}
    assert set(role["layout"]) == {"tp", "pp", "vp", "cp", "ep", "etp", "dp"}
    memory = {"total_gib", "capacity_gib", "oom_probability", "parts", "worst_rank"}
    assert set(role["memory"]) == memory | {"phases", "unverified"}
    assert set(plan["totals"]) == {"gpu_hours", "wall_seconds", "jobs"}


def test_the_plan_as_a_table_is_on_stdout_and_the_next_step_on_stderr(specc, spec):
    ran = specc("plan", spec)
    assert "layout" in ran.out
    assert "next: specc compile" in ran.err


def test_a_cluster_on_the_command_line_wins_over_the_specs(specc, spec):
    assert "example-a100" in specc("plan", spec, "--cluster", "example-a100").out


def test_a_cluster_file_is_seen_from_where_one_stands(specc, spec, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine.yaml").write_text("gpus: {type: h200, per_node: 4}\n")
    assert "4 h200 a node" in specc("plan", spec, "--cluster", "elsewhere/mine.yaml").out


# --- compile


def test_a_bundle_goes_to_build_and_its_files_are_named(specc, spec, tmp_path):
    ran = specc("compile", spec, "--target", "slurm")
    assert ran.code == 0
    written = set(ran.out.split())
    assert written == {f"build/small/slurm/{p.name}" for p in (tmp_path / "build/small/slurm").iterdir()}
    assert {"plan.json", "submit.sh", "00-sft.sbatch", "provenance.json"} == {Path(p).name for p in written}


def test_provenance_says_who_and_when_and_nothing_else_does(specc, spec, tmp_path):
    for folder in ("a", "b"):
        specc("compile", spec, "--target", "slurm", "-o", folder)
    said = json.loads((tmp_path / "a/provenance.json").read_text())
    assert {"commit", "dirty", "user", "host", "time"} <= set(said)
    for path in (tmp_path / "a").iterdir():
        if path.name != "provenance.json":
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_scripts_of_an_earlier_bundle_go_and_other_files_stay(specc, spec, tmp_path):
    two = "name: small\ncluster: example-h100\nstages:\n" + "".join(
        f"  {name}:\n    algorithm: sft\n    model: llama3-8b\n    data: {{train: 'builtin:arithmetic'}}\n"
        f"    train: {{steps: 20}}\n"
        for name in ("one", "two")
    )
    (tmp_path / "two.yaml").write_text(two)
    assert specc("compile", tmp_path / "two.yaml", "--target", "slurm", "-o", "out").code == 0
    (tmp_path / "out/notes.txt").write_text("mine")
    assert specc("compile", spec, "--target", "slurm", "-o", "out").code == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"plan.json", "submit.sh", "00-sft.sbatch", "provenance.json", "notes.txt"}


def test_a_spec_with_an_error_writes_nothing(specc, spec, tmp_path):
    assert specc("compile", spec, "--target", "slurm", "--set", "train.lr=fast", "-o", "out").code == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_outside(specc, spec, tmp_path):
    (tmp_path / "file").touch()
    ran = specc("compile", spec, "--target", "slurm", "-o", "file")
    assert ran.code == 3
    assert ran.err.splitlines()[-1].startswith("specc: cannot write file")


# --- run


def test_a_spec_that_is_too_large_for_this_machine_names_its_twin(specc, spec):
    ran = specc("run", spec, "--set", "nodes=32", "--set", "model=llama3-70b")
    assert ran.code == 1
    assert f"its twin can: specc run {spec} --tiny" in ran.err


def test_data_that_is_absent_is_an_error_only_when_it_is_to_run_here(specc, spec):
    absent = ("--set", "data.train=nowhere.jsonl", "--set", "model=tiny-llama")
    assert "warning[" in specc("check", spec, *absent).err
    ran = specc("run", spec, *absent)
    assert ran.code == 1
    assert "error[" in ran.err


def test_a_stage_that_does_not_exist_cannot_be_begun_anew(specc, spec):
    ran = specc("run", spec, "--tiny", "--fresh", "rm")
    last = ran.err.splitlines()[-1]  # behind what stands in for what in the twin
    assert (ran.code, last) == (2, "specc: --fresh rm: there is no such stage; this spec has sft")


def test_without_the_runtimes_packages_run_says_what_to_install(specc, spec, monkeypatch):
    monkeypatch.setattr("specc.launch.missing_packages", lambda: ["torch", "megatron-core"])
    ran = specc("run", spec, "--tiny")
    assert ran.code == 3
    assert "pip install 'specc[runtime]'" in ran.err


# --- explain, init, ls, schema, completion


def test_a_code_is_explained(specc):
    ran = specc("explain", "p031")
    assert ran.code == 0
    assert ran.out.startswith("P031: nothing fits\n")


def test_an_unknown_code_is_a_wrong_call(specc):
    assert specc("explain", "P999").code == 2


@pytest.mark.parametrize(
    ("path", "come_from"),
    [
        ("train.lr", ":6:"),
        ("train.clip", "the default"),
        ("parallel.tp", "the planner"),
        ("seed", "the default"),
    ],
)
def test_a_value_is_explained_by_where_it_comes_from(specc, spec, path, come_from):
    ran = specc("explain", spec, path, "--json")
    assert ran.code == 0
    assert come_from in json.loads(ran.out)["from"]


def test_an_override_is_where_a_value_comes_from(specc, spec):
    ran = specc("explain", spec, "train.lr", "--set", "train.lr=1e-3")
    assert "--set train.lr=1e-3" in ran.out


def test_a_misspelt_path_is_guessed(specc, spec):
    ran = specc("explain", spec, "train.learning_rate")
    assert ran.code == 2
    assert specc("explain", spec, "train.l_r").err.endswith("did you mean `train.lr`?\n")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_spec_is_listed_copied_and_sound(specc, name, tmp_path):
    assert name in [entry["name"] for entry in json.loads(specc("ls", "--json").out)]
    assert specc("init", name, "mine").code == 0
    assert specc("check", tmp_path / "mine" / f"{name}.yaml").code == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_spec_says_its_paper_its_hardware_and_what_it_produces(name):
    head = (shipped.specs() / f"{name}.yaml").read_text().split("\nname:")[0]
    assert all(f"\n# {word}" in head for word in ("paper ", "hardware ", "produces "))


def test_init_overwrites_nothing(specc, tmp_path):
    (tmp_path / "sft_tiny.yaml").write_text("mine")
    assert specc("init", "sft_tiny").code == 3
    assert (tmp_path / "sft_tiny.yaml").read_text() == "mine"


def test_init_brings_the_profile_that_is_to_be_filled_in(specc, tmp_path):
    specc("init", "sft_llama3_70b", "mine")
    assert (tmp_path / "mine/clusters/example-h100.yaml").exists()


def test_the_schema_is_draft_07(specc):
    assert "draft-07" in json.loads(specc("schema").out)["$schema"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_completion_script_knows_every_command(specc, shell):
    script = specc("completion", shell).out
    assert all(command in script for command in COMMANDS)


# --- manners


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(specc, command):
    ran = specc(command, "--help")
    assert ran.code == 0
    assert re.search(rf"examples:\n +.*specc {command}", ran.out)


@pytest.mark.parametrize(
    "words", [["chek"], ["check"], ["plan", "--nonsense", "x"], ["compile", "x.yaml"], []]
)
def test_a_wrong_call_ends_in_2(specc, words):
    ran = specc(*words)
    assert ran.code == 2
    assert "Traceback" not in ran.err


def test_a_command_that_was_misspelt_is_guessed(specc):
    assert "did you mean `check`?" in specc("chek").err


def test_a_defect_of_specc_is_said_in_one_line(specc, spec, monkeypatch):
    monkeypatch.setattr("specc.cli.tables.plan_text", lambda *_: 1 / 0)
    monkeypatch.delenv("SPECC_DEBUG", raising=False)
    ran = specc("plan", spec)
    assert ran.code == 70
    assert ran.err.splitlines()[-1].startswith(
        "specc: this is a bug in specc, not in your spec: ZeroDivisionError"
    )


def process(*words, **env):
    code = "from specc.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(os.fspath, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("env", "colored"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colour_is_for_terminals_and_for_who_forces_it(spec, env, colored):
    spec.write_text("name: small\n")
    clean = dict.fromkeys(("NO_COLOR", "FORCE_COLOR"), "") | env
    assert ("\x1b[" in process("check", spec, **clean).stderr) is colored


def test_a_reader_that_has_enough_is_no_mistake(spec):
    code = "from specc.cli import main; main()"
    shell = f"{sys.executable} -c '{code}' show {spec} | head -n 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert ran.stdout.split()[-1] in ("0", "141")
    assert "Traceback" not in ran.stderr
    assert "BrokenPipe" not in ran.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(("where", "code"), [("/dev/full", "3"), ("&-", "0")])
def test_output_that_finds_no_room_or_no_reader_is_no_defect(spec, where, code):
    python = f"{sys.executable} -c 'from specc.cli import main; main()'"
    shell = f"{python} show {spec} >{where}; echo $? >&2"
    ran = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert ran.stderr.split()[-1] == code
    assert "bug" not in ran.stderr


def test_a_terminal_without_the_letters_gets_the_rest(spec):
    ran = process("plan", spec, "--set", "nodes=2", PYTHONIOENCODING="ascii")
    assert ran.returncode == 0
    assert "total:" in ran.stdout


def test_another_hash_seed_folder_zone_and_locale_give_the_same_bytes(spec, tmp_path):
    texts = []
    for number, env in enumerate(
        [
            {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C"},
            {
                "PYTHONHASHSEED": "42",
                "TZ": "Asia/Tokyo",
                "LC_ALL": "C.UTF-8",
                "USER": "somebody",
                "COLUMNS": "40",
            },
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        code = f"import os; os.chdir({str(folder)!r}); from specc.cli import main; main()"
        words = ["compile", os.fspath(spec), "--target", "slurm", "-o", "out"]
        ran = subprocess.run(
            [sys.executable, "-c", code, *words], env={**os.environ, **env}, capture_output=True
        )
        assert ran.returncode == 0, ran.stderr
        texts.append(
            {p.name: p.read_bytes() for p in (folder / "out").iterdir() if p.name != "provenance.json"}
        )
    assert texts[0] == texts[1]


def test_a_cluster_named_on_the_command_line_is_pointed_at_there(specc, spec):
    ran = specc("check", spec, "--cluster", "nowhere")
    assert ran.code == 1
    assert " --> --cluster:1:11\n" in ran.err
    assert "1 | --cluster nowhere\n" in ran.err


def test_the_command_that_comes_next_can_be_typed_as_it_stands(specc, spec, tmp_path):
    odd = spec.rename(tmp_path / "my spec.yaml")
    assert specc("check", odd).err.endswith(f"next: specc plan '{odd}'\n")
    assert specc("compile", odd, "--target", "local", "-o", "my bundle").err.endswith(
        "bash 'my bundle/run.sh'\n"
    )
