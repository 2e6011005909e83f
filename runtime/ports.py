"""Rendezvous ports: is one free, who holds it, and the next that is.

`python -m runtime.ports 29500` prints the first free port from there on, and says on stderr who holds
those it passed over. Standard library only, so a batch script can ask before anything is imported.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

TRIES = 64


def is_free(port: int) -> bool:
    """Can a server listen there now, on all addresses?"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Who listens on the port: `python3 (pid 4711)`, or that it cannot be told."""
    sockets = _listening(port)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                target = os.readlink(descriptor)
                if target.startswith("socket:[") and target[8:-1] in sockets:
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return "a process of another user" if sockets else "nobody that is seen from here"


def first_free(port: int, tries: int = TRIES) -> int | None:
    """The first free port among `tries` from `port` on."""
    for candidate in range(port, min(port + tries, 65536)):
        if is_free(candidate):
            return candidate
    return None


def _listening(port: int) -> set[str]:
    """Inodes of the sockets that listen on the port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rsplit(":", 1)[1], 16) == port:
                    found.add(columns[9])
    return found


def main(arguments: list[str]) -> int:
    """Print a free port; 2 for a wrong call, 3 when none is free."""
    if len(arguments) != 1 or not arguments[0].isdigit() or not 0 < int(arguments[0]) < 65536:
        print("usage: python -m runtime.ports PORT", file=sys.stderr)
        return 2
    wanted = int(arguments[0])
    found = first_free(wanted)
    for taken in range(wanted, found or wanted + 1):
        print(f"port {taken} is held by {holder(taken)}", file=sys.stderr)
    if found is None:
        print(f"error[R009]: no free port in {wanted}..{wanted + TRIES - 1}", file=sys.stderr)
        return 3
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
