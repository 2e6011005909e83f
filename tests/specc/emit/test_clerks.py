"""A clerk's scripts: one plain process on a part of a node, without a GPU and without torchrun."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from specc import emit
from specc.plan import NO_MODEL, Layout, Role

CLERK = Role("clerk", "above", 1, 0, Layout(), 8, 8, NO_MODEL, trains=False)

STAND_IN = """
import json, os, pathlib, sys
plan, job, role = sys.argv[1:]
stage = pathlib.Path(plan).parent / job
(stage / "told.json").write_text(json.dumps({"role": role, "attempt": os.environ["SPECC_ATTEMPT"]}))
if "fails" in job:
    sys.exit(3)
known = {j["name"]: j["hash"] for j in json.load(open(plan))["jobs"]}
(stage / "output.json").write_text(json.dumps({"hash": known[job]}))
"""


@pytest.fixture
def clerks(plan_of):
    """clerks({stage: after}, settings of the cluster...): a plan of clerks."""

    def clerks(stages, **cluster):
        plan = plan_of(stages, **cluster)
        return replace(plan, jobs=tuple(replace(job, nodes=1, roles=(CLERK,)) for job in plan.jobs))

    return clerks


def directives(script):
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def commands(script):
    return "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("#"))


@pytest.fixture
def script(clerks):
    slurm = {"account": "lab", "cpus_per_task": 64, "mem": "0", "exclusive": True}
    return emit.bundle(clerks({"good": ()}, slurm=slurm), "slurm")["00-good.sbatch"]


def test_it_asks_for_a_part_of_one_node_and_no_gpu(script):
    asked = directives(script)
    assert "--nodes=1" in asked
    assert "--ntasks-per-node=1" in asked
    assert "--account=lab" in asked
    assert not [line for line in asked if "gpu" in line or line.startswith("--exclusive")]
    assert "--cpus-per-task=64" not in asked
    assert "--mem=0" not in asked  # that is all of a node's


def test_it_starts_the_program_itself(script):
    text = commands(script)
    assert "torch.distributed.run" not in text
    assert "MASTER_PORT" not in text
    assert '-m runtime "$run/plan.json" good clerk' in " ".join(text.split())
    assert "one process without a GPU" in script


@pytest.mark.parametrize("engine", ["pyxis", "apptainer"])
def test_a_container_gets_no_gpu_either(clerks, engine):
    script = emit.bundle(clerks({"good": ()}, container={"engine": engine, "image": "i.sif"}), "slurm")
    text = script["00-good.sbatch"]
    assert " --nv" not in text
    assert "i.sif" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_stages_of_a_model_beside_it_keep_their_torchrun(plan_of):
    plan = plan_of({"good": (), "sft": ("good",)})
    first, second = plan.jobs
    files = emit.bundle(replace(plan, jobs=(replace(first, nodes=1, roles=(CLERK,)), second)), "slurm")
    assert "torch.distributed.run" not in commands(files["00-good.sbatch"])
    assert "torch.distributed.run" in commands(files["01-sft.sbatch"])


@pytest.fixture
def local(clerks, tmp_path):
    """local({stage: after}): run these clerks; `runtime` is a stand-in, and there is no torchrun."""
    package = tmp_path / "fake" / "runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)

    def local(stages):
        plan = clerks(stages, device="cpu", python=sys.executable, path=str(tmp_path / "fake"))
        emit.write(emit.bundle(plan, "local"), tmp_path / "bundle")
        command = ["bash", str(tmp_path / "bundle" / "run.sh"), str(tmp_path / "run")]
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)

    return local


def test_on_this_machine_it_is_started_without_torchrun_too(local, tmp_path):
    done = local({"good": ()})
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "run" / "good" / "told.json").read_text())
    assert told == {"role": "clerk", "attempt": "1"}
    assert "stage good is finished" in done.stdout


def test_what_a_clerk_ends_with_is_what_the_script_ends_with(local, tmp_path):
    done = local({"fails": (), "after": ("fails",)})
    assert done.returncode == 3
    assert not (tmp_path / "run" / "after").exists()
