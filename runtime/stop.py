"""How a run is asked to stop: a file named `stop`, or a signal.

A launcher, a batch script or a person touches the file; Slurm and the system send SIGTERM or SIGUSR1,
a terminal SIGINT. All mean the same: finish the step, save, leave with exit code 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import threading
import time
from pathlib import Path

from runtime.failure import failed_peers

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopFlag:
    """Set by a signal of this process; `is_raised` also looks for the file."""

    def __init__(self, file: Path, attempt: Path, rank: int):
        self.file, self.attempt, self.rank = file, attempt, rank
        self.signalled = False
        self._looked = -math.inf

    def listen(self) -> None:
        """Take the signals. A process that waits in a collective cannot run a handler, so a thread
        reads them from a pipe: when SIGTERM follows the failure of another rank, it leaves at once.
        """
        for number in SIGNALS:
            signal.signal(number, self._note)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()

    def is_raised(self) -> bool:
        """Was this process told to stop?"""
        return self.signalled or self.file.exists()

    def is_seen(self, every: float = 0.25) -> bool:
        """As `is_raised`, for who asks at every token: the file is looked for once in `every` seconds, as
        its folder may lie on a network."""
        if self.signalled or (now := time.monotonic()) - self._looked < every:
            return self.signalled
        self._looked = now
        return self.file.exists()

    def _note(self, number: int, frame: object) -> None:
        self.signalled = True

    def _watch(self, reader: int) -> None:
        while received := os.read(reader, 64):
            if signal.SIGTERM in received and failed_peers(self.attempt, self.rank):
                os._exit(1)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask Linux to send this process a signal when its parent dies; does nothing elsewhere."""
    prctl_set_death_signal = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(prctl_set_death_signal, number)
