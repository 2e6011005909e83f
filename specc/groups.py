"""When a job of one or several groups of processes is over on this machine, and who is to blame.

What comes in: the groups and, again and again, the exit codes of their processes (None while they run).
What goes out: whether to wait on. The first group's end is the job's; groups that serve have no end of
their own and leave when the first one has finished (the file OVER). Seconds everywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from specc.plan import OVER, Group

LEAVE_SECONDS = 10.0
"""How long servers may take to leave, and how long a failing client waits for its server to fail, too."""
ALONE_SECONDS = 60.0
"""How long the first group may go on when a server has left it."""


@dataclass
class Verdict:
    """What is known of the groups' ends so far."""

    groups: Sequence[Group]
    attempt: Path
    codes: list[int | None] = field(default_factory=list)
    deadline: float = math.inf

    def is_over(self, codes: Sequence[int | None], now: float) -> bool:
        """Take note of these exit codes: need nobody be waited for any more?"""
        changed = list(codes) != self.codes
        self.codes = list(codes)
        if changed:
            self._allow(now)
        return now >= self.deadline or all(code is not None for code in codes)

    def _allow(self, now: float) -> None:
        """Set how long the groups that still run may go on after this news."""
        running = [group for group, code in zip(self.groups, self.codes, strict=True) if code is None]
        if self.codes[0] == 0:
            (self.attempt / OVER).touch()
        if (culprit := self._failed()) is not None:
            waits = culprit == 0 and any(group.serves for group in running)
            self.deadline = min(self.deadline, now + (LEAVE_SECONDS if waits else 0.0))
        elif self.codes[0] == 0:
            self.deadline = now + LEAVE_SECONDS if all(group.serves for group in running) else math.inf
        elif self._left() is not None:
            self.deadline = now + ALONE_SECONDS

    @property
    def culprit(self) -> Group | None:
        """The group that is to blame; None when the first one ended well, or nobody ended yet.

        What asks a server fails when the server dies, and may be the faster to say so.
        """
        if not self.codes or (self.codes[0] == 0 and self._failed() is None):
            return None
        servers = [i for i in self._bad() if self.groups[i].serves]
        blamed = [*servers, self._left(), self._failed()]
        return next((self.groups[index] for index in blamed if index is not None), None)

    def _bad(self) -> list[int]:
        """Groups that failed; not servers that nobody needs any more."""
        done = self.codes[0] == 0
        codes = enumerate(self.codes)
        return [index for index, code in codes if code and not (done and self.groups[index].serves)]

    def _failed(self) -> int | None:
        return next(iter(self._bad()), None)

    def _left(self) -> int | None:
        """A server that left while the first group still needed it."""
        if self.codes[0] == 0:
            return None
        codes = enumerate(self.codes)
        return next((index for index, code in codes if code == 0 and self.groups[index].serves), None)


@dataclass(frozen=True)
class Addresses:
    """Where the groups of one job meet and listen on this machine."""

    rendezvous: Mapping[str, int]
    listen: Mapping[str, str]  # HOST:PORT of those that serve

    def variables(self, group: Group) -> dict[str, str]:
        """What a group's processes are told of the others; nothing where nobody serves."""
        if not self.listen:
            return {}
        said = {"SPECC_PEERS": ",".join(f"{name}={where}" for name, where in self.listen.items())}
        if group.name in self.listen:
            said["SPECC_LISTEN"] = self.listen[group.name]
        return said


def addresses(groups: Sequence[Group]) -> Addresses:
    """Free ports for all of them."""
    serving = [group.name for group in groups if group.serves]
    ports = iter(free_ports(len(groups) + len(serving)))
    rendezvous = {group.name: next(ports) for group in groups}
    return Addresses(rendezvous, {name: f"127.0.0.1:{next(ports)}" for name in serving})


def free_ports(count: int) -> list[int]:
    """Different ports that nobody holds at this moment, and that no other run of this user is given while
    this process lives: a rank may bind its own only half a minute later.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            if _is_ours(port):
                found.append(port)
    return found


_HELD: list[IO[str]] = []
"""Files whose locks say which ports this process has given away."""


def _is_ours(port: int) -> bool:
    """Take the port's lock; where no file can be written there is none, and chance has to do."""
    folder = Path(tempfile.gettempdir()) / f"specc-ports-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = open(folder / str(port), "w")  # noqa: SIM115 - held until this process ends
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return False
    _HELD.append(lock)
    return True
