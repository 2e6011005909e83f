"""`specc run` in warm processes that die when they are told to.

Everything is the real thing, the command, the launcher and the ranks, but python and torchrun: in their place
processes fork from one that has imported torch, Megatron and the runtime. So a loop of ten stages takes
seconds. Linux only: who dies asks the kernel who descends from whom.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kills import die, doom

LIMIT = 300  # seconds of a whole loop: a machine may be busy with other things
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Death:
    """Of `stage`: when its rank `rank` calls `call` (module:function) for the `count`th time, or, where there
    is no call, when the launcher is about to start it. That rank dies, or with `all` everything at once.
    """

    stage: str
    call: str = ""
    count: int = 1
    rank: int = 0
    all: bool = True

    def __str__(self) -> str:
        when = f"{self.call.removeprefix('runtime.')} {self.count}" if self.call else "before it starts"
        return f"{self.stage}, {when}, {'everything' if self.all else f'rank {self.rank}'}"

    def sentence(self, launcher: int) -> None:
        """Let this process, which is that rank, call it to its end."""
        module, _, name = self.call.partition(":")
        doom(module, name, self.count, partial(end_all, launcher) if self.all else die)


def run(forks: Any, spec: Path, folder: Path, death: Death | None = None, seconds: float = 0.0) -> int:
    """`specc run SPEC --dir FOLDER`, its exit code; with `seconds`, everything is killed after so many."""
    launcher = forks.Process(target=_launch, args=(str(spec), str(folder), death), daemon=False)
    launcher.start()
    launcher.join(seconds or LIMIT)
    if launcher.is_alive():
        end_all(launcher.pid)
        launcher.join(30)
        assert seconds, f"`specc run` did not end in {LIMIT} s; see {folder}.log"
    assert launcher.exitcode is not None
    return launcher.exitcode


def end_all(launcher: int) -> None:
    """SIGKILL to `specc run` and all that descends from it, as on a lost machine; to this process last."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        family = [child.pid for child in psutil.Process(launcher).children(recursive=True)]
        for pid in sorted([launcher, *family], key=lambda pid: pid == os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# ── in the launcher ──────────────────────────────────────────────────────────────────────────────


def _launch(spec: str, folder: str, death: Death | None) -> None:
    """One process: `specc run`."""
    from specc import cli, launch

    _say_into(Path(f"{folder}.log"))
    launch._start = partial(_start, death, os.getpid())
    if death is not None and not death.call:
        _die_before(death.stage)
    code = cli.run(["run", spec, "--dir", folder])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_before(stage: str) -> None:
    from specc import launch

    plain = launch._new_attempt

    def new_attempt(folder: Path) -> Path:
        if folder.name == stage:
            end_all(os.getpid())
        return plain(folder)

    launch._new_attempt = new_attempt


def _say_into(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)


class Forked:
    """A process as the launcher knows them."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, None

    def poll(self) -> int | None:
        if self.returncode is None:
            with suppress(ChildProcessError):
                found, status = os.waitpid(self.pid, os.WNOHANG)
                if found:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        limit = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > limit:
                raise subprocess.TimeoutExpired("a group", timeout)
            time.sleep(0.01)
        return code


def _start(
    death: Death | None, launcher: int, plan: Any, job: Any, group: Any, folder: Path, home: Path, *where: Any
) -> Forked:
    """In place of `launch._start`: the ranks of a group, or a clerk."""
    from specc import launch

    attempt, addresses = where
    words = [str(folder / "plan.json"), job.name, group.name]
    mine = death if death is not None and death.call and death.stage == job.stage else None
    several = 0 if group.role.is_clerk else group.nodes * group.gpus
    work = partial(_group, several, addresses.rendezvous[group.name], words, mine, launcher)
    environment = {**launch.environment(plan, job, attempt.name), **addresses.variables(group)}
    return Forked(_fork(work, environment, home, attempt / f"{group.name}.log", launch.die_with(os.getpid())))


def _fork(
    work: Callable[[], int],
    environment: dict[str, str],
    home: Path,
    log: Path,
    first: Callable[[], None] | None,
) -> int:
    """A process of a session of its own that does this work."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        if first is not None:
            first()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        gc.enable()
        os.environ.update(environment)
        os.chdir(home)
        _say_into(log)
        code = work()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# ── in its place a torchrun ──────────────────────────────────────────────────────────────────────


def _group(several: int, port: int, words: list[str], death: Death | None, launcher: int) -> int:
    """As torchrun does: start so many ranks, end those that are left when one fails. A clerk is none."""
    if not several:
        return _rank(words, death, launcher)
    pids = []
    for rank in range(several):
        pid = os.fork()
        if not pid:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": several, "LOCAL_WORLD_SIZE": several}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({key: str(value) for key, value in place.items()})
            os._exit(_rank(words, death if death and death.rank == rank else None, launcher))
        pids.append(pid)
    return _watched(pids)


def _rank(words: list[str], death: Death | None, launcher: int) -> int:
    """One process of the runtime; its exit code."""
    try:
        if death is not None:
            death.sentence(launcher)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        code = importlib.import_module("runtime.__main__").main(words)
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _watched(pids: list[int]) -> int:
    """Wait for all; when one fails, ask the others to leave, and end those that do not."""
    left, worst, limit = set(pids), 0, float("inf")
    while left:
        for pid in list(left):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                left.discard(pid)
                if status and not worst:
                    worst, limit = 1, time.monotonic() + 5
                    for other in left:
                        os.kill(other, signal.SIGTERM)
        if time.monotonic() > limit:
            for other in left:
                os.kill(other, signal.SIGKILL)
            limit = float("inf")
        time.sleep(0.01)
    return worst
