"""Answers in pieces (server-sent events), and connections that are let go when their client is slow.

Three ways to be slow, none of which holds the server: a head that does not come, a body that does not come
(`app`), and an answer that is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import h11
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0
"""Within which the head of a request has to be there, from its first byte or from the connection on."""

UNREAD_SECONDS = 30.0
"""For which an answer may wait to be read, once the buffers are full."""


class Patient(H11Protocol):
    """uvicorn's connection, with an end to patience."""

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch_head(self) -> None:
        """Count from the first byte of a head, or the connection, to the head's end."""
        begun = self.cycle is None or bool(self.conn.trailing_data[0])
        waits = begun and self.conn.their_state is h11.IDLE
        if waits and self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
        elif not waits and self._head is not None:
            self._head.cancel()
            self._head = None


class Events(Response):
    """Server-sent events; `left` is called at the end, however it comes."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[dict[str, Any]], left: Callable[[], None]) -> None:
        self.chunks, self.left = chunks, left
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        telling = asyncio.ensure_future(self._tell(send))
        leaving = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
        finally:
            self.left()
            for task in (telling, leaving):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def _tell(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for chunk in self.chunks:
            text = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
            await send(_body(f"data: {text}\n\n"))
        await send(_body("data: [DONE]\n\n"))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _body(text: str) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode("utf-8", "replace"), "more_body": True}


async def gone(receive: Any) -> None:
    """Returns when the client has left; its body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
