"""Processes that this one starts and must not leave behind.

A new process is told by the kernel when its parent dies; what loses its parent becomes a child of this one,
so that it can be found; and `end` returns when everything that descends from some processes is gone. psutil
comes with the runtime's packages.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import psutil

GRACE_SECONDS = 5.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MARK = "SPECC_ATTEMPT"
"""A variable of every rank's environment."""


class Process(Protocol):
    """What `subprocess.Popen` and others have: something that runs, and ends with an exit code."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


def die_with(parent: int) -> Callable[[], None] | None:
    """What a new process does first: ask to be told to end when `parent` dies (Linux only)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died between fork and here
            os._exit(1)

    return prepare


def adopt_orphans() -> None:
    """Make this process the parent of ranks that lose theirs, so that they can be found and ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end(processes: Sequence[Process], spared: int = 0) -> None:
    """Leave nothing behind: whatever descends from these processes is gone when this returns.

    Also ranks that have lost their parents, but for the process with the id `spared`.
    """
    import psutil

    running = [process for process in processes if process.poll() is None]  # other ids may be taken
    family = [child for process in running for child in _descendants(process)]
    for process in running:
        process.kill()
    for child in family:
        with contextlib.suppress(psutil.Error):
            child.kill()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE_SECONDS)
    psutil.wait_procs(family, timeout=GRACE_SECONDS)
    _end_orphans(spared)


def _descendants(process: Process) -> list[psutil.Process]:
    import psutil

    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []


def _end_orphans(spared: int) -> None:
    """End ranks whose parent died before they were seen: they have become children of this process."""
    import psutil

    if sys.platform != "linux":
        return
    children = psutil.Process().children(recursive=True)
    orphans = [child for child in children if child.pid != spared and _is_rank(child)]
    for child in orphans:
        with contextlib.suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(orphans, timeout=GRACE_SECONDS)


def _is_rank(process: psutil.Process) -> bool:
    import psutil

    try:
        return MARK in process.environ()
    except (psutil.Error, OSError):
        return False
