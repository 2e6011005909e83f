"""One run in a folder at a time: rank 0 of a role holds a lock for as long as it lives.

The kernel holds the lock for the process, so that whatever ends it (also kill -9) frees the folder, and
no file has to be removed. On NFS the server holds it, for other machines too, and lets go of one that has
died some 90 s after its last word. The file says who holds it, for the one who is refused.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import IO, Any

from runtime.place import Place
from runtime.problem import Problem

NAME = ".lock"
SECONDS_HERE = 5.0
"""How long to wait for a holder on this machine: one that was just killed is gone sooner."""
SECONDS_ELSEWHERE = 100.0
"""How long to wait for a holder on another machine: longer than a server remembers a dead one."""

_HELD = (errno.EAGAIN, errno.EACCES)


def take(place: Place) -> IO[str] | None:
    """Lock the role's folder until the file that is returned is closed or this process ends.

    Problem R023 names who holds it. None, with a warning, where the disk knows no locks. OSError.
    """
    file = (place.role / NAME).open("a+", encoding="utf-8")
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:
                file.close()
                print(f"warning[R023]: `{place.role}` cannot be locked ({error.strerror})", file=sys.stderr)
                return None
        else:
            _sign(file, place)
            return file
        holder = _holder(place.role / NAME)
        is_here = holder.get("host") == socket.gethostname()
        if time.monotonic() - began > (SECONDS_HERE if is_here else SECONDS_ELSEWHERE):
            file.close()
            raise _refusal(place, holder)
        time.sleep(0.2)


def _sign(file: IO[str], place: Place) -> None:
    who = {"host": socket.gethostname(), "process": os.getpid(), "attempt": place.attempt.name}
    file.truncate(0)
    file.write(json.dumps(who) + "\n")
    file.flush()


def _holder(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(place: Place, holder: dict[str, Any]) -> Problem:
    who = "a process that gave no name"
    if holder:
        who = "attempt `{attempt}`, process {process} on {host}".format_map({**_NOBODY, **holder})
    advice = f"wait for it, end it with `touch {place.stage / 'stop'}`, or use another --dir"
    return Problem("R023", f"another run writes to `{place.role}`: {who}; {advice}", outside=True)


_NOBODY = {"attempt": "?", "process": "?", "host": "?"}
