"""Asking a server for numbers, and getting them or an error: never a made-up one.

What is safe to repeat is repeated: connecting, and asking a model that only reads. A request that changes
something is repeated only when it carries an `id` that the server knows again. A reply whose tensors do not
have the names, types and shapes asked for, or that holds a number which is not finite, is an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx
import numpy as np

from runtime.problem import Problem
from runtime.serving import wire
from runtime.serving.app import JSON_LENGTH, Tensor

PAUSE_SECONDS, LONGEST_PAUSE = 0.1, 2.0
READY_TIMEOUT = 5.0


@dataclass(frozen=True)
class Patience:
    """How long a server may take, in seconds."""

    ready: float = 1800.0  # to load its models
    answer: float = 1800.0  # for one request
    away: float = 60.0  # without any answer at all to a repeated request


class Client:
    """One server of this run. Safe to use from one thread at a time."""

    def __init__(
        self,
        url: str,
        token: str,
        patience: Patience | None = None,
        keep_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """`keep_waiting` is called now and then while waiting; what it raises ends the wait."""
        self.url, self.patience, self._keep_waiting = url, patience or Patience(), keep_waiting
        limits = httpx.Timeout(self.patience.answer, connect=10.0)
        headers = {"Authorization": f"Bearer {token}"}
        # trust_env: a cluster's http_proxy would catch the names of its own nodes
        self._http = httpx.Client(base_url=url, timeout=limits, headers=headers, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def wait_until_ready(self) -> None:
        """Return when the server can be asked. Problem R051 when it does not come in time."""
        deadline = time.monotonic() + self.patience.ready
        pause, last = PAUSE_SECONDS, "nothing answered"
        while True:
            self._keep_waiting()
            try:
                status = self._http.get("/v2/health/ready", timeout=READY_TIMEOUT).status_code
                if status == 200:
                    return
                last = f"it answered {status}"
            except httpx.HTTPError as error:
                last = _said(error)
            if time.monotonic() + pause > deadline:
                message = f"the server at {self.url} was not ready within {self.patience.ready:g} s ({last})"
                raise Problem("R051", message)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def infer(
        self, model: str, inputs: Mapping[str, wire.Array], wanted: tuple[Tensor, ...], id: str = ""
    ) -> dict[str, wire.Array]:
        """The outputs `wanted`, checked. Problem R052 when the server fails, R053 when its answer is wrong.

        The request is repeated until the server has been away for `patience.away` seconds; give an `id`
        with one that changes something, so that the server does it once.
        """
        body, length = wire.write_request(inputs, id)
        response = self._posted(f"/v2/models/{model}/infer", body, length)
        return self._checked(model, response, wanted)

    def _posted(self, path: str, body: bytes, length: int) -> httpx.Response:
        headers = {JSON_LENGTH: str(length), "Content-Type": "application/octet-stream"}
        pause, gone_since = PAUSE_SECONDS, None
        while True:
            self._keep_waiting()
            try:
                response = self._http.post(path, content=body, headers=headers)
                if response.status_code != 503:
                    return response
                last = f"503 {_reason(response)}"
            except httpx.ReadTimeout:
                message = f"the server at {self.url} did not answer within {self.patience.answer:g} s"
                raise Problem("R052", message) from None
            except httpx.HTTPError as error:
                last = _said(error)
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since > self.patience.away:
                message = f"the server at {self.url} was away for {self.patience.away:g} s ({last})"
                raise Problem("R052", message)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _checked(
        self, model: str, response: httpx.Response, wanted: tuple[Tensor, ...]
    ) -> dict[str, wire.Array]:
        if response.status_code != 200:
            message = f"`{model}` at {self.url} answered {response.status_code}: {_reason(response)}"
            raise Problem("R052", message)
        length = response.headers.get(JSON_LENGTH)
        try:
            outputs = wire.read_reply(response.content, int(length) if length else None)
        except ValueError as error:  # BadTensors among them
            raise Problem("R053", f"`{model}` at {self.url} sent no tensors: {error}") from None
        for tensor in wanted:
            problem = _problem_with(tensor, outputs)
            if problem:
                raise Problem("R053", f"`{model}` at {self.url} sent {problem}")
        return {tensor.name: outputs[tensor.name] for tensor in wanted}


def _problem_with(tensor: Tensor, outputs: Mapping[str, wire.Array]) -> str:
    """What is wrong with an output by name, type, shape and value; empty when nothing is."""
    array = outputs.get(tensor.name)
    if array is None:
        return f"no `{tensor.name}`"
    if wire.datatype_of(array) != tensor.datatype:
        return f"`{tensor.name}` as {wire.datatype_of(array)}, not {tensor.datatype}"
    want = list(tensor.shape)
    if array.ndim != len(want) or any(w not in (-1, h) for w, h in zip(want, array.shape, strict=True)):
        return f"`{tensor.name}` of shape {list(array.shape)}, not {want}"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"`{tensor.name}` with {int((~np.isfinite(array)).sum())} numbers that are not finite"
    return ""


def _reason(response: httpx.Response) -> str:
    """The server's own words, one short line."""
    try:
        said = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        said = response.text
    return " ".join(str(said).split())[:300] or "no reason"


def _said(error: httpx.HTTPError) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
