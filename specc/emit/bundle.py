"""From a plan to the files of a bundle.

`Script` holds what one script needs, ready to be printed; the functions around it say how a plan's
values become flags of sbatch and srun. The templates have nothing left to decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from specc.emit.render import EmitError, directive, plain_name, render, variable
from specc.plan import ANSWER, Cluster, Group, Job, Plan, Role, to_json

TARGETS = ("slurm", "local")

_MADE_BY = "# Made by specc "
_STARTERS = ("submit.sh", "run.sh")
_OUR_SCRIPT = re.compile(r"\d\d+-.+\.sbatch")


LITTLE = {"exclusive": False, "cpus_per_task": 0, "mem": ""}
"""What a job without a model asks for instead of what the profile says of whole nodes."""

PLACEMENTS = ("hetjob", "split")
LEAVE_SECONDS = 10
"""How long servers may take to leave once the first group has ended."""


@dataclass(frozen=True)
class Part:
    """One group of processes, as the script of a job of several starts it."""

    index: int
    name: str
    group: Group
    directives: tuple[str, ...]  # of its own component; none but the first's when one job is split
    where: str  # the flag of srun that leads to its nodes

    @property
    def role(self) -> Role:
        return self.group.role

    @property
    def serves(self) -> bool:
        return self.group.serves


@dataclass(frozen=True)
class Script:
    """One job as its script prints it."""

    number: str  # 00, 01, ... in the order of the plan
    file: str  # NN-STAGE.sbatch
    job: Job
    role: Role
    parts: tuple[Part, ...]  # its groups, when they are several
    directives: tuple[str, ...]  # each the rest of an #SBATCH line
    environment: tuple[tuple[str, str], ...]  # (name, value), later ones win
    passed: tuple[str, ...]  # names of all variables that must reach the program, secrets included
    mounts: tuple[str, ...]  # SOURCE:TARGET[:OPTIONS] that the profile names
    waits: tuple[tuple[str, str], ...]  # for what: (array of submit.sh, number of a job in it)
    attempts: int  # how many jobs are queued for it; 1 when Slurm itself queues it again
    save_seconds: int  # how long a job that was told to stop may take to save
    tick_seconds: int  # how often the script looks at the heartbeat
    leave_seconds: int = LEAVE_SECONDS

    @property
    def makes_rows(self) -> bool:
        """Whether it trains nothing: how far it came stands in the journal of its shards."""
        return not any(role.trains for role in self.job.roles)

    @property
    def answers(self) -> bool:
        """Whether it serves people, who end it."""
        return self.role.program == ANSWER

    @property
    def is_hetjob(self) -> bool:
        return bool(self.parts) and self.job.placement == "hetjob"

    @property
    def no_proxy(self) -> str:
        """Hosts that the plan itself exempts from proxies."""
        given = dict(self.environment)
        return given.get("no_proxy") or given.get("NO_PROXY") or "localhost"


def bundle(plan: Plan, target: str) -> dict[str, str]:
    """All files but provenance.json, by relative path. EmitError when a value cannot be written."""
    plain_name(plan.name, "the experiment's name")
    scripts = _scripts(plan)
    files = {"plan.json": to_json(plan)}
    if target == "slurm":
        files["submit.sh"] = _submit(plan, scripts)
        for script in scripts:
            template = "groups.sbatch.j2" if script.parts else "job.sbatch.j2"
            files[script.file] = render(template, plan=plan, script=script, job=script.job, role=script.role)
    elif target == "local":
        files["run.sh"] = render("run.sh.j2", plan=plan, scripts=scripts)
    else:
        raise EmitError(f"there is no target `{target}`; it is one of {', '.join(TARGETS)}")
    return files


def _submit(plan: Plan, scripts: tuple[Script, ...]) -> str:
    gated = {number for script in scripts for array, number in script.waits if array == "gates"}
    slurm = plan.cluster.slurm
    site = {"--account": slurm.account, "--partition": slurm.partition, "--qos": slurm.qos}
    flags = [f"--job-name={plan.name}-gate", "--nodes=1", "--ntasks=1", "--time=1"]
    return render(
        "submit.sh.j2",
        plan=plan,
        scripts=scripts,
        hetjobs=any(script.attempts > 1 for script in scripts),
        gated=gated,
        gate_flags=[*flags, *(f"{flag}={value}" for flag, value in site.items() if value)],
    )


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


def _attempts(plan: Plan, job: Job) -> int:
    """How many jobs are queued for one: Slurm queues an ordinary job again by itself, a hetjob it cannot."""
    return plan.cluster.slurm.attempts if len(job.groups) > 1 and job.placement == "hetjob" else 1


def _waits(plan: Plan, job: Job, numbers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What a job waits for, as submit.sh names it.

    Slurm takes all of several dependencies or any of them, never a mix: `any` of one job's attempts can
    stand alone only, and a hetjob's own attempts wait for each other, too. Elsewhere a gate stands for it.
    """
    lone = len(job.depends_on) == 1 and _attempts(plan, job) == 1
    many = "any" if lone else "gates"
    arrays = {name: many if _attempts(plan, plan.job(name)) > 1 else "ids" for name in job.depends_on}
    return tuple((array, numbers[name]) for name, array in arrays.items())


def _script(plan: Plan, job: Job, numbers: Mapping[str, str]) -> Script:
    role = job.roles[0]
    stage = plain_name(job.stage, "the stage")
    environment = job_environment(plan.cluster, job)
    parts = _parts(plan, job)
    own = ("SPECC_ATTEMPT", *(("SPECC_LISTEN", "SPECC_PEERS", "no_proxy", "NO_PROXY") if parts else ()))
    tick_seconds = min(10, max(1, job.heartbeat_seconds // 4))
    return Script(
        number=numbers[job.name],
        file=f"{numbers[job.name]}-{stage}.sbatch",
        job=job,
        role=role,
        parts=parts,
        directives=() if parts else directives(plan, job, role.nodes, role.gpus),
        environment=tuple(environment.items()),
        passed=tuple(sorted({*environment, *map(variable, plan.cluster.secrets), *own})),
        mounts=mounts(plan.cluster),
        waits=_waits(plan, job, numbers),
        attempts=_attempts(plan, job),
        save_seconds=max(30, plan.cluster.slurm.signal_seconds * 3 // 4),
        tick_seconds=min(2, tick_seconds) if parts else tick_seconds,
    )


def _parts(plan: Plan, job: Job) -> tuple[Part, ...]:
    """The groups of a job of several, the one whose end ends the job first; none for a job of one.

    The script runs on the first node of the first group: the loss of that node ends the job whatever runs
    there, and so it had better be a node that the job's own end needs anyhow.
    """
    groups = job.groups
    if len(groups) == 1:
        return ()
    if job.placement not in PLACEMENTS:
        given = f"`{job.placement}`; it is one of {', '.join(PLACEMENTS)}"
        raise EmitError(f"job `{job.name}` cannot be placed as {given}")
    if groups[0].serves:
        raise EmitError(f"job `{job.name}`: its first group `{groups[0].name}` serves, and would never end")
    parts: list[Part] = []
    for index, group in enumerate(groups):
        before = sum(earlier.nodes for earlier in groups[:index])
        is_hetjob = job.placement == "hetjob"
        where = f"--het-group={index}" if is_hetjob else f"--relative={before}"
        own = component(plan, job, group, index) if is_hetjob else ()
        parts.append(Part(index, plain_name(group.name, "the group"), group, own, where))
    if job.placement == "split":  # all share one allocation, on each node what the largest needs
        nodes, gpus = sum(group.nodes for group in groups), max(group.gpus for group in groups)
        parts[0] = replace(parts[0], directives=directives(plan, job, nodes, gpus))
    return tuple(parts)


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


def directives(plan: Plan, job: Job, nodes: int, gpus: int) -> tuple[str, ...]:
    """The #SBATCH lines of one allocation: what the job asks for, then what the profile adds."""
    restart = [directive("--requeue"), directive("--open-mode", "append")]
    return (*_asked(plan, job, nodes, gpus), _warning(plan), *restart, *_extra(plan))


def component(plan: Plan, job: Job, group: Group, index: int) -> tuple[str, ...]:
    """The #SBATCH lines of one component of a hetjob, each whole: Slurm hands on some flags and not others.

    Never queued again by Slurm: when the node that runs the script is lost, it would queue the first
    component alone. The first one's script hears the warning before the limit; the others have none.
    """
    first = [_warning(plan)] if index == 0 else []
    restart = [directive("--no-requeue"), directive("--open-mode", "append")]
    return (*_asked(plan, job, group.nodes, group.gpus), *first, *restart, *_extra(plan))


def _asked(plan: Plan, job: Job, nodes: int, gpus: int) -> list[str]:
    """What an allocation asks for. A clerk asks for no GPU, and leaves the rest of its node to others."""
    is_clerk = all(role.is_clerk for role in job.roles)
    slurm = replace(plan.cluster.slurm, **LITTLE) if is_clerk else plan.cluster.slurm
    lines = [
        directive("--job-name", f"{plan.name}-{job.stage}"),
        directive("--nodes", str(nodes)),
        directive("--ntasks-per-node", "1"),
    ]
    if slurm.cpus_per_task:
        lines.append(directive("--cpus-per-task", str(slurm.cpus_per_task)))
    lines.extend([] if is_clerk else _gpus(plan.cluster, gpus))
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
    return lines


def _warning(plan: Plan) -> str:
    return directive("--signal", f"B:USR1@{plan.cluster.slurm.signal_seconds}")


def _extra(plan: Plan) -> list[str]:
    """The profile's own flags, each `--flag`, `--flag=value` or `-f value`."""
    parts = [extra.partition("=" if extra.startswith("--") else " ") for extra in plan.cluster.slurm.extra]
    return [directive(flag, value) for flag, _, value in parts]


def _gpus(cluster: Cluster, gpus: int) -> list[str]:
    if cluster.device == "cpu" or cluster.slurm.gpus_flag == "none":
        return []
    kind = f"{cluster.slurm.gpu_type}:" if cluster.slurm.gpu_type else ""
    if cluster.slurm.gpus_flag == "gres":
        return [directive("--gres", f"gpu:{kind}{gpus}")]
    return [directive("--gpus-per-node", f"{kind}{gpus}")]


def clock(seconds: int) -> str:
    """Seconds as Slurm writes a time limit: [DAYS-]HH:MM:SS."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    day = f"{days}-" if days else ""
    return f"{day}{hour:02d}:{minute:02d}:{second:02d}"
