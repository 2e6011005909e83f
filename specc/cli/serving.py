"""`specc serve`: plan a checkpoint for this machine, start the runtime, and say where it answers."""

from __future__ import annotations

import argparse
import contextlib
import gc
import ipaddress
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specc import launch, machine, serving
from specc.cli import FINE, INTERRUPTED, OUTSIDE, PROBLEMS, Outside, verbs
from specc.plan import ANSWER, Job, Plan, to_json

NEEDED = {"starlette": "starlette", "uvicorn": "uvicorn"}
KEY = "SPECC_API_KEY"


def serve(options: argparse.Namespace) -> int:
    """Serve until told to stop; the exit code says how it ended."""
    gc.enable()  # unlike most commands, this one may live for days
    gpus = machine.gpus()
    try:
        plan = serving.plan_of(options.checkpoint, wishes_of(options), gpus)
    except serving.Refused as refused:
        verbs.talk(str(refused))
        return OUTSIDE if refused.outside else PROBLEMS
    if missing := launch.missing_packages(NEEDED):
        raise Outside(f"serving needs {', '.join(missing)}, not installed here; pip install 'specc[runtime]'")
    _warn_of_strangers(options)
    for line in left_out(plan, gpus):
        verbs.talk(line)
    verbs.talk(_about(plan))
    folder = Path(tempfile.mkdtemp(prefix="specc-serve-"))
    ended = _served(plan, folder)
    if ended != FINE and ended != INTERRUPTED:
        verbs.talk(f"logs in {folder}/{ANSWER}/attempts")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return ended


def wishes_of(options: argparse.Namespace) -> serving.Wishes:
    """The options as the planner of a served model takes them."""
    return serving.Wishes(
        host=options.host,
        port=options.port,
        name=options.name or "",
        tokenizer=_from_here(options.tokenizer),
        chat_template=_from_here(options.chat_template),
        key_file=options.api_key_file or "",
        precision=options.precision or "",
        tp=options.tp,
        pp=options.pp,
        gpus=options.gpus,
        rows=options.rows,
        length=options.max_length,
        most=options.max_requests,
    )


def _from_here(name: str | None) -> str:
    """A path that exists as seen from here, absolute; anything else is a name."""
    with contextlib.suppress(OSError):  # too long for a path
        if name and Path(name).exists():
            return str(Path(name).absolute())
    return name or ""


def _warn_of_strangers(options: argparse.Namespace) -> None:
    try:
        is_local = ipaddress.ip_address(options.host).is_loopback
    except ValueError:
        is_local = options.host == "localhost"
    if is_local:
        return
    has_key = options.api_key_file or os.environ.get(KEY, "").strip()
    said = f"at {options.host} other machines reach this server"
    if not has_key:
        said += f", and everybody may ask; set {KEY} or --api-key-file to let in only who knows the key"
    verbs.talk(f"warning: {said}; what is said is not encrypted")


def left_out(plan: Plan, gpus: Sequence[machine.Gpu]) -> list[str]:
    """What there is to say of GPUs that are not used."""
    if gpus and plan.cluster.device == "cpu":
        kinds = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
        return [f"warning: this machine's GPU, {kinds}, is not in the catalog, so the CPU is used"]
    if places := plan.jobs[0].env.get(serving.VISIBLE):
        used = {int(place) for place in places.split(",")}
        others = ", ".join(gpu.name for i, gpu in enumerate(gpus) if i not in used)
        return [f"note: the GPUs differ, and one model runs on one kind; left out: {others}"]
    return []


def _about(plan: Plan) -> str:
    [job] = plan.jobs
    [role] = job.roles
    own = job.settings[ANSWER]
    where = f"{plan.cluster.gpu} x {role.gpus}" if plan.cluster.device == "cuda" else "the CPU"
    return (
        f"loading `{own['name']}` ({role.model.shape.family}, {role.precision}) on {where}: {role.layout}, "
        f"{role.rows} answers of up to {own['length']} tokens at once"
    )


@dataclass
class Told(launch.Switch):
    """Which signal asked to stop. While the model is loaded nothing is answered, so once is enough."""

    last: int = 0
    watch: Watch | None = None

    def _press(self, number: int, frame: Any) -> None:
        self.last = self.last or number
        self.presses += 0 if self.watch and self.watch.said else 1
        super()._press(number, frame)

    def watching(self, job: Job, attempt: Path) -> Callable[[], None]:
        """What to do ten times a second: pass warnings on, and say once where the model answers."""
        self.watch = Watch(attempt, job.roles[0].name)
        return self.watch.tick


def _served(plan: Plan, folder: Path) -> int:
    (folder / "plan.json").write_text(to_json(plan), encoding="utf-8")
    told = Told(on_first=lambda: verbs.talk("finishing what is being answered; Ctrl-C again ends it now"))
    with told.wired():
        [end] = list(launch.run_jobs(plan, folder, Path.cwd(), told, told.watching))
    if end.how == "failed":
        verbs.talk(end.message)
        return PROBLEMS if end.code == 1 else OUTSIDE
    return INTERRUPTED if told.last == signal.SIGINT else FINE


@dataclass
class Watch:
    """One attempt's log and address."""

    attempt: Path
    group: str
    at: int = 0
    rest: bytes = b""
    said: bool = False
    words: tuple[bytes, ...] = field(default=(b"warning",))

    def tick(self) -> None:
        self._log()
        if not self.said:
            self._address()

    def _log(self) -> None:
        try:
            with open(self.attempt / f"{self.group}.log", "rb") as log:
                log.seek(self.at)
                new = log.read(1 << 20)
        except OSError:
            return
        self.at += len(new)
        *lines, self.rest = (self.rest + new).split(b"\n")
        for line in lines:
            if line.startswith(self.words):
                verbs.talk(line.decode("utf-8", "replace"))

    def _address(self) -> None:
        try:
            found = json.loads((self.attempt / "address.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if found.get("ready"):
            self.said = True
            print(found["url"], flush=True)
            if sys.stderr.isatty():
                verbs.talk("ready; stop it with Ctrl-C")
