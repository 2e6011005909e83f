"""Judges behind HTTP that are wrong, slow or gone: every rank says the same, soon; no number is made up."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import worlds

from runtime.serving.app import application
from runtime.serving.desk import Desk, Refused, Tensors
from runtime.serving.names import served_of
from runtime.serving.server import bound, serving

pytestmark = pytest.mark.torch

TOKEN = "s3cret"


def sums(inputs: Tensors) -> Tensors:
    """Values that count up, and a score that is the sum of a row's tokens."""
    tokens = inputs["tokens"]
    values = np.arange(tokens.size, dtype=np.float32).reshape(tokens.shape)
    return {"values": values, "rewards": tokens.sum(1, keepdims=True).astype(np.float32)}


def changed(**how: Callable[[Any], Any]) -> Callable[[Tensors], Tensors]:
    """The right answer but for the outputs that are changed."""

    def answer(inputs: Tensors) -> Tensors:
        found = sums(inputs)
        return found | {name: change(found[name]) for name, change in how.items()}

    return answer


def failing(error: Exception) -> Callable[[Tensors], Tensors]:
    def answer(inputs: Tensors) -> Tensors:
        raise error

    return answer


def slow(seconds: float) -> Callable[[Tensors], Tensors]:
    def answer(inputs: Tensors) -> Tensors:
        time.sleep(seconds)
        return sums(inputs)

    return answer


@contextlib.contextmanager
def judge(answer: Callable[[Tensors], Tensors], token: str = TOKEN) -> Iterator[str]:
    """A critic and reward model whose ranks are one thread; its address."""
    desk, over = Desk(), threading.Event()

    def work() -> None:
        while not over.is_set():
            ask = desk.next(0.02)
            if ask is not None:
                try:
                    ask.answer.set_result(answer(ask.inputs))
                except Exception as error:
                    ask.answer.set_exception(error)

    ranks = threading.Thread(target=work)
    ranks.start()
    app = application(served_of(["critic", "reward"]), desk, token, lambda: True)
    try:
        with serving(app, bound("127.0.0.1", 0)) as url:
            yield url
    finally:
        over.set()
        desk.close()
        ranks.join(5)


class Liar(BaseHTTPRequestHandler):
    """Ready, and then: hangs up (`gone`), or says what is no tensor (`garbage`)."""

    body: bytes | None = None

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        if self.body is None:
            self.connection.close()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()


@contextlib.contextmanager
def liar(body: bytes | None) -> Iterator[str]:
    kind = type("OneLiar", (Liar,), {"body": body})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


FAULTS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "broken": (lambda: judge(failing(ValueError("odd"))), "R052", "answered 500: ValueError: odd"),
    "refusing": (lambda: judge(failing(Refused("row 1 is odd"))), "R052", "answered 422: row 1 is odd"),
    "nan": (
        lambda: judge(changed(rewards=lambda x: x * np.float32("nan"))),
        "R053",
        "sent `rewards` with 2 numbers that are not finite",
    ),
    "narrow": (
        lambda: judge(changed(values=lambda x: x[:, 1:])),
        "R053",
        "`values` of shape [2, 3], not [2, 4]",
    ),
    "few": (lambda: judge(changed(rewards=lambda x: x[1:])), "R053", "`rewards` of shape [1, 1], not [2, 1]"),
    "doubles": (lambda: judge(changed(values=lambda x: x.astype(float))), "R053", "`values` as FP64"),
    "hung": (lambda: judge(slow(2)), "R052", "did not answer within 1 s"),
    "token": (lambda: judge(sums, "another"), "R052", "answered 401: this server wants the token"),
    "garbage": (lambda: liar(b'{"outputs": 1}'), "R053", "sent no tensors"),
    "hangs up": (lambda: liar(None), "R052", "was away for 1 s"),
    "absent": (lambda: contextlib.nullcontext(f"http://127.0.0.1:{worlds.free_port()}"), "R051", "not ready"),
}


ROWS = [(i, 1, *(2,) * (1 + i % 3)) for i in range(8)]
SCORES = {i: float(sum(row)) for i, row in enumerate(ROWS)}


def rollouts() -> list[Any]:
    from runtime.rollouts import Rollout

    return [Rollout(i, 10 + i, row[:2], row[2:], (0.0,) * len(row[2:]), "stop") for i, row in enumerate(ROWS)]


def asked(urls: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """A rank of two replicas: what it hears from each pair of servers, its own and the other's."""
    import torch.distributed as dist

    from runtime.far import Far, Line
    from runtime.problem import Problem
    from runtime.serving.client import Client, Patience

    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), []
    patience = Patience(ready=1, answer=1, away=1)
    for pair in urls:
        url = pair[rank]
        line = Line(lambda url=url: _ready(Client(url, TOKEN, patience)))
        far = Far(line, line, None, rows=2, replica=rank, replicas=2, is_first=rank == 0)  # type: ignore[arg-type]
        began = time.monotonic()
        try:
            answers = far.answers(rollouts())
            said: Any = (
                {id: values.tolist() for id, values in sorted(answers.values.items())},
                dict(sorted(answers.scores.items())),
            )
        except Problem as problem:
            said = (problem.code, problem.message)
        found.append({"said": said, "seconds": time.monotonic() - began})
        far.close()
    return found


def _ready(client: Any) -> Any:
    client.wait_until_ready()
    return client


def test_all_ranks_hear_all_answers_or_the_same_problem_soon(world: Any) -> None:
    with contextlib.ExitStack() as stack:
        good = stack.enter_context(judge(slow(0.2)))
        bad = [stack.enter_context(make()) for make, _, _ in FAULTS.values()]
        first, second = world(2, asked, [(good, good), *((good, url) for url in bad)])
    whole = first.pop(0)
    assert second.pop(0)["said"] == whole["said"]
    values, scores = whole["said"]
    assert scores == SCORES
    assert [len(values[i]) for i in range(8)] == [len(row) - 1 for row in ROWS]
    for (name, (_, code, message)), mine, theirs in zip(FAULTS.items(), first, second, strict=True):
        assert mine["said"] == theirs["said"], name
        assert (mine["said"][0], message in mine["said"][1]) == (code, True), (name, mine["said"])
        assert mine["seconds"] < 6, name


def cut(orders: list[list[int]]) -> list[list[list[int]]]:
    """The ids in each request, for each order in which rollouts come."""
    from concurrent.futures import Future

    from runtime.far import Far

    found = []
    for order in orders:
        requests: list[list[int]] = []

        class Written:
            """A line that writes down what is asked."""

            def post(self, model: str, inputs: Tensors, wanted: Any, id: str = "", seen=requests) -> Any:
                seen.append(inputs["tokens"][:, 0].tolist())
                future: Future[Tensors] = Future()
                future.set_result(sums(inputs))
                return future

        line: Any = Written()
        far = Far(line, line, None, rows=3)  # type: ignore[arg-type]
        far.expect([5, 1, 7, 0, 2, 3, 4, 6])
        by_id = {rollout.id: rollout for rollout in rollouts()}
        for id in order:
            far.ask(by_id[id])
        answers = far.answers(rollouts())
        assert answers.scores == SCORES
        found.append(requests)
    return found


def test_what_a_request_holds_does_not_depend_on_when_rollouts_come(world: Any) -> None:
    [(in_turn, backwards)] = world(1, cut, [[5, 1, 7, 0, 2, 3, 4, 6], [6, 4, 3, 2, 0, 7, 1, 5]])
    assert in_turn == [[5, 1, 7], [0, 2, 3], [4, 6]]
    assert sorted(backwards) == sorted(in_turn)
