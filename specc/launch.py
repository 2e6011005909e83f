"""Run a plan on this machine: one torchrun per group of roles, watched until its processes are gone.

Where asked to, ranks are forked from one warm process instead (`specc.warm`), stage after stage.

What comes in: a plan whose jobs all fit here, and the run folder. What goes out: an `Ended` per stage.
The processes of a job live in a session of their own, so that Ctrl-C reaches this process only: it asks
the ranks to save (the file `stop`) and waits. They never outlive it: torchrun is told by the kernel when
its parent dies, and everything that descends from it is ended before a job counts as over.

Nothing here imports torch; psutil comes with the runtime's packages.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import specc
from specc import warm as warms
from specc.groups import Addresses, Verdict, addresses
from specc.leftovers import are_left
from specc.plan import Group, Job, Plan, to_json
from specc.processes import Process, adopt_orphans, die_with, end
from specc.warm import Warm, Warmth

NEEDED = {"torch": "torch", "megatron.core": "megatron-core", "psutil": "psutil", "numpy": "numpy"}
TICK_SECONDS = 0.1


class Refusal(Exception):
    """The run does not start; the message says why and what to do."""


@dataclass(frozen=True)
class Ended:
    """How one stage ended. `code` is an exit code: 0, 1 (plan, spec or data), 3 (something outside), 130."""

    stage: str
    how: str  # finished | skipped | stopped | failed
    code: int = 0
    message: str = ""  # failed: the first failing rank's error, one line
    logs: str = ""  # the folder of this attempt


@dataclass
class Switch:
    """How often the user asked to stop: once is with a checkpoint, twice is now."""

    presses: int = 0
    on_first: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def wired(self) -> Iterator[Switch]:
        """While inside, SIGINT, SIGTERM and SIGHUP press the switch instead of ending this process."""
        kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {kind: signal.signal(kind, self._press) for kind in kinds}
        try:
            yield self
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _press(self, number: int, frame: Any) -> None:
        self.presses += 1  # nothing more: a signal may come in the middle of a print


def missing_packages(also: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """What is not installed of that which running needs, by its name on the package index."""
    return [name for module, name in {**NEEDED, **also}.items() if not _importable(module)]


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


# --- the run folder


@contextlib.contextmanager
def run_folder(plan: Plan, folder: Path, fresh: list[str]) -> Iterator[Path]:
    """The run folder, made, locked against a second `specc run`, and holding this plan.

    Stages named in `fresh` are moved aside. Refusal when another run holds the folder, when a stage in it
    was begun under other maths fields, or when what is still needed was discarded. OSError when it cannot
    be written.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refusal(
                f"{folder} is in use by another `specc run`; wait for it, or name another --dir"
            ) from None
        _refuse_discarded(plan, folder, fresh)
        for stage in fresh:
            move_aside(folder / stage)
        for job in plan.jobs:
            _refuse_changed(job, folder / job.stage)
        new = folder / ".plan.json.new"
        new.write_text(to_json(plan), encoding="utf-8")
        new.replace(folder / "plan.json")
        _tidy(plan, folder)
        yield folder


def _tidy(plan: Plan, folder: Path) -> None:
    """Let finished stages remove what a kill kept them from removing; where one cannot, the next run may.
    What was made anew and is still to be read stays.
    """
    finished = {job.name for job in plan.jobs if is_finished(job, folder)}
    awaited = {name for job in plan.jobs if job.name not in finished for name in job.depends_on}
    for job in plan.jobs:
        if job.name in finished and not awaited & {*job.discards} and are_left(job, folder):
            subprocess.run(
                [sys.executable, "-m", "runtime", str(folder / "plan.json"), job.name, job.groups[0].name],
                cwd=folder,
                env=environment(plan, job, "tidy"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )


def move_aside(stage: Path) -> None:
    """Rename a stage's folder to the first free `STAGE.old-N`; nothing is deleted."""
    if not stage.exists():
        return
    number = 1
    while (target := stage.with_name(f"{stage.name}.old-{number}")).exists():
        number += 1
    stage.rename(target)


def changed_keys(job: Job, stage: Path) -> list[str]:
    """`train.lr: 1e-05 -> 2e-05` for each maths field or input that is not what the stage began with."""
    begun = _read_json(stage / "identity.json")
    if not begun or begun.get("hash") == job.hash:
        return []
    old, new = begun.get("identity") or {}, job.identity
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}" for key in keys] or [
        "its maths fields"
    ]


def _refuse_changed(job: Job, stage: Path) -> None:
    changes = changed_keys(job, stage)
    if changes:
        raise Refusal(
            f"stage `{job.stage}` in {stage} was begun with other values ({'; '.join(changes)}); "
            f"name another --dir, or begin it anew with --fresh {job.stage}"
        )


def is_finished(job: Job, folder: Path) -> bool:
    """Whether this very stage has run to its end here."""
    return _read_json(folder / job.stage / "output.json").get("hash", None) == job.hash


def _refuse_discarded(plan: Plan, folder: Path, fresh: list[str]) -> None:
    """Refusal where a stage has to run and what it reads was discarded, as when only it is begun anew."""
    finished = {job.name: is_finished(job, folder) and job.stage not in fresh for job in plan.jobs}
    for job in plan.jobs:
        if finished[job.name]:
            continue
        gone = [name for name in job.depends_on if finished[name] and _is_discarded(folder / name)]
        if gone:
            again = " ".join(f"--fresh {name}" for name in [*_makers(plan, folder, gone), job.stage])
            raise Refusal(
                f"stage `{job.stage}` needs what `{gone[0]}` made, which was discarded when it was no longer "
                f"needed; begin both again with {again}, or name another --dir"
            )


def _makers(plan: Plan, folder: Path, names: list[str]) -> list[str]:
    """These stages, and what they themselves would need that was discarded too, in the plan's order."""
    wanted, waiting = set(names), list(names)
    while waiting:
        for name in plan.job(waiting.pop()).depends_on:
            if name not in wanted and _is_discarded(folder / name):
                wanted.add(name)
                waiting.append(name)
    return [job.name for job in plan.jobs if job.name in wanted]


def _is_discarded(stage: Path) -> bool:
    return bool(_read_json(stage / "output.json").get("discarded"))


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


# --- the processes


def run_jobs(
    plan: Plan,
    folder: Path,
    home: Path,
    switch: Switch,
    begin: Callable[[Job, Path], Callable[[], None]],
    warm: bool = False,
) -> Iterator[Ended]:
    """Run the jobs in the order they depend on each other; ends after the first that does not finish.

    `home` is the folder that relative paths of the spec start from. `begin(job, attempt)` is called when a
    job starts and gives what is called ten times a second while it runs. `warm` lets one process import torch
    and Megatron for the ranks of all jobs, on a CPU.
    """
    adopt_orphans()
    with Warmth(folder, home, warm and plan.cluster.device == "cpu" and warms.is_possible()) as warmth:
        for job in ordered(plan.jobs):
            if switch.presses:
                yield Ended(job.stage, "stopped", 130)
                return
            if is_finished(job, folder):
                yield Ended(job.stage, "skipped")
                continue
            ended = _run_job(plan, job, folder, home, switch, begin, warmth)
            yield ended
            if ended.how != "finished":
                return


def ordered(jobs: tuple[Job, ...]) -> list[Job]:
    """The jobs so that each comes after those it depends on, else in the plan's order."""
    done: list[Job] = []
    waiting = list(jobs)
    while waiting:
        ready = next(job for job in waiting if {j.name for j in done} >= set(job.depends_on))
        done.append(ready)
        waiting.remove(ready)
    return done


def _run_job(
    plan: Plan,
    job: Job,
    folder: Path,
    home: Path,
    switch: Switch,
    begin: Callable[[Job, Path], Callable[[], None]],
    warmth: Warmth,
) -> Ended:
    stage = folder / job.stage
    attempt = _new_attempt(stage)
    for name in ("stop", "heartbeat"):
        (stage / name).unlink(missing_ok=True)
    tick = begin(job, attempt)
    verdict = Verdict(job.groups, attempt)
    where = addresses(job.groups)
    processes: list[Process] = []
    killed = ""
    try:
        warm = _warmed(plan, job, attempt, switch, tick, warmth)
        if switch.presses:  # while it was waited for: nothing has begun
            return Ended(job.stage, "stopped", 130, "", str(attempt))
        for group in job.groups:
            if warm and not group.role.is_clerk:
                own = {**environment(plan, job, attempt.name), **where.variables(group)}
                processes.append(warm.start(folder, job, group, attempt, where.rendezvous[group.name], own))
            else:
                processes.append(_start(plan, job, group, folder, home, attempt, where))
        killed = _watch(job, stage, processes, verdict, switch, tick, warmth)
    finally:
        end(processes, spared=warmth.pid)
        tick()
    return _ended(job, stage, attempt, verdict, killed)


def _new_attempt(stage: Path) -> Path:
    """The first free folder attempts/1, attempts/2, ...; logs of earlier attempts are never overwritten."""
    (stage / "attempts").mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            (stage / "attempts" / str(number)).mkdir()
            return stage / "attempts" / str(number)
        number += 1


def _warmed(
    plan: Plan, job: Job, attempt: Path, switch: Switch, tick: Callable[[], None], warmth: Warmth
) -> Warm | None:
    """The warm process that a job's ranks are forked from; None where torchrun starts them."""
    if all(group.role.is_clerk for group in job.groups):
        return None

    def go_on() -> bool:
        tick()
        return not switch.presses

    return warmth.at_hand(environment(plan, job, attempt.name), go_on)


def _start(
    plan: Plan, job: Job, group: Group, folder: Path, home: Path, attempt: Path, where: Addresses
) -> subprocess.Popen:
    """One torchrun for one group, or the one process of a clerk; its output in attempts/K/GROUP.log."""
    port = where.rendezvous[group.name]
    torchrun = [
        *("-m", "torch.distributed.run"),
        *("--nnodes=1", "--node-rank=0", f"--nproc-per-node={group.nodes * group.gpus}"),
        *("--rdzv-backend=static", "--master-addr=127.0.0.1", f"--master-port={port}"),
        *("--max-restarts=0", "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT", "--shutdown-timeout=5"),
    ]
    words = [
        *(sys.executable, *([] if group.role.is_clerk else torchrun)),
        *("-m", "runtime", str(folder / "plan.json"), job.name, group.name),
    ]
    with open(attempt / f"{group.name}.log", "ab") as log:
        return subprocess.Popen(
            words,
            cwd=home,
            env={**environment(plan, job, attempt.name), **where.variables(group)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with(os.getpid()),  # no threads run in this process
        )


def environment(plan: Plan, job: Job, attempt: str) -> dict[str, str]:
    """What a rank sees: the shell's variables, the profile's, then the job's, and where the project is."""
    here = Path(specc.__file__).resolve().parent.parent
    own = {
        **os.environ,
        **plan.cluster.env,
        **job.env,
        "SPECC_ATTEMPT": attempt,
        "SPECC_DIE_WITH_PARENT": "1",
    }
    if plan.cluster.device == "cpu":
        own.setdefault("OMP_NUM_THREADS", "1")
        own.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    # the ranks start in the spec's folder; a module that lies there must not be taken for one of ours
    own["PYTHONSAFEPATH"] = "1"
    own["PYTHONUNBUFFERED"] = "1"
    for name in ("no_proxy", "NO_PROXY"):  # what groups say to each other passes through no proxy
        own[name] = ",".join(filter(None, [own.get(name, ""), "127.0.0.1"]))
    if (here / "runtime").is_dir():
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(here), own.get("PYTHONPATH", "")]))
    return own


def _watch(
    job: Job,
    stage: Path,
    processes: list[Process],
    verdict: Verdict,
    switch: Switch,
    tick: Callable[[], None],
    warmth: Warmth,
) -> str:
    """Wait until the job is over; gives the reason when it is us who end it, else empty."""
    asked = False
    alive_at, beat = time.monotonic(), 0.0
    while not verdict.is_over([process.poll() for process in processes], time.monotonic()):
        time.sleep(TICK_SECONDS)
        tick()
        if switch.presses >= 2:
            return "ended at once"
        if switch.presses and not asked:
            asked = True
            (stage / "stop").touch()
            switch.on_first()
        if (seen := _modified(stage / "heartbeat")) != beat:
            beat, alive_at = seen, time.monotonic()
        if time.monotonic() - alive_at > job.heartbeat_seconds:
            return f"no sign of life for {job.heartbeat_seconds} s"
        if lost := warmth.lost:
            return lost
    return ""


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


# --- how it ended


def _ended(job: Job, stage: Path, attempt: Path, verdict: Verdict, killed: str) -> Ended:
    if killed == "ended at once":
        return Ended(job.stage, "stopped", 130, killed, str(attempt))
    if killed:
        return Ended(job.stage, "failed", 3, killed, str(attempt))
    if verdict.culprit:
        several = len(verdict.groups) > 1
        plain = verdict.codes[0] if verdict.culprit.role.is_clerk else None
        code, message = first_error(attempt, verdict.culprit.name if several else "", plain)
        return Ended(job.stage, "failed", code, message, str(attempt))
    if _read_json(stage / "output.json").get("hash") == job.hash:
        return Ended(job.stage, "finished", 0, "", str(attempt))
    return Ended(job.stage, "stopped", 130, "", str(attempt))


def first_error(attempt: Path, group: str = "", plain: int | None = None) -> tuple[int, str]:
    """(exit code, one line) of the rank that failed first, from what it left in its attempt's folder.

    With a group, of its ranks alone: its log, and its folder in the attempt's. `plain` is the exit code of a
    process that no torchrun started, which else says the codes of the ranks.
    """
    of = f"{group} " if group else ""
    logs = "".join(
        path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(attempt.glob(f"{group or '*'}.log"))
    )
    paths = (attempt / group).glob("error-*.json") if group else attempt.rglob("error-*.json")
    known = [(_modified(path), _read_json(path)) for path in paths]
    known = [(when, fact) for when, fact in known if "message" in fact]
    exits = [int(code) for code in re.findall(r"exitcode\s*: (-?\d+)", logs)]
    exits += [plain] if plain else []
    code = 1 if exits and all(c == 1 for c in exits) else 3
    if known:
        _, fact = min(known, key=lambda entry: (bool(entry[1].get("echo")), entry[0]))
        if not fact.get("echo"):
            who = f"{of}rank {fact.get('rank', '?')}"
            return code, f"error[{fact.get('code', 'R099')}]: {fact['message']} ({who})"
    if killer := next((c for c in exits if c < 0), None):
        name = signal.Signals(-killer).name
        return 3, f"error: a {of}rank was ended by {name}; was there enough memory?"
    last = [line for line in logs.splitlines() if line.strip()][-1:]
    said = last[0].strip() if last else f"the {of}ranks ended without a word"
    return code, f"error: {group}: {said}" if group and last else f"error: {said}"
