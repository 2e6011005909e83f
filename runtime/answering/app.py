"""What the server's URLs mean.

    PUT  /generate                                        the tutorials' protocol (`tutorial.py`)
    POST /v1/completions, /v1/chat/completions            OpenAI's (`openai.py`)
    GET  /v1/models, /v1/models/NAME
    GET  /health/live, /health/ready, /health             alive; ready: the model can be asked; both

Everything but /health asks for `Authorization: Bearer KEY` where there is a key. A request is answered, or
refused with `{"error": {"message", "type", "param", "code"}}`: 400 and 422 can never be done as asked, 401 no
key, 404 no such thing, 405 another method, 408 too slow, 413 too large, 429 too many wait at present, 503 not
ready or ending; 429 and 503 say when to come again (Retry-After), and OpenAI's client then does so by itself.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import specc
from runtime.answering import openai, tutorial
from runtime.answering.asked import BadRequest, Fields, Wanted, body_of
from runtime.answering.exchange import Call, Closed, Done, Exchange, Full, Prompt, Refused
from runtime.answering.openai import Reply
from runtime.answering.prompts import Prompter
from runtime.answering.stream import Events, gone

READ_SECONDS = 30.0
"""Within which a client sends its whole body."""

COME_AGAIN = {429: "1", 503: "5"}
"""Seconds after which a refused client may come again."""

KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class Unanswerable(Exception):
    """The request ends here, with this status."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, message, field


@dataclass
class Answering:
    """One model behind its URLs."""

    prompter: Prompter
    exchange: Exchange
    model: str
    is_ready: Callable[[], bool]
    key: str = ""  # that clients have to know; empty: everybody may ask
    most_bytes: int = 4 << 20
    warn: Callable[[str], None] = lambda text: None
    created: int = field(default_factory=lambda: int(time.time()))
    _warned: set[str] = field(default_factory=set)

    def application(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/", self._index),
            Route("/health", self._ready),
            Route("/health/ready", self._ready),
            Route("/health/live", self._live),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route("/v1/completions", self._openai(openai.completion), methods=["POST"]),
            Route("/v1/chat/completions", self._openai(openai.chat_completion), methods=["POST"]),
            Route("/generate", self._generate, methods=["PUT", "POST"]),
        ]
        handlers: dict[Any, Any] = {Unanswerable: _refused, 404: _unknown, 405: _unknown, 500: _broken}
        return Starlette(routes=routes, exception_handlers=handlers)

    # -- what is there ---------------------------------------------------------------------------

    async def _index(self, request: Request) -> Response:
        return JSONResponse({"name": "specc", "version": specc.__version__, "model": self.model})

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def _ready(self, request: Request) -> Response:
        if self.is_ready() and not self.exchange.is_closed:
            return JSONResponse({"status": "ready"})
        state = "ending" if self.exchange.is_closed else "loading"
        return JSONResponse({"status": state}, 503, {"Retry-After": COME_AGAIN[503]})

    async def _models(self, request: Request) -> Response:
        self._admit(request)
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def _model(self, request: Request) -> Response:
        self._admit(request)
        if request.path_params["name"] != self.model:
            raise Unanswerable(404, f"there is no such model here; this server has `{self.model}`", "model")
        return JSONResponse(self._card())

    def _card(self) -> dict[str, Any]:
        own = {"id": self.model, "object": "model", "created": self.created, "owned_by": "specc"}
        return own | {"max_model_len": self.prompter.limit}

    # -- answers ---------------------------------------------------------------------------------

    def _openai(
        self, reading: Callable[[Fields, Prompter, str], Reply]
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def answer(request: Request) -> Response:
            fields = Fields(await self._body(request))
            reply = await self._read(request, fields, lambda: reading(fields, self.prompter, self.model))
            call = self._submit(reply.wanted)
            if reply.stream:
                return Events(self._pieces(reply, call), lambda: self.exchange.leave(call))
            heard, answers = await self._whole(request, call, len(reply.wanted))
            return JSONResponse(await asyncio.to_thread(reply.whole, heard, answers))

        return answer

    async def _generate(self, request: Request) -> Response:
        fields = Fields(await self._body(request), tutorial.UNPROCESSABLE)
        asked = await self._read(request, fields, lambda: tutorial.generate(fields, self.prompter))
        call = self._submit(asked.wanted)
        heard, answers = await self._whole(request, call, len(asked.wanted))
        return JSONResponse(await asyncio.to_thread(asked.reply, heard, answers))

    async def _pieces(self, reply: Reply, call: Call) -> AsyncIterator[dict[str, Any]]:
        try:
            async for place, event in call.answers():
                for piece in reply.pieces(place, event):
                    yield piece
        except (Refused, Closed) as error:  # the status is out already
            yield _error(400 if isinstance(error, Refused) else 503, str(error))
            return
        for piece in reply.last():
            yield piece

    async def _whole(
        self, request: Request, call: Call, count: int
    ) -> tuple[list[Prompt | None], list[Done]]:
        """All answers of a call; a client that leaves takes its rows along."""
        waiting = asyncio.ensure_future(_collected(call, count))
        leaving = asyncio.ensure_future(gone(request.receive))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Unanswerable(400, "the client left")
            return waiting.result()
        except Refused as error:
            raise Unanswerable(400, str(error)) from None
        except Closed as error:
            raise Unanswerable(503, str(error)) from None
        finally:
            self.exchange.leave(call)
            waiting.cancel()
            leaving.cancel()

    def _submit(self, wanted: tuple[Wanted, ...]) -> Call:
        if len(wanted) > (most := self.exchange.most):
            message = (
                f"{len(wanted)} answers are asked for in one request, and this server makes at most {most}"
            )
            help = "ask for fewer, or start it with more (--max-requests, or max_requests in its spec)"
            raise Unanswerable(400, f"{message} at a time; {help}")
        try:
            return self.exchange.submit([self.prompter.clipped(one) for one in wanted])
        except Full as error:
            raise Unanswerable(429, str(error)) from None
        except Closed as error:
            raise Unanswerable(503, str(error)) from None

    # -- requests --------------------------------------------------------------------------------

    def _admit(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if self.key and not hmac.compare_digest(
            given.encode("latin-1", "replace"), f"Bearer {self.key}".encode()
        ):
            raise Unanswerable(401, "this server wants its key (Authorization: Bearer ...)")

    async def _body(self, request: Request) -> dict[str, Any]:
        self._admit(request)
        if not self.is_ready():
            raise Unanswerable(503, "the model is still being loaded")
        raw = await self._bytes(request)
        try:
            return await asyncio.to_thread(body_of, raw)
        except BadRequest as bad:
            raise Unanswerable(bad.status, bad.message, bad.field) from None

    async def _bytes(self, request: Request) -> bytes:
        said = request.headers.get("content-length", "")
        if said.isdigit() and int(said) > self.most_bytes:
            raise Unanswerable(413, f"the body is {said} bytes, and the limit is {self.most_bytes}")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Unanswerable(400, "a compressed body is not taken")
        pieces, size = [], 0
        try:
            async with asyncio.timeout(READ_SECONDS):
                async for piece in request.stream():
                    size += len(piece)
                    if size > self.most_bytes:
                        raise Unanswerable(413, f"the body is larger than {self.most_bytes} bytes")
                    pieces.append(piece)
        except TimeoutError:
            raise Unanswerable(408, f"the body did not come within {READ_SECONDS:g} s") from None
        except ClientDisconnect:
            raise Unanswerable(400, "the client left") from None
        return b"".join(pieces)

    async def _read(self, request: Request, fields: Fields, reading: Callable[[], Any]) -> Any:
        """The call of a body; texts become tokens in a thread, so that long ones hold nobody up."""
        try:
            found = await asyncio.to_thread(reading)
        except BadRequest as bad:
            raise Unanswerable(bad.status, bad.message, bad.field) from None
        for name in fields.unknown():
            told = f"{request.url.path}: the field {name[:60]!r} is not known here and means nothing"
            if told not in self._warned and len(self._warned) < 100:
                self._warned.add(told)
                self.warn(told)
        return found


async def _collected(call: Call, count: int) -> tuple[list[Prompt | None], list[Done]]:
    heard: list[Prompt | None] = [None] * count
    answers: list[Any] = [None] * count
    async for place, event in call.answers():
        if isinstance(event, Prompt):
            heard[place] = event
        elif isinstance(event, Done):
            answers[place] = event
    return heard, answers


def _error(status: int, message: str, field: str | None = None) -> dict[str, Any]:
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": field, "code": status}}


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unanswerable)
    headers = {"Retry-After": COME_AGAIN[error.status]} if error.status in COME_AGAIN else {}
    if error.status in (408, 413):  # what is left of the body is not read
        headers["Connection"] = "close"
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(_error(error.status, error.message, error.field), error.status, headers)


async def _unknown(request: Request, error: Any) -> Response:
    if error.status_code == 405:
        message = f"{request.url.path} does not know the method {request.method}"
        return JSONResponse(_error(405, message), 405, error.headers)
    return JSONResponse(_error(404, f"there is nothing at {request.url.path}"), 404)


async def _broken(request: Request, error: Exception) -> Response:
    return JSONResponse(_error(500, "the server failed at this request; its log says how"), 500)
