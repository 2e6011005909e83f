"""Jobs of an actor and a critic that serves it: what their scripts ask for and start, word for word."""

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from test_bundle import HOSTILE, directives, shellcheck

from specc import emit
from specc.plan import Layout

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def ppo(plan_of):
    """ppo(stages, placement=..., of the cluster...): a plan of jobs of two groups, after an ordinary one."""

    def ppo(stages=None, placement="hetjob", **more):
        plan = plan_of({"sft": (), **(stages or {"ppo": ("sft",), "report": ("ppo",)})}, **more)
        return replace(plan, jobs=tuple(grouped(job, placement) for job in plan.jobs))

    def grouped(job, placement):
        if not job.name.startswith("ppo"):
            return job
        model = job.roles[0]
        roles = (
            replace(model, name="actor", program="ppo", nodes=2, layout=Layout(tp=8, dp=2)),
            replace(model, name="reference", program="ppo", nodes=2, group="actor"),
            replace(model, name="critic", program="serve", nodes=1, gpus=4, layout=Layout(tp=4)),
        )
        return replace(job, roles=roles, nodes=3, placement=placement)

    return ppo


@pytest.mark.parametrize("placement", ["hetjob", "split"])
def test_the_scripts_are_the_golden_ones(ppo, placement, request):
    slurm = {"account": "lab", "partition": "batch", "cpus_per_task": 8, "mem": "0"}
    files = emit.bundle(ppo(placement=placement, slurm=slurm, secrets=("HF_TOKEN",)), "slurm")
    files = {f"{placement}/{name}": files[name] for name in ("01-ppo.sbatch", "submit.sh")}
    if placement == "hetjob":
        files["hetjob/run.sh"] = emit.bundle(ppo(secrets=("HF_TOKEN",)), "local")["run.sh"]
    for name, text in files.items():
        if request.config.getoption("--update"):
            (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name).write_text(text)
        assert text == (GOLDEN / name).read_text()


def test_every_component_asks_for_all_it_needs_before_the_first_command(ppo):
    slurm = {"account": "lab", "partition": "batch", "extra": ("--constraint=ib",)}
    script = emit.bundle(ppo(slurm=slurm), "slurm")["01-ppo.sbatch"]
    lines = directives(script)
    at = lines.index("hetjob")
    common = ["--job-name=trial-ppo", "--ntasks-per-node=1", "--account=lab", "--partition=batch"]
    common += ["--exclusive", "--time=04:00:00", "--no-requeue", "--open-mode=append", "--constraint=ib"]
    own = {"--nodes=2", "--gpus-per-node=8", "--signal=B:USR1@300"}, {"--nodes=1", "--gpus-per-node=4"}
    assert set(lines[:at]) == {*common, *own[0]}
    assert set(lines[at + 1 :]) == {*common, *own[1]}
    commands = [n for n, line in enumerate(script.splitlines()) if line and not line.startswith("#")]
    last = max(n for n, line in enumerate(script.splitlines()) if line.startswith("#SBATCH"))
    assert last < commands[0]


def test_a_split_job_asks_once_for_the_nodes_of_all_groups(ppo):
    script = emit.bundle(ppo(placement="split"), "slurm")["01-ppo.sbatch"]
    assert {"--nodes=3", "--gpus-per-node=8", "--requeue"} <= set(directives(script))
    assert "hetjob" not in directives(script)
    assert "srun --relative=0 --nodes=2" in script
    assert "srun --relative=2 --nodes=1" in script


def test_a_role_that_lives_in_another_s_processes_starts_none(ppo):
    script = emit.bundle(ppo(), "slurm")["01-ppo.sbatch"]
    assert script.count("-m runtime") == 2
    assert "groups=(actor critic)" in script


def test_attempts_wait_for_all_before_them_and_what_follows_for_any(ppo):
    submit = emit.bundle(ppo(), "slurm")["submit.sh"]
    assert 'submit_attempts 01 ppo 3 afterok:"${ids[00]}"\n' in submit
    assert 'submit 02 report --dependency="${any[01]}" --kill-on-invalid-dep=yes\n' in submit
    assert "gate" not in submit


def test_one_attempt_or_a_split_job_is_submitted_as_any_other(ppo):
    one = emit.bundle(ppo(slurm={"attempts": 1}), "slurm")["submit.sh"]
    split = emit.bundle(ppo(placement="split"), "slurm")["submit.sh"]
    assert "submit_attempts" not in one + split
    assert 'submit 02 report --dependency=afterok:"${ids[01]}" --kill-on-invalid-dep=yes\n' in one


def test_a_gate_stands_for_the_attempts_where_something_waits_for_more(ppo):
    stages = {"ppo": ("sft",), "ppo2": ("ppo",), "report": ("sft", "ppo2")}
    submit = emit.bundle(ppo(stages), "slurm")["submit.sh"]
    assert 'submit_attempts 02 ppo2 3 afterok:"${gates[01]}"\ngate 02\n' in submit
    assert '--dependency=afterok:"${ids[00]}":"${gates[02]}" --kill-on-invalid-dep=yes\n' in submit


def test_pyxis_hands_on_where_the_servers_are(ppo):
    container = {"engine": "pyxis", "image": "nemo"}
    script = emit.bundle(ppo(container=container), "slurm")["01-ppo.sbatch"]
    names = "NO_PROXY,PYTHONSAFEPATH,SPECC_ATTEMPT,SPECC_LISTEN,SPECC_PEERS,no_proxy"
    assert script.count(f"--container-env={names} ") == 2


def test_hosts_that_the_plan_exempts_from_proxies_stay_exempt(ppo):
    script = emit.bundle(ppo(env={"no_proxy": "internal,10.0.0.0/8"}), "slurm")["01-ppo.sbatch"]
    assert 'no_proxy=internal,10.0.0.0/8"$hosts"' in script


KINDS = (("slurm", "pyxis", "hetjob"), ("slurm", "apptainer", "split"), ("local", "none", "hetjob"))
"""What the fast lane looks at: every target, engine and placement once."""

HOSTILE_PLANS = [
    pytest.param(*plan, marks=() if plan in KINDS else pytest.mark.slow, id="-".join(plan))
    for plan in itertools.product(emit.TARGETS, ("none", "pyxis", "apptainer"), ("hetjob", "split"))
]


@pytest.mark.parametrize(("target", "engine", "placement"), HOSTILE_PLANS)
def test_scripts_with_hostile_values_are_sound(ppo, target, engine, placement):
    plan = ppo(
        {"ppo": ("sft",), "ppo2": ("ppo",), "report": ("ppo2", "sft")},
        placement,
        results=f"/r {HOSTILE}",
        python=HOSTILE,
        env={"ODD": HOSTILE, "no_proxy": HOSTILE},
        secrets=("HF_TOKEN",),
        container={"engine": engine, "image": HOSTILE, "mounts": (f"/a:{HOSTILE}",)},
        slurm={"account": HOSTILE, "extra": (f"--comment={HOSTILE}",)},
    )
    for name, text in emit.bundle(plan, target).items():
        if not name.endswith(".json"):
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)
            assert shellcheck(text) == "", name


def test_a_first_group_that_serves_is_refused(ppo):
    plan = ppo()
    job = plan.jobs[1]
    roles = (job.roles[2], *job.roles[:2])
    with pytest.raises(emit.EmitError, match="its first group `critic` serves, and would never end"):
        emit.bundle(replace(plan, jobs=(plan.jobs[0], replace(job, roles=roles))), "slurm")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"placement": "ray"}, "cannot be placed as `ray`"), ({"roles": "odd"}, "cannot be a file name")],
)
def test_what_cannot_be_written_is_refused(ppo, change, message):
    plan = ppo()
    job = plan.jobs[1]
    if "roles" in change:
        change = {"roles": (*job.roles[:2], replace(job.roles[2], name="a b; c"))}
    with pytest.raises(emit.EmitError, match=message):
        emit.bundle(replace(plan, jobs=(plan.jobs[0], replace(job, **change))), "slurm")
