"""The exchange between the HTTP thread and the ranks: requests go one way, tokens the other.

The ranks ask before each of their steps what is new, and never wait while they have something to do. What
waits or is generated is bounded: above the bound a client is told to come back. All requests of one call
come and go together; when its client leaves, the ranks are told to free the rows.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from runtime.answering.asked import Wanted

Top = tuple[tuple[int, float], ...]


class Full(RuntimeError):
    """So many continuations are wanted already that no more are taken."""


class Refused(ValueError):
    """The model cannot continue this; the message says why. The client's fault."""


class Closed(RuntimeError):
    """The server is ending, or its model failed; nothing more will be answered."""


@dataclass(frozen=True)
class Word:
    """One token, with the most likely ones of its place."""

    token: int
    logprob: float
    top: Top = ()


@dataclass(frozen=True)
class Prompt:
    """A prompt's tokens from the second on."""

    words: tuple[Word, ...]


@dataclass(frozen=True)
class Done:
    """A continuation that is over. `words` are all of it."""

    words: tuple[Word, ...]
    finish: str  # stop | length | abort


Event = Word | Prompt | Done


@dataclass(frozen=True)
class News:
    """What is new since the last step: continuations by id, and ids that nobody wants any more."""

    added: tuple[tuple[int, Wanted], ...] = ()
    left: tuple[int, ...] = ()


@dataclass
class Call:
    """What one client waits for, seen from its own event loop."""

    loop: asyncio.AbstractEventLoop
    ids: dict[int, int]  # id of a continuation -> its place in the call
    events: asyncio.Queue[tuple[int, Event] | Exception] = field(default_factory=asyncio.Queue)

    async def answers(self) -> AsyncIterator[tuple[int, Event]]:
        """Place and event, until all are done. Refused, Closed."""
        left = len(self.ids)
        while left:
            found = await self.events.get()
            if isinstance(found, Exception):
                raise found
            left -= isinstance(found[1], Done)
            yield found


class Exchange:
    """Safe between the HTTP thread's loop and the thread of the ranks."""

    def __init__(self, most: int = 512) -> None:
        """`most`: continuations that wait or are generated."""
        self.most = most
        self._numbers = itertools.count()
        self._lock = threading.Condition()
        self._added: list[tuple[int, Wanted]] = []
        self._left: list[int] = []
        self._calls: dict[int, Call] = {}  # by id of a continuation that is not done
        self._closed = ""
        self.asked = 0  # continuations that were ever taken
        self.answered = self.tokens = 0  # those that were done, and their tokens

    def __len__(self) -> int:
        """Continuations that are not done."""
        return len(self._calls)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is taken."""
        return bool(self._closed)

    def submit(self, wanted: Sequence[Wanted]) -> Call:
        """Ask for these, all or none. From an event loop. Full, Closed."""
        with self._lock:
            if self._closed:
                raise Closed(self._closed)
            if len(self._calls) + len(wanted) > self.most:
                raise Full(f"{len(self._calls)} answers are wanted already, and {self.most} is the limit")
            ids = {next(self._numbers): place for place in range(len(wanted))}
            call = Call(asyncio.get_running_loop(), ids)
            self._calls |= dict.fromkeys(ids, call)
            self.asked += len(ids)
            self._added += zip(ids, wanted, strict=True)
            self._lock.notify()
            return call

    def leave(self, call: Call) -> None:
        """The client is gone, or has what it wants: what is not done need not be."""
        with self._lock:
            for id in call.ids:
                if self._calls.pop(id, None) is not None:
                    self._left.append(id)
            self._lock.notify()

    # -- the ranks' side -------------------------------------------------------------------------

    def news(self, timeout: float) -> News:
        """What is new; waits for that at most so many seconds."""
        with self._lock:
            if not self._added and not self._left and timeout > 0:
                self._lock.wait(timeout)
            left = set(self._left)
            news = News(tuple(a for a in self._added if a[0] not in left), tuple(self._left))
            self._added, self._left = [], []
            return news

    def deliver(self, events: Sequence[tuple[int, Event]]) -> None:
        """What the ranks made, by id; what nobody waits for is dropped."""
        batches: dict[int, tuple[Call, list[tuple[int, Event]]]] = {}
        with self._lock:
            for id, event in events:
                call = self._calls.get(id)
                if call is None:
                    continue
                batches.setdefault(id_of(call), (call, []))[1].append((call.ids[id], event))
                if isinstance(event, Done):
                    del self._calls[id]
                    self.answered += 1
                    self.tokens += len(event.words)
        for call, found in batches.values():
            _soon(call, found)

    def refuse(self, id: int, why: str) -> None:
        """Tell the client of a continuation that it cannot be had; the rest of its call goes, too."""
        with self._lock:
            call = self._calls.get(id)
        if call is not None:
            _soon(call, [Refused(why)])
            self.leave(call)

    def close(self, why: str = "the server is ending") -> None:
        """Take nothing more."""
        with self._lock:
            self._closed = self._closed or why
            self._lock.notify()

    def drop(self, why: str) -> None:
        """Take nothing more, and tell all that wait."""
        self.close(why)
        with self._lock:
            calls = {id_of(call): call for call in self._calls.values()}
            self._calls = {}
        for call in calls.values():
            _soon(call, [Closed(why)])


def id_of(call: Call) -> int:
    """A call is known by being itself."""
    return id(call)


def _soon(call: Call, found: Sequence[tuple[int, Event] | Exception]) -> None:
    def put() -> None:
        for event in found:
            call.events.put_nowait(event)

    try:
        call.loop.call_soon_threadsafe(put)
    except RuntimeError:  # its loop is closed: the HTTP side has ended
        return
