"""From a plan to the files of a bundle.

`Script` holds what one script needs, ready to be printed; the functions around it say how a plan's
values become flags of sbatch and srun. The templates have nothing left to decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from specc.emit.render import EmitError, directive, plain_name, render, variable
from specc.plan import Cluster, Job, Plan, Role, to_json

TARGETS = ("slurm", "local")

_MADE_BY = "# Made by specc "
_STARTERS = ("submit.sh", "run.sh")
_OUR_SCRIPT = re.compile(r"\d\d-.+\.sbatch")


@dataclass(frozen=True)
class Script:
    """One job as its script prints it."""

    number: str  # 00, 01, ... in the order of the plan
    file: str  # NN-STAGE.sbatch
    job: Job
    role: Role
    directives: tuple[str, ...]  # each the rest of an #SBATCH line
    environment: tuple[tuple[str, str], ...]  # (name, value), later ones win
    passed: tuple[str, ...]  # names of all variables that must reach the program, secrets included
    mounts: tuple[str, ...]  # SOURCE:TARGET[:OPTIONS] that the profile names
    after: tuple[str, ...]  # numbers of the jobs this one waits for
    save_seconds: int  # how long a job that was told to stop may take to save
    tick_seconds: int  # how often the script looks at the heartbeat


def bundle(plan: Plan, target: str) -> dict[str, str]:
    """All files but provenance.json, by relative path. EmitError when a value cannot be written."""
    plain_name(plan.name, "the experiment's name")
    scripts = _scripts(plan)
    files = {"plan.json": to_json(plan)}
    if target == "slurm":
        files["submit.sh"] = render("submit.sh.j2", plan=plan, scripts=scripts)
        for script in scripts:
            files[script.file] = render(
                "job.sbatch.j2", plan=plan, script=script, job=script.job, role=script.role
            )
    elif target == "local":
        files["run.sh"] = render("run.sh.j2", plan=plan, scripts=scripts)
    else:
        raise EmitError(f"there is no target `{target}`; it is one of {', '.join(TARGETS)}")
    return files


def write(files: Mapping[str, str], folder: Path) -> list[str]:
    """Put a bundle on disk, scripts executable; the names written, in order. OSError when it cannot.

    Scripts that only an earlier bundle in this folder had are removed: nobody should submit them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.iterdir()):
        if (
            _OUR_SCRIPT.fullmatch(old.name)
            and old.name not in files
            and _MADE_BY in old.read_text(errors="replace")
        ):
            old.unlink()
    for name, text in files.items():
        path = folder / name
        path.write_text(text, encoding="utf-8", newline="\n")
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    return list(files)


def _scripts(plan: Plan) -> tuple[Script, ...]:
    numbers = {job.name: f"{index:02d}" for index, job in enumerate(plan.jobs)}
    return tuple(_script(plan, job, numbers) for job in plan.jobs)


def _script(plan: Plan, job: Job, numbers: Mapping[str, str]) -> Script:
    if len(job.roles) != 1:
        raise EmitError(f"job `{job.name}` has {len(job.roles)} roles; this version writes scripts for one")
    role = job.roles[0]
    stage = plain_name(job.stage, "the stage")
    environment = job_environment(plan.cluster, job)
    return Script(
        number=numbers[job.name],
        file=f"{numbers[job.name]}-{stage}.sbatch",
        job=job,
        role=role,
        directives=directives(plan, job, role),
        environment=tuple(environment.items()),
        passed=tuple(sorted({*environment, *map(variable, plan.cluster.secrets), "SPECC_ATTEMPT"})),
        mounts=mounts(plan.cluster),
        after=tuple(numbers[name] for name in job.depends_on),
        save_seconds=max(30, plan.cluster.slurm.signal_seconds * 3 // 4),
        tick_seconds=min(10, max(1, job.heartbeat_seconds // 4)),
    )


def job_environment(cluster: Cluster, job: Job) -> dict[str, str]:
    """What the plan sets on the nodes: the profile's variables, then the job's, which win.

    PYTHONPATH leads to the project when it is not installed there. PYTHONSAFEPATH keeps the folder that the
    job was submitted from out of the modules' search, where a checkout of another version may lie.
    """
    given = {"PYTHONSAFEPATH": "1", **cluster.env, **job.env}
    environment = {variable(name): value for name, value in given.items()}
    if cluster.path:
        others = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{cluster.path}:{others}" if others else cluster.path
    return dict(sorted(environment.items()))


def mounts(cluster: Cluster) -> tuple[str, ...]:
    """The profile's mounts, and the folders it names that none of them covers."""
    wanted = [cluster.path, cluster.results, cluster.cache, cluster.data]
    targets = [mount.split(":")[min(1, mount.count(":"))].rstrip("/") for mount in cluster.container.mounts]
    own: list[str] = []
    for folder in wanted:
        covered = any(f"{folder}/".startswith(f"{target}/") for target in targets)
        if folder and not covered:
            own.append(f"{folder}:{folder}")
            targets.append(folder.rstrip("/"))
    return (*cluster.container.mounts, *own)


def directives(plan: Plan, job: Job, role: Role) -> tuple[str, ...]:
    """The #SBATCH lines of one role: what the job asks for, then what the profile adds."""
    slurm = plan.cluster.slurm
    lines = [
        directive("--job-name", f"{plan.name}-{job.stage}"),
        directive("--nodes", str(role.nodes)),
        directive("--ntasks-per-node", "1"),
    ]
    if slurm.cpus_per_task:
        lines.append(directive("--cpus-per-task", str(slurm.cpus_per_task)))
    lines.extend(_gpus(plan.cluster, role))
    for flag, value in (
        ("--mem", slurm.mem),
        ("--account", slurm.account),
        ("--partition", slurm.partition),
        ("--qos", slurm.qos),
    ):
        if value:
            lines.append(directive(flag, value))
    if slurm.exclusive:
        lines.append(directive("--exclusive"))
    if job.time_seconds:
        lines.append(directive("--time", clock(job.time_seconds)))
    lines += [
        directive("--signal", f"B:USR1@{slurm.signal_seconds}"),
        directive("--requeue"),
        directive("--open-mode", "append"),
    ]
    for extra in slurm.extra:  # --flag, --flag=value, or -f value
        flag, _, value = extra.partition("=" if extra.startswith("--") else " ")
        lines.append(directive(flag, value))
    return tuple(lines)


def _gpus(cluster: Cluster, role: Role) -> list[str]:
    if cluster.device == "cpu" or cluster.slurm.gpus_flag == "none":
        return []
    kind = f"{cluster.slurm.gpu_type}:" if cluster.slurm.gpu_type else ""
    if cluster.slurm.gpus_flag == "gres":
        return [directive("--gres", f"gpu:{kind}{role.gpus}")]
    return [directive("--gpus-per-node", f"{kind}{role.gpus}")]


def clock(seconds: int) -> str:
    """Seconds as Slurm writes a time limit: [DAYS-]HH:MM:SS."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    day = f"{days}-" if days else ""
    return f"{day}{hour:02d}:{minute:02d}:{second:02d}"
