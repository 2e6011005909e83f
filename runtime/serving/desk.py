"""The desk between the HTTP thread and the ranks: requests wait here, in order, and answers go back.

Rank 0's main thread takes one request at a time, shows it to the other ranks, and all of them work on it:
one lock for every verb, so inference never sees half of an update. What waits is bounded; above the bound
a client is told to come back.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from runtime.serving.wire import Array

Tensors = dict[str, Array]


class Full(RuntimeError):
    """So many requests wait that no more are taken."""


class Closed(RuntimeError):
    """The server is ending; nothing more will be answered."""


class Refused(ValueError):
    """The model cannot answer this request; the message says what is wrong with it. The client's fault."""


@dataclass
class Ask:
    """A request on the desk; `answer` is filled by the ranks."""

    model: str
    inputs: Tensors
    id: str = ""  # the client's; the same one again is the same request
    answer: Future[Tensors] = field(default_factory=Future)


class Desk:
    """A queue with an end. Safe between threads."""

    def __init__(self, most: int = 1024) -> None:
        self._waiting: queue.Queue[Ask] = queue.Queue(most)
        self._closed = threading.Event()
        self._gate = threading.Lock()

    def submit(self, model: str, inputs: Tensors, id: str = "") -> Future[Tensors]:
        """Put a request down; the future holds its answer, or what went wrong. Full, Closed."""
        ask = Ask(model, inputs, id)
        with self._gate:
            if self._closed.is_set():
                raise Closed("the server is ending")
            try:
                self._waiting.put_nowait(ask)
            except queue.Full:
                raise Full(f"{self._waiting.maxsize} requests wait already") from None
        return ask.answer

    def next(self, timeout: float) -> Ask | None:
        """The oldest request that its client still waits for, or None after `timeout` seconds."""
        while True:
            try:
                ask = self._waiting.get(timeout=timeout)
            except queue.Empty:
                return None
            if ask.answer.set_running_or_notify_cancel():
                return ask

    def close(self) -> None:
        """Take nothing more, and tell those that wait."""
        with self._gate:
            self._closed.set()
        while True:
            try:
                ask = self._waiting.get_nowait()
            except queue.Empty:
                return
            if ask.answer.set_running_or_notify_cancel():
                ask.answer.set_exception(Closed("the server ended before it came to this request"))
