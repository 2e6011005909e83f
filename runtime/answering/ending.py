"""When a server ends: it is told to, or nobody has asked for so long that it has finished."""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime.answering.exchange import Exchange
from runtime.stop import StopFlag


class Ending:
    """Rank 0's watch over both; asked at every token."""

    def __init__(
        self,
        stop: StopFlag,
        exchange: Exchange | None,
        idle_seconds: float = 0,
        is_wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        """`idle_seconds` 0: it never finishes by itself; nor does it while it `is_wanted`."""
        self.stop, self.exchange, self.idle_seconds = stop, exchange, idle_seconds
        self.is_wanted = is_wanted
        self.is_over = False  # finished by itself
        self._began = self._busy = time.monotonic()
        self._asked = 0  # requests until then

    def is_due(self) -> bool:
        """Whether to take nothing more and end."""
        if self.is_over or self.stop.is_seen():
            return True
        if not self.idle_seconds:
            return False
        now = time.monotonic()
        if self._is_busy():
            self._busy = now
        self.is_over = now - self._busy > self.idle_seconds
        return self.is_over

    def _is_busy(self) -> bool:
        """Whether somebody waits, or has been answered since this was asked: one token takes one step."""
        asked = self.exchange.asked if self.exchange is not None else 0
        is_new, self._asked = asked != self._asked, asked
        return is_new or self.is_wanted() or (self.exchange is not None and len(self.exchange) > 0)

    @property
    def seconds(self) -> float:
        """Since it was ready."""
        return time.monotonic() - self._began

    @property
    def why(self) -> str:
        """In words."""
        return f"nobody asked for {self.idle_seconds:g} s" if self.is_over else "told to stop"
