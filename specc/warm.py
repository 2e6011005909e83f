"""One process that has imported torch and Megatron, from which the ranks of stage after stage are forked.

Importing takes seconds in every process that torchrun starts; of a tiny twin that is most of its time. What
comes in: the environment of the ranks, and what torchrun would be told. What goes out: `Ranks`, to be watched
like a torchrun. The other side is `python -m runtime.warm`; both speak in lines of JSON through its stdin and
stdout. Where it does not come up, its last words are in `warm.log`, and torchrun does the work.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specc.plan import Group, Job
from specc.processes import GRACE_SECONDS, MARK, die_with

START_SECONDS = 300.0
"""How long the imports may take; from a slow disk they take minutes."""
TICK_SECONDS = 0.05
OWN = (MARK, "SPECC_PEERS", "SPECC_LISTEN")
"""Variables that a group is told when it starts; all others the warm process must have from its own start."""
OFF = "SPECC_WARM"
"""A variable of the shell: 0 lets torchrun start the ranks of a twin, too."""
PROGRAM = ("-m", "runtime.warm")


def is_possible(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this machine can fork what has imported torch, and nobody has asked for torchrun."""
    return sys.platform == "linux" and environment.get(OFF) != "0"


@dataclass
class Ranks:
    """The ranks of one group, forked from a warm process; watched like the process of a torchrun."""

    source: Warm
    leader: Any = None  # psutil.Process of what watches over the ranks, once it has been forked
    code: int | None = None

    @property
    def pid(self) -> int:
        return self.leader.pid if self.leader else self.source.pid

    def poll(self) -> int | None:
        self.source.hear()
        return self.code

    def kill(self) -> None:
        """End the leader, or the warm process where that might still fork it."""
        import psutil

        self.source.hear()
        with contextlib.suppress(psutil.Error):
            (self.leader or self.source.process).kill()

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (timeout or float("inf"))
        while self.poll() is None:
            if self.source.process.poll() is not None:
                return self._without_source(timeout)
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("ranks", timeout or 0.0)
            time.sleep(TICK_SECONDS)
        assert self.code is not None
        return self.code

    def _without_source(self, timeout: float | None) -> int:
        """Nobody can tell the code any more; the leader is our own child now."""
        import psutil

        with contextlib.suppress(psutil.Error):
            if self.leader:
                self.leader.wait(timeout)
        return -signal.SIGKILL


@dataclass
class Warm:
    """A warm process, as this one sees it."""

    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]
    is_ready: bool = False
    groups: list[Ranks] = field(default_factory=list)
    rest: bytes = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(
        self, folder: Path, job: Job, group: Group, attempt: Path, port: int, own: Mapping[str, str]
    ) -> Ranks:
        """Fork the ranks of a group; of the environment only what is the group's `own` is passed on."""
        found = Ranks(self)
        self.groups.append(found)
        asked = {
            "id": len(self.groups) - 1,
            "arguments": [str(folder / "plan.json"), job.name, group.name],
            "ranks": group.nodes * group.gpus,
            "port": port,
            "log": str(attempt / f"{group.name}.log"),
            "environment": {name: own[name] for name in OWN if name in own},
        }
        assert self.process.stdin
        with contextlib.suppress(OSError):  # it is gone, and `lost` says so
            self.process.stdin.write((json.dumps(asked) + "\n").encode())
            self.process.stdin.flush()
        return found

    def hear(self) -> None:
        """Take in what it has said since the last time."""
        assert self.process.stdout
        with contextlib.suppress(BlockingIOError):
            while news := os.read(self.process.stdout.fileno(), 1 << 16):
                *lines, self.rest = (self.rest + news).split(b"\n")
                for line in lines:
                    self._note(json.loads(line))

    def _note(self, fact: Mapping[str, Any]) -> None:
        import psutil

        if "ready" in fact:
            self.is_ready = True
        elif "pid" in fact:
            with contextlib.suppress(psutil.Error):  # it may have ended already
                self.groups[fact["id"]].leader = psutil.Process(fact["pid"])
        else:
            self.groups[fact["id"]].code = fact["code"]

    @property
    def lost(self) -> str:
        """Why its groups cannot be watched any more; empty while they can."""
        code = self.process.poll()
        self.hear()
        if code is None or all(group.code is not None for group in self.groups):
            return ""
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"error: the warm process, which the ranks are forked from, {how}; was there enough memory?"


class Warmth:
    """The warm process of a run: begun when it is first wanted, anew when it is gone or other jobs need
    another environment, and given up for good when it does not come up.
    """

    def __init__(self, folder: Path, home: Path, wanted: bool) -> None:
        self.log, self.home, self.wanted = folder / "warm.log", home, wanted
        self.warm: Warm | None = None

    def __enter__(self) -> Warmth:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def at_hand(self, environment: Mapping[str, str], go_on: Callable[[], bool]) -> Warm | None:
        """A warm process for ranks of this environment; None means torchrun.

        Waits while its imports last and `go_on()`, which is called often.
        """
        if not self.wanted:
            return None
        common = {name: value for name, value in environment.items() if name not in OWN}
        if self.warm and (self.warm.process.poll() is not None or self.warm.environment != common):
            self.close()
        self.warm = self.warm or self._begun(common)
        until = time.monotonic() + START_SECONDS
        while self.warm.process.poll() is None and time.monotonic() < until:
            self.warm.hear()
            if self.warm.is_ready:
                return self.warm
            if not go_on():
                return None
            time.sleep(TICK_SECONDS)
        self.close()
        self.wanted = False
        return None

    @property
    def pid(self) -> int:
        """The id of the process that runs from stage to stage; 0 when there is none."""
        return self.warm.pid if self.warm else 0

    @property
    def lost(self) -> str:
        return self.warm.lost if self.warm else ""

    def _begun(self, environment: Mapping[str, str]) -> Warm:
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *PROGRAM],
                cwd=self.home,
                env={**environment, MARK: "warm"},  # its forks are known by it
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),  # no threads run in this process
            )
        assert process.stdout
        os.set_blocking(process.stdout.fileno(), False)
        return Warm(process, environment)

    def close(self) -> None:
        """Let it end; its log stays where it has something to say."""
        if self.warm is None:
            return
        process = self.warm.process
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        try:
            process.wait(GRACE_SECONDS if self.warm.is_ready else 0.1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.warm = None
        with contextlib.suppress(OSError):
            if not self.log.stat().st_size:
                self.log.unlink()
