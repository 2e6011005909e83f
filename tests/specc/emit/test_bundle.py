"""A plan becomes files: what each script asks for, passes on, and leaves alone."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from specc import emit
from specc.emit.bundle import clock, job_environment, mounts
from specc.plan import from_json


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def srun(script: str) -> str:
    """The srun command of a script as one line."""
    text = script.replace("\\\n", " ")
    start = 'env "${environment[@]}" '
    return next(
        " ".join(line.split()).removeprefix(start) for line in text.splitlines() if line.startswith(start)
    )


def test_a_bundle_for_slurm_is_the_plan_a_script_per_job_and_a_submit_script(plan_of):
    plan = plan_of({"sft": (), "more": ("sft",)})
    files = emit.bundle(plan, "slurm")
    assert list(files) == ["plan.json", "submit.sh", "00-sft.sbatch", "01-more.sbatch"]
    assert from_json(files["plan.json"]) == plan


def test_a_bundle_for_this_machine_is_the_plan_and_one_script(plan_of):
    assert list(emit.bundle(plan_of(), "local")) == ["plan.json", "run.sh"]


def test_an_unknown_target_is_refused(plan_of):
    with pytest.raises(emit.EmitError, match="no target `ray`; it is one of slurm, local"):
        emit.bundle(plan_of(), "ray")


def test_the_directives_come_before_every_command(plan_of):
    script = emit.bundle(plan_of(), "slurm")["00-sft.sbatch"]
    first_command = next(n for n, line in enumerate(script.splitlines()) if line and not line.startswith("#"))
    last = max(n for n, line in enumerate(script.splitlines()) if line.startswith("#SBATCH"))
    assert last < first_command


def test_the_directives_say_what_the_plan_and_the_profile_say(plan_of):
    slurm = {"account": "lab", "partition": "batch", "qos": "high", "mem": "0", "cpus_per_task": 16}
    plan = plan_of(slurm={**slurm, "extra": ("--constraint=ib", "--comment=two words", "-L tool=1")})
    assert directives(emit.bundle(plan, "slurm")["00-sft.sbatch"]) == [
        "--job-name=trial-sft",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=16",
        "--gpus-per-node=8",
        "--mem=0",
        "--account=lab",
        "--partition=batch",
        "--qos=high",
        "--exclusive",
        "--time=04:00:00",
        "--signal=B:USR1@300",
        "--requeue",
        "--open-mode=append",
        "--constraint=ib",
        '--comment="two words"',
        "-L tool=1",
    ]


@pytest.mark.parametrize(
    ("flag", "kind", "line"),
    [
        ("gpus-per-node", "", ["--gpus-per-node=8"]),
        ("gpus-per-node", "h100", ["--gpus-per-node=h100:8"]),
        ("gres", "", ["--gres=gpu:8"]),
        ("gres", "h100", ["--gres=gpu:h100:8"]),
        ("none", "h100", []),
    ],
)
def test_gpus_are_asked_for_in_the_site_s_own_form(plan_of, flag, kind, line):
    plan = plan_of(slurm={"gpus_flag": flag, "gpu_type": kind})
    assert [d for d in directives(emit.bundle(plan, "slurm")["00-sft.sbatch"]) if "gpu" in d] == line


def test_a_cluster_of_cpus_is_asked_for_no_gpu(plan_of):
    script = emit.bundle(plan_of(device="cpu"), "slurm")["00-sft.sbatch"]
    assert "gpu" not in "".join(directives(script))


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(59, "00:00:59"), (14400, "04:00:00"), (86400, "1-00:00:00"), (100000, "1-03:46:40")],
)
def test_times_are_written_as_slurm_reads_them(seconds, written):
    assert clock(seconds) == written


def test_srun_repeats_what_it_does_not_take_from_the_job(plan_of):
    line = srun(emit.bundle(plan_of(slurm={"cpus_per_task": 16}), "slurm")["00-sft.sbatch"])
    assert line.startswith(
        "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=16 --kill-on-bad-exit=1"
    )
    assert "--rdzv-backend=static" in line
    assert '--node-rank="$SLURM_NODEID"' in line


def test_pyxis_gets_image_mounts_and_the_name_of_every_variable(plan_of):
    plan = plan_of(
        container={"engine": "pyxis", "image": "nvcr.io#nvidia/nemo:25.02", "mounts": ("/data:/data:ro",)},
        env={"HF_HOME": "/data/hf"},
        secrets=("HF_TOKEN",),
        path="/opt/specc",
        job={"env": {"NCCL_ALGO": "Tree"}},
    )
    line = srun(emit.bundle(plan, "slurm")["00-sft.sbatch"])
    assert "--container-image=nvcr.io#nvidia/nemo:25.02 " in line.replace("'", "")
    assert (
        '--container-mounts=/data:/data:ro,/opt/specc:/opt/specc,/results:/results,"$home:$home,$run:$run" '
        in line
    )
    assert "--container-env=HF_HOME,HF_TOKEN,NCCL_ALGO,PYTHONPATH,PYTHONSAFEPATH,SPECC_ATTEMPT " in line


def test_apptainer_gets_binds_on_the_line_and_variables_in_the_environment(plan_of):
    plan = plan_of(
        container={"engine": "apptainer", "image": "/images/my nemo.sif", "mounts": ("/data:/data",)},
        secrets=("HF_TOKEN",),
    )
    script = emit.bundle(plan, "slurm")["00-sft.sbatch"]
    assert "apptainer exec --nv --bind /data:/data --bind /results:/results" in srun(script)
    assert "'/images/my nemo.sif' bash -c" in srun(script)
    assert 'environment+=("${environment[@]/#/APPTAINERENV_}")\n' in script
    assert 'export APPTAINERENV_HF_TOKEN="$HF_TOKEN"\n' in script


def test_without_a_container_nothing_speaks_of_one(plan_of):
    script = emit.bundle(plan_of(), "slurm")["00-sft.sbatch"]
    assert "container" not in script
    assert "apptainer" not in script


def test_a_job_s_variables_win_over_the_profile_s_and_the_path_comes_first(plan_of):
    plan = plan_of(env={"A": "1", "PYTHONPATH": "/extra"}, path="/opt/specc", job={"env": {"A": "2"}})
    assert job_environment(plan.cluster, plan.jobs[0]) == {
        "A": "2",
        "PYTHONPATH": "/opt/specc:/extra",
        "PYTHONSAFEPATH": "1",
    }


def test_only_folders_that_no_mount_covers_are_mounted_too(plan_of):
    given = {"engine": "pyxis", "mounts": ("/lustre:/lustre", "/home/me:/inside:ro")}
    plan = plan_of(container=given, results="/lustre/runs", cache="/lustres", path="/inside/specc")
    assert mounts(plan.cluster) == ("/lustre:/lustre", "/home/me:/inside:ro", "/lustres:/lustres")


def test_a_chain_waits_for_the_jobs_it_needs_and_dies_with_them(plan_of):
    plan = plan_of({"a": (), "b": (), "c": ("a", "b")})
    submit = emit.bundle(plan, "slurm")["submit.sh"]
    assert 'submit 02 c --dependency=afterok:"${ids[00]}":"${ids[01]}" --kill-on-invalid-dep=yes' in submit
    assert "\nsubmit 01 b\n" in submit


def test_no_value_of_a_secret_can_be_written_since_only_names_are_known(plan_of):
    files = emit.bundle(plan_of(secrets=("HF_TOKEN", "WANDB_API_KEY")), "slurm")
    assert "secrets=(HF_TOKEN WANDB_API_KEY)" in files["submit.sh"]
    assert "export_names=HOME,LANG,LOGNAME,PATH,SHELL,USER,HF_TOKEN,WANDB_API_KEY\n" in files["submit.sh"]


HOSTILE = "x'; touch pwned; $(touch pwned) `touch pwned` \" \\ #"


@pytest.mark.parametrize("target", emit.TARGETS)
@pytest.mark.parametrize("engine", ["none", "pyxis", "apptainer"])
def test_scripts_with_hostile_values_are_sound_and_run_none_of_them(plan_of, tmp_path, target, engine):
    plan = plan_of(
        {"sft": (), "more": ("sft",)},
        results=f"/r {HOSTILE}",
        python=HOSTILE,
        path=HOSTILE,
        env={"ODD": HOSTILE},
        secrets=("HF_TOKEN",),
        container={"engine": engine, "image": HOSTILE, "mounts": (f"/a:{HOSTILE}",)},
        slurm={"account": HOSTILE, "extra": (f"--comment={HOSTILE}",)},
    )
    plan = replace(plan, jobs=tuple(replace(job, name=f"{job.name}-{HOSTILE}") for job in plan.jobs[:1]))
    files = emit.bundle(plan, target)
    for name, text in files.items():
        if name.endswith(".json"):
            continue
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        assert shellcheck(text) == ""
        quoted = "\n".join(
            line for line in text.splitlines() if "touch pwned" in line and "#SBATCH" not in line
        )
        subprocess.run(["bash", "-c", f"{_as_echo(quoted)}"], cwd=tmp_path, check=False, capture_output=True)
    assert not (tmp_path / "pwned").exists()


def _as_echo(lines: str) -> str:
    """Run the lines that hold user strings with every command replaced by one that does nothing."""
    return "srun() { :; }; apptainer() { :; }; run_stage() { :; }; run=/r\n" + lines


def shellcheck(text: str) -> str:
    """What shellcheck says at its default level but for its known false findings; empty when it is absent."""
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed")
    flags = ["--shell=bash", "--exclude=SC1091,SC2016,SC2317,SC2329", "-"]
    return subprocess.run([program, *flags], input=text, capture_output=True, text=True).stdout


def test_a_stage_that_cannot_be_a_file_name_is_refused(plan_of):
    plan = plan_of({"a/b": ()})
    with pytest.raises(emit.EmitError, match="cannot be a file name"):
        emit.bundle(plan, "slurm")


def test_writing_makes_scripts_executable_and_removes_those_of_an_earlier_bundle(plan_of, tmp_path):
    emit.write(emit.bundle(plan_of({"a": (), "b": ("a",)}), "slurm"), tmp_path)
    (tmp_path / "02-mine.sbatch").write_text("#!/bin/bash\n")
    names = emit.write(emit.bundle(plan_of({"a": ()}), "slurm"), tmp_path)
    assert names == ["plan.json", "submit.sh", "00-a.sbatch"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00-a.sbatch",
        "02-mine.sbatch",
        "plan.json",
        "submit.sh",
    ]
    assert (tmp_path / "submit.sh").stat().st_mode & 0o111
    assert not (tmp_path / "plan.json").stat().st_mode & 0o111


def test_the_same_plan_gives_the_same_bytes(plan_of):
    for target in emit.TARGETS:
        assert emit.bundle(plan_of(), target) == emit.bundle(plan_of(), target)


@pytest.mark.parametrize(
    ("data", "start"), [("", "$SLURM_SUBMIT_DIR"), ("/lustre/my data", "'/lustre/my data'")]
)
def test_relative_paths_start_where_the_profile_says_or_where_it_was_submitted(plan_of, data, start):
    script = emit.bundle(plan_of(data=data), "slurm")["00-sft.sbatch"]
    assert f"\nhome={start} " in script
    assert 'cd "$1" || exit 3;' in srun(script)
