"""The server, asked by a stock client, by ours, and by peers that are wrong, slow or gone."""

from __future__ import annotations

import contextlib
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from runtime.problem import Problem
from runtime.serving import app as app_module
from runtime.serving.app import Served, Tensor, application
from runtime.serving.client import Client, Patience
from runtime.serving.desk import Desk, Refused, Tensors
from runtime.serving.server import bound, new_token, serving

DOUBLE = Served("double", (Tensor("x", "INT64", (-1, 2)),), (Tensor("y", "FP32", (-1, 2)),))
TOKEN = "s3cret"


def doubled(model: str, inputs: Tensors) -> Tensors:
    return {"y": (2 * inputs["x"]).astype(np.float32)}


@contextlib.contextmanager
def running(
    answer: Callable[[str, Tensors], Tensors] = doubled,
    desk: Desk | None = None,
    ready: Callable[[], bool] = lambda: True,
    most_bytes: int = 1 << 20,
) -> Iterator[str]:
    """A server whose ranks are one thread."""
    desk = desk or Desk()
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            ask = desk.next(0.02)
            if ask is None:
                continue
            try:
                ask.answer.set_result(answer(ask.model, ask.inputs))
            except Exception as error:
                ask.answer.set_exception(error)

    ranks = threading.Thread(target=work)
    ranks.start()
    try:
        with serving(application((DOUBLE,), desk, TOKEN, ready, most_bytes), bound("127.0.0.1", 0)) as url:
            yield url
    finally:
        over.set()
        desk.close()
        ranks.join(5)


def ask(url: str, x: Any, **patience: float) -> Any:
    client = Client(url, TOKEN, Patience(**patience))
    try:
        return client.infer("double", {"x": np.asarray(x)}, DOUBLE.outputs)["y"]
    finally:
        client.close()


@pytest.mark.slow
def test_the_stock_client_gets_answers_as_bytes_and_as_json() -> None:
    with running() as url:
        client = triton.InferenceServerClient(url.removeprefix("http://"))
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("double")
        assert client.get_model_metadata("double")["inputs"] == [
            {"name": "x", "datatype": "INT64", "shape": [-1, 2]}
        ]
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        x = np.array([[1, 2], [3, 4]])
        for binary_in in (True, False):
            tensor = triton.InferInput("x", [2, 2], "INT64")
            tensor.set_data_from_numpy(x, binary_data=binary_in)
            for binary_out in (True, False):
                wanted = [triton.InferRequestedOutput("y", binary_data=binary_out)]
                headers = {"Authorization": f"Bearer {TOKEN}"}
                reply = client.infer("double", [tensor], outputs=wanted, headers=headers, request_id="a")
                assert np.array_equal(np.asarray(reply.as_numpy("y")), [[2, 4], [6, 8]])
                assert reply.get_response()["id"] == "a"
        with pytest.raises(InferenceServerException, match="token of its run"):
            client.infer("double", [tensor])
        client.close()


@pytest.mark.slow
def test_many_at_once_get_each_their_own() -> None:
    with running() as url, ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda i: ask(url, [[i, -i]]).tolist(), range(64))
        assert list(answers) == [[[2 * i, -2 * i]] for i in range(64)]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "said"),
    [
        ("double/infer", b"{", {}, 400, "not JSON"),
        ("double/infer", b"{}", {"Authorization": "Bearer other"}, 401, "token"),
        ("double/infer", b"{}", {"Authorization": "Bearer \xc3"}, 401, "token"),
        ("triple/infer", b"{}", {}, 404, "no model `triple`"),
        ("double/other", b"{}", {}, 404, "nothing at POST"),
        ("double/infer", bytes(2 << 20), {}, 413, "more than"),
        ("double/infer", b'{"inputs": [{"name": "\\ud800"}]}', {}, 400, "ud800"),
        ("double/infer", b"{}", {"Inference-Header-Content-Length": "x"}, 400, "not a number"),
        ("double/infer", b"{}", {"Inference-Header-Content-Length": "²"}, 400, "not a number"),
        ("double/infer", b"{}", {"Inference-Header-Content-Length": "9" * 5000}, 400, "not a number"),
        ("double/infer", b"{}", {"Inference-Header-Content-Length": "99"}, 400, "99 bytes long"),
        ("double/infer", b"{}", {"Content-Encoding": "gzip"}, 400, "compressed"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(
    path: str, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    with running() as url:
        everything = {"Authorization": f"Bearer {TOKEN}"} | headers
        raw = {k: v.encode("latin-1") for k, v in everything.items()}
        reply = httpx.post(f"{url}/v2/models/{path}", content=body, headers=raw)  # type: ignore[arg-type]
        assert (reply.status_code, said in reply.json()["error"]) == (status, True), reply.text


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "not a list"),
        ({"z": np.zeros((1, 2), np.int64)}, "no input `z`; it takes x"),
        ({"x": np.zeros((1, 2), np.int32)}, "input `x` is INT32, but must be INT64"),
        ({"x": np.zeros((1, 3), np.int64)}, r"shape \[1, 3\], but must have \[-1, 2\]"),
    ],
)
def test_tensors_that_the_model_cannot_take_are_named(inputs: Tensors, said: str) -> None:
    with running() as url, pytest.raises(Problem, match=said) as caught:
        Client(url, TOKEN).infer("double", inputs, DOUBLE.outputs)
    assert caught.value.code == "R052"


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (lambda m, i: {"z": np.zeros(1, np.float32)}, "R053", "no `y`"),
        (lambda m, i: {"y": np.zeros((1, 3), np.float32)}, "R053", r"shape \[1, 3\], not \[-1, 2\]"),
        (lambda m, i: {"y": np.zeros((1, 2), np.float64)}, "R053", "as FP64, not FP32"),
        (lambda m, i: {"y": np.full((1, 2), np.nan, np.float32)}, "R053", "2 numbers that are not finite"),
        (lambda m, i: 1 / 0, "R052", "answered 500: ZeroDivisionError"),
    ],
)
def test_a_wrong_answer_is_an_error_and_never_a_number(answer: Any, code: str, said: str) -> None:
    with running(answer) as url, pytest.raises(Problem, match=said) as caught:
        ask(url, [[1, 2]])
    assert caught.value.code == code


def test_what_a_model_refuses_is_the_clients_fault() -> None:
    def refuse(model: str, inputs: Tensors) -> Tensors:
        raise Refused("token 9 is not in the vocabulary")

    with running(refuse) as url, pytest.raises(Problem, match="answered 422: token 9"):
        ask(url, [[1, 2]])


@pytest.mark.slow
def test_a_server_that_hangs_ends_the_wait() -> None:
    def hang(model: str, inputs: Tensors) -> Tensors:
        time.sleep(1.0)
        return doubled(model, inputs)

    with running(hang) as url, pytest.raises(Problem, match=r"did not answer within 0.2 s") as caught:
        ask(url, [[1, 2]], answer=0.2)
    assert caught.value.code == "R052"


@pytest.mark.slow
def test_a_server_that_is_gone_ends_the_run_after_its_patience() -> None:
    with running() as url:
        pass
    with pytest.raises(Problem, match=r"was away for 0\.3 s"):
        ask(url, [[1, 2]], away=0.3)
    with pytest.raises(Problem, match=r"not ready within 0\.3 s") as caught:
        Client(url, TOKEN, Patience(ready=0.3)).wait_until_ready()
    assert caught.value.code == "R051"


@pytest.mark.slow
def test_a_server_that_still_loads_is_waited_for() -> None:
    began = time.monotonic()
    with running(ready=lambda: time.monotonic() - began > 0.5) as url:
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        assert httpx.get(f"{url}/v2/health/ready").status_code == 503
        client = Client(url, TOKEN)
        client.wait_until_ready()
        assert client.infer("double", {"x": np.array([[1, 2]])}, DOUBLE.outputs)["y"].tolist() == [[2, 4]]


@pytest.mark.slow
def test_a_full_desk_asks_to_come_back_and_loses_nothing() -> None:
    def slow(model: str, inputs: Tensors) -> Tensors:
        time.sleep(0.05)
        return doubled(model, inputs)

    with running(slow, Desk(most=2)) as url, ThreadPoolExecutor(8) as pool:
        assert [a.tolist() for a in pool.map(lambda i: ask(url, [[i, i]]), range(8))] == [
            [[2 * i, 2 * i]] for i in range(8)
        ]


@pytest.mark.slow
def test_a_client_that_stalls_is_let_go_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "READ_SECONDS", 0.3)
    with running() as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as stalled:
            head = f"POST /v2/models/double/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            stalled.sendall(f"{head}Content-Length: 100\r\n\r\nabc".encode())
            assert ask(url, [[1, 2]]).tolist() == [[2, 4]]
            stalled.settimeout(5)
            assert b"408" in stalled.recv(100)


def test_a_closed_desk_tells_those_that_wait() -> None:
    desk = Desk()
    waiting = desk.submit("double", {})
    desk.close()
    with pytest.raises(RuntimeError, match="ended before"):
        waiting.result(1)
    with pytest.raises(RuntimeError, match="is ending"):
        desk.submit("double", {})


def test_a_taken_port_is_named() -> None:
    sock = bound("127.0.0.1", 0)
    port = sock.getsockname()[1]
    with pytest.raises(Problem, match=f"cannot listen at 127.0.0.1:{port}: Address already in use") as caught:
        bound("127.0.0.1", port)
    assert caught.value.code == "R050"
    sock.close()


def test_the_token_is_private_and_new_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    first, second = new_token(file), new_token(file)
    assert first != second
    assert file.read_text() == second
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 1
