"""`specc run`: compile for this machine, take the run folder, train stage after stage."""

from __future__ import annotations

import argparse
import gc
import os
import shlex
from pathlib import Path

from specc import launch
from specc.cli import FINE, INTERRUPTED, OUTSIDE, PROBLEMS, Outside, Usage, verbs
from specc.cli.progress import Progress
from specc.cli.provenance import provenance
from specc.launch import Ended
from specc.plan import Plan


def run(options: argparse.Namespace) -> int:
    """Train the spec here; the exit code says how it went."""
    gc.enable()  # unlike the other commands, this one may live for days
    done = verbs.compiled(options, tiny=options.tiny, here=True)
    verbs.say(done, options)
    if done.plan is None or not done.fine:
        if not options.tiny and any(
            d.code.startswith("P") and d.severity == "error" for d in done.diagnostics
        ):
            twin = f"{verbs.command('run', options.spec)} --tiny"
            verbs.talk(f"this spec cannot run on this machine; its twin can: {twin}")
        return PROBLEMS
    plan = done.plan
    _know_the_stages(plan, options.fresh)
    if missing := launch.missing_packages():
        names = ", ".join(missing)
        raise Outside(f"training needs {names}, not installed here; pip install 'specc[runtime]'")
    folder = Path(options.dir or Path("runs") / plan.name)
    try:
        with launch.run_folder(plan, folder, options.fresh) as absolute:
            (absolute / "provenance.json").write_text(provenance(Path(options.spec)), encoding="utf-8")
            home = Path(options.spec).resolve().parent
            return _train(plan, absolute, folder, home, again(options), warm=options.tiny)
    except launch.Refusal as error:
        raise Outside(str(error)) from None
    except OSError as error:
        raise Outside(f"{error.filename or folder}: {(error.strerror or str(error)).lower()}") from error


def again(options: argparse.Namespace) -> str:
    """The command that continues this run."""
    words = ["specc", "run", options.spec, *(["--tiny"] if options.tiny else [])]
    words += ["--dir", options.dir] if options.dir else []
    words += [word for override in options.overrides for word in ("--set", override)]
    words += ["--cluster", options.cluster] if options.cluster else []
    return shlex.join(words)


def _know_the_stages(plan: Plan, stages: list[str]) -> None:
    known = [job.stage for job in plan.jobs]
    for stage in stages:
        if stage not in known:
            raise Usage(f"--fresh {stage}: there is no such stage; this spec has {', '.join(known)}")


def _train(plan: Plan, absolute: Path, shown: Path, home: Path, command: str, warm: bool) -> int:
    progress = Progress()
    told = launch.Switch(
        on_first=lambda: progress.say("saving a checkpoint, then stopping; Ctrl-C again ends it now")
    )
    ended: list[Ended] = []
    with told.wired():
        try:
            for end in launch.run_jobs(plan, absolute, home, told, progress.begin, warm):
                progress.close()
                ended.append(end)
                _tell(end, progress, shown, command)
        finally:
            progress.close()
    if not ended or ended[-1].how in ("finished", "skipped"):
        _results(plan, absolute, shown)
        return FINE
    return {130: INTERRUPTED, 1: PROBLEMS}.get(ended[-1].code, OUTSIDE)


def _tell(end: Ended, progress: Progress, shown: Path, command: str) -> None:
    """What happened to a stage, and what to do about it."""
    logs = os.path.relpath(end.logs) if end.logs else ""
    if end.how == "skipped":
        verbs.talk(f"{end.stage}: finished already")
    elif end.how == "finished":
        verbs.talk(f"{end.stage}: finished{_gain(progress)}")
    elif end.how == "stopped":
        verbs.talk(f"{end.stage}: stopped{_where(progress)}; to continue: {command}")
    else:
        verbs.talk(end.message)
        verbs.talk(f"{end.stage}: failed; logs in {logs}")


def _gain(progress: Progress) -> str:
    first, last = progress.first, progress.last
    if not last:
        return ""
    name, digits = ("reward", 3) if "reward" in last else ("loss", 4)
    began = f"{first[name]:.{digits}f} (step {first['step']})"
    return f" after step {last['step']}, {name} {began} -> {last[name]:.{digits}f}"


def _where(progress: Progress) -> str:
    return f" after step {progress.last['step']}" if progress.last else ""


def _results(plan: Plan, absolute: Path, shown: Path) -> None:
    """On stdout: the folder of each exported model, or of the last stage's checkpoints."""
    stages = [job.stage for job in plan.jobs]
    exported = [shown / stage / "hf" for stage in stages if (absolute / stage / "hf").is_dir()]
    for path in exported or [shown / stages[-1]]:
        print(path)
