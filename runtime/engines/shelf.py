"""Folders in memory in which weights change hands, and what a kill leaves of them.

Memory that a file takes in /dev/shm outlives whoever wrote it, and weights are large. So each folder has an
owner: a process that holds a lock in it for as long as it lives, which the kernel lets go of whatever ends
the process (kill -9, too). Whoever comes next on the machine removes the folders that nobody owns, whatever
run they were of. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MEMORY = Path("/dev/shm")
PREFIX = "specc-{user}-"
LOCK = ".owner"


@dataclass
class Shelf:
    """A folder that is this process's, empty at first, until it is closed or the process ends."""

    folder: Path
    _lock: IO[bytes] | None = None  # none: on a disk, in a folder that is the run's alone

    def close(self) -> None:
        """Remove the folder. More than once is fine."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


def taken(name: str, has_room: Callable[[], bool], memory: Path = MEMORY) -> Shelf | None:
    """A folder in memory of that name; None where there is no room, or it is somebody else's.

    What dead processes left is removed first, which may be what makes room.
    """
    if not memory.is_dir():
        return None
    sweep(memory)
    folder = memory / (PREFIX.format(user=os.getuid()) + name)
    if not has_room() or not _made_own(folder):
        return None
    lock = _locked(folder)
    return None if lock is None else Shelf(folder, lock)


def sweep(memory: Path = MEMORY) -> list[Path]:
    """Remove this user's folders that no living process owns; which they were."""
    gone = []
    for folder in sorted(memory.glob(PREFIX.format(user=os.getuid()) + "*")):
        if not _is_own(folder):
            continue
        lock = _locked(folder)
        if lock is not None:
            Shelf(folder, lock).close()
            gone.append(folder)
    return gone


def _locked(folder: Path) -> IO[bytes] | None:
    """The lock in a folder; None while somebody else has it, or where the folder went meanwhile."""
    with contextlib.suppress(OSError):
        file = (folder / LOCK).open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino == (folder / LOCK).stat().st_ino:
                return file
        except OSError:
            file.close()
            return None
        file.close()  # of a folder that a sweep has just removed
    return None


def _made_own(folder: Path) -> bool:
    """Make a folder that only this user can look into; false where it is somebody else's."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    return _is_own(folder)


def _is_own(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
