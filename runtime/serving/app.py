"""What the server's URLs mean: the Open Inference Protocol v2 over HTTP, guarded by the run's token.

    GET  /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, /v2/models/NAME/ready
    POST /v2/models/NAME/infer

Health is open to all; what reads or changes a model asks for `Authorization: Bearer TOKEN`. A request is
answered whole or refused with `{"error": ...}`: 400 not of the protocol, 401 wrong token, 404 no such model,
408 too slow, 413 too large, 422 the model cannot take these tensors, 500 the model failed, 503 not ready.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import specc
from runtime.serving import wire
from runtime.serving.desk import Closed, Desk, Full, Refused

JSON_LENGTH = "Inference-Header-Content-Length"
READ_SECONDS = 60.0
"""Seconds within which a client sends its whole body; a slower one is let go."""


@dataclass(frozen=True)
class Tensor:
    """A tensor that a model takes or gives: -1 for a size that varies."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Served:
    """A name that can be asked, with what it takes and gives."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def problem_with(self, inputs: Mapping[str, wire.Array]) -> str:
        """What is wrong with these inputs by name, type and shape; empty when nothing is."""
        known = {tensor.name: tensor for tensor in self.inputs}
        for name in inputs:
            if name not in known:
                return f"`{self.name}` has no input `{name}`; it takes {', '.join(known)}"
        for name, tensor in known.items():
            if name not in inputs:
                if tensor.optional:
                    continue
                return f"`{self.name}` needs the input `{name}`"
            array = inputs[name]
            datatype = wire.datatype_of(array)
            if datatype != tensor.datatype:
                return f"input `{name}` is {datatype}, but must be {tensor.datatype}"
            fits = len(array.shape) == len(tensor.shape) and all(
                want in (-1, have) for want, have in zip(tensor.shape, array.shape, strict=True)
            )
            if not fits:
                return f"input `{name}` has shape {list(array.shape)}, but must have {list(tensor.shape)}"
        return ""


class Unanswerable(Exception):
    """The request ends here, with this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def application(
    served: tuple[Served, ...],
    desk: Desk,
    token: str,
    is_ready: Callable[[], bool],
    most_bytes: int = 1 << 30,
    name: str = "specc",
) -> Starlette:
    """The ASGI application. `token` guards it; `is_ready` says whether the models can be asked yet."""
    models = {one.name: one for one in served}

    def model_of(request: Request) -> Served:
        found = models.get(request.path_params["model"])
        if found is None:
            raise Unanswerable(404, f"there is no model `{request.path_params['model']}` here")
        return found

    def authorised(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Unanswerable(401, "this server wants the token of its run (Authorization: Bearer ...)")

    async def infer(request: Request) -> Response:
        authorised(request)
        model = model_of(request)
        if not is_ready():
            raise Unanswerable(503, "the models are still being loaded")
        asked = await _read(request, most_bytes)
        problem = model.problem_with(asked.inputs)
        if problem:
            raise Unanswerable(422, problem)
        outputs = await _answered(desk, model.name, asked)
        try:
            body, length = wire.write_reply(model.name, outputs, asked)
        except wire.BadTensors as error:
            raise Unanswerable(400, str(error)) from None
        headers = {JSON_LENGTH: str(length)} if length < len(body) else {}
        kind = "application/octet-stream" if headers else "application/json"
        return Response(body, media_type=kind, headers=headers)

    async def metadata(request: Request) -> Response:
        model = model_of(request)
        both = {"inputs": model.inputs, "outputs": model.outputs}
        tensors = {
            key: [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in value]
            for key, value in both.items()
        }
        return JSONResponse({"name": model.name, "versions": ["1"], "platform": name, **tensors})

    async def server(request: Request) -> Response:
        extensions = ["binary_tensor_data"]
        return JSONResponse({"name": name, "version": specc.__version__, "extensions": extensions})

    async def live(request: Request) -> Response:
        return Response()

    async def ready(request: Request) -> Response:
        if "model" in request.path_params:
            model_of(request)
        return Response(status_code=200 if is_ready() else 503)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Unanswerable)
        message = error.message.encode("utf-8", "backslashreplace").decode()  # names may hold half characters
        return JSONResponse({"error": message}, error.status)

    async def unknown(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"there is nothing at {request.method} {request.url.path}"}, 404)

    one = "/v2/models/{model}"
    routes = [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        *(Route(one + version, metadata) for version in ("", "/versions/{version}")),
        *(Route(f"{one}{version}/ready", ready) for version in ("", "/versions/{version}")),
        *(Route(f"{one}{version}/infer", infer, methods=["POST"]) for version in ("", "/versions/{version}")),
    ]
    handlers: dict[Any, Any] = {Unanswerable: refused, 404: unknown, 405: unknown}
    return Starlette(routes=routes, exception_handlers=handlers)


async def _read(request: Request, most_bytes: int) -> wire.Request:
    """The request's tensors; a body that is too large, too slow or not of the protocol is refused."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most_bytes:
        raise Unanswerable(413, f"the body is {said} bytes, more than {most_bytes}")
    length = request.headers.get(JSON_LENGTH)
    if length is not None and not (length.isdecimal() and len(length) < 18):
        raise Unanswerable(400, f"{JSON_LENGTH} is {length!r}, not a number")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Unanswerable(400, "a compressed body is not taken")
    pieces, size = [], 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size > most_bytes:
                    raise Unanswerable(413, f"the body is more than {most_bytes} bytes")
                pieces.append(piece)
    except TimeoutError:
        raise Unanswerable(408, f"the body did not come within {READ_SECONDS:g} s") from None
    except ClientDisconnect:
        raise Unanswerable(400, "the client left") from None
    try:
        return wire.read_request(b"".join(pieces), None if length is None else int(length))
    except wire.BadTensors as error:
        raise Unanswerable(400, str(error)) from None


async def _answered(desk: Desk, model: str, asked: wire.Request) -> dict[str, wire.Array]:
    """What the ranks say to it; every way in which they do not is a status of its own."""
    try:
        return await asyncio.wrap_future(desk.submit(model, asked.inputs, asked.id))
    except Refused as error:
        raise Unanswerable(422, str(error)) from None
    except (Full, Closed) as error:
        raise Unanswerable(503, str(error)) from None
    except Exception as error:  # a failing model is told to the client, and ends the server by itself
        raise Unanswerable(500, f"{type(error).__name__}: {error}") from None
