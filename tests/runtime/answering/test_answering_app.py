"""The application over a parrot: what a URL means, limits, and bodies that are anything at all."""

import asyncio
import contextlib
import dataclasses
import json
import socket
import threading
import time

import httpx
import parrot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.answering import app as apps
from runtime.answering import stream

URLS = ("/v1/completions", "/v1/chat/completions", "/generate")


def ask(answering, method, url, **more):
    """One request to the application in a loop of its own."""

    async def asked():
        transport = httpx.ASGITransport(answering.application(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://parrot") as client:
            return await client.request(method, url, **more)

    return asyncio.run(asked())


@pytest.fixture(scope="module")
def both():
    with parrot.answering() as found:
        yield found


@pytest.fixture(scope="module")
def answering(both):
    return both[0]


def chunks(response):
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


# --- bodies that are anything at all

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    *("model", "prompt", "messages", "sentences", "max_tokens", "max_completion_tokens", "min_tokens"),
    *("n", "best_of", "echo", "logprobs", "top_logprobs", "stop", "seed", "temperature", "top_p"),
    *("top_k", "repetition_penalty", "stop_token_ids", "stream", "stream_options", "attributes"),
    *("tools", "logit_bias", "suffix", "tokens_to_generate", "greedy", "add_BOS"),
    *("min_tokens_to_generate", "end_strings", "all_probs", "compute_logprob", "random_seed"),
    *("presence_penalty", "response_format", "zebra"),
]
GOOD = {
    "prompt": st.sampled_from(["ab", ["a", "b"], [1, 2], [[1], [2, 3]], "", [], [999], [[]]]),
    "sentences": st.sampled_from([["ab"], ["a", "é"], [], [""], "x"]),
    "messages": st.sampled_from(
        [[{"role": "user", "content": "a"}], [{"role": "user", "content": None}], []]
    ),
    "max_tokens": st.integers(-1, 9),
    "tokens_to_generate": st.integers(-1, 9),
    "n": st.integers(0, 3),
    "logprobs": st.sampled_from([True, 0, 3, 99]),
    "echo": st.booleans(),
    "stream": st.booleans(),
    "stop": st.sampled_from(["a", ["a", "b"], [], [""], 1]),
    "attributes": st.sampled_from([{"quality": 4}, "quality:4", {"a": {}}, 4]),
    "all_probs": st.booleans(),
}
NEEDED = {
    "prompt": "ab",
    "sentences": ["ab"],
    "messages": [{"role": "system", "content": "b"}, {"role": "user", "content": "a"}],
}
BODIES = st.dictionaries(st.sampled_from(NAMES), ANY, max_size=2).flatmap(
    lambda wild: st.dictionaries(st.sampled_from(list(GOOD)), st.none(), max_size=3).flatmap(
        lambda names: st.fixed_dictionaries({name: GOOD[name] for name in names}).map(
            lambda good: NEEDED | good | wild
        )
    )
)

HEAD = "<extra_id_0>System\n\n<extra_id_1>User\n\n<extra_id_1>Assistant\n"
"""What the chat template puts around a message of a user."""


seen: list[int] = []


@given(url=st.sampled_from(URLS), body=BODIES)
@settings(max_examples=3 * settings().max_examples)
def test_no_body_breaks_the_server(answering, url, body):
    text = json.dumps(body)  # NaN and half characters included
    response = ask(answering, "POST", url, content=text)
    seen.append(response.status_code)
    assert response.status_code in (200, 400, 404, 422), response.text
    if response.status_code != 200:
        error = response.json()["error"]
        assert error["message"]
        assert error["code"] == response.status_code


def test_the_bodies_tried_are_good_and_bad():
    assert seen.count(200) > 30
    assert len(set(seen)) > 2


@given(url=st.sampled_from(URLS), body=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_break_the_server(answering, url, body):
    assert ask(answering, "POST", url, content=body).status_code in (400, 422)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 50_000, b'{"n": ' + b"9" * 5000 + b"}"])
def test_a_body_that_is_too_deep_or_too_long_a_number_is_refused(answering, body):
    assert ask(answering, "POST", URLS[0], content=body).status_code == 400


# --- what is answered


def test_a_stream_says_what_the_whole_says(answering):
    body = {"model": "parrot", "messages": [{"role": "user", "content": "héllo"}], "max_tokens": 90, "n": 2}
    body |= {"logprobs": True, "top_logprobs": 2}
    whole = ask(answering, "POST", URLS[1], json=body).json()
    told = chunks(ask(answering, "POST", URLS[1], json=body | {"stream": True}))
    for choice in whole["choices"]:
        own = [c for chunk in told for c in chunk["choices"] if c["index"] == choice["index"]]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(c["delta"].get("content") or "" for c in own) == choice["message"]["content"]
        assert [c["finish_reason"] for c in own][-1] == choice["finish_reason"] == "stop"
        content = [t for c in own if c["logprobs"] for t in c["logprobs"]["content"]]
        assert content == choice["logprobs"]["content"]


def test_the_mark_that_ends_an_answer_is_cut_off_with_the_line_before_it(answering):
    message = [{"role": "user", "content": "hi"}]
    said = ask(answering, "POST", URLS[1], json={"messages": message}).json()["choices"][0]
    assert said["finish_reason"] == "stop"
    assert said["message"]["content"] == "<extra_id_0>System\n"  # what the parrot says before the first mark


def test_usage_comes_last_in_a_stream_that_wants_it(answering):
    body = {"prompt": "abc", "max_tokens": 4, "stream": True, "stream_options": {"include_usage": True}}
    told = chunks(ask(answering, "POST", URLS[0], json=body))
    assert told[-1]["choices"] == []
    assert told[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert all(chunk["usage"] is None for chunk in told[:-1])


def test_echo_tells_the_prompt_and_its_logprobs_before_the_answer(answering):
    body = {"prompt": "abc", "max_tokens": 2, "echo": True, "logprobs": 1}
    [choice] = ask(answering, "POST", URLS[0], json=body).json()["choices"]
    assert choice["text"] == "abcab"
    assert choice["logprobs"]["tokens"] == list("abcab")
    assert choice["logprobs"]["token_logprobs"] == [None, -0.25, -0.25, -0.5, -0.5]
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3, 4]
    [only] = ask(answering, "POST", URLS[0], json=body | {"max_tokens": 0}).json()["choices"]
    assert only["logprobs"]["tokens"] == list("abc")
    told = chunks(ask(answering, "POST", URLS[0], json=body | {"stream": True}))
    assert "".join(c["text"] for chunk in told for c in chunk["choices"]) == "abcab"


def test_a_stop_text_is_left_out_and_the_length_is_told(answering):
    body = {"prompt": "abcd", "max_tokens": 20, "stop": ["cd"]}
    [choice] = ask(answering, "POST", URLS[0], json=body).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("ab", "stop")
    [choice] = ask(answering, "POST", URLS[0], json=body | {"stop": None}).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("abcd" * 5, "length")


def test_what_is_wanted_is_clipped_to_the_models_positions(answering, both):
    ask(answering, "POST", URLS[0], json={"prompt": "a" * 190, "max_tokens": 50, "min_tokens": 40})
    assert (both[1].asked[-1].max_tokens, both[1].asked[-1].min_tokens) == (10, 10)


def test_there_is_one_model_and_it_has_a_card(answering):
    [card] = ask(answering, "GET", "/v1/models").json()["data"]
    assert card == ask(answering, "GET", "/v1/models/parrot").json()
    assert card["id"] == "parrot"
    assert ask(answering, "GET", "/v1/models/other").status_code == 404
    said = ask(answering, "POST", URLS[0], json={"model": "other", "prompt": "a"})
    assert said.status_code == 404
    assert "`parrot`" in said.json()["error"]["message"]


@pytest.mark.parametrize("field", ["tools", "response_format", "logit_bias", "presence_penalty"])
def test_what_is_not_done_is_refused_by_name(answering, field):
    body = {"messages": [{"role": "user", "content": "a"}], field: 1}
    error = ask(answering, "POST", URLS[1], json=body).json()["error"]
    assert error["param"] == field


# --- limits


def test_other_methods_and_places_are_told_as_json(answering):
    response = ask(answering, "GET", "/generate")
    assert response.status_code == 405
    assert "PUT" in response.headers["allow"]
    assert ask(answering, "GET", "/nowhere").json()["error"]["code"] == 404


def test_a_body_that_is_too_large_is_refused_before_it_is_read():
    with parrot.answering(most_bytes=1000) as (answering, _):
        assert ask(answering, "POST", URLS[0], content=b" " * 1001).status_code == 413

        async def pieces():
            for _ in range(20):
                yield b" " * 100

        assert ask(answering, "POST", URLS[0], content=pieces()).status_code == 413


def test_while_the_model_is_loaded_clients_are_told_to_come_again():
    with parrot.answering(is_ready=lambda: False) as (answering, _):
        response = ask(answering, "POST", URLS[0], json={"prompt": "a"})
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert ask(answering, "GET", "/health/live").status_code == 200
        assert ask(answering, "GET", "/health").json() == {"status": "loading"}


def test_a_key_lets_in_who_knows_it_and_health_is_open():
    with parrot.answering(key="s3cret") as (answering, _):
        assert ask(answering, "GET", "/v1/models").status_code == 401
        wrong = {"Authorization": "Bearer s3creT"}
        assert ask(answering, "POST", URLS[2], json={"sentences": ["a"]}, headers=wrong).status_code == 401
        right = {"Authorization": "Bearer s3cret"}
        assert ask(answering, "POST", URLS[2], json={"sentences": ["a"]}, headers=right).status_code == 200
        assert ask(answering, "GET", "/health").status_code == 200


@pytest.mark.parametrize("key", ["two\nlines", "with space", "schlüssel"])
def test_a_key_that_no_client_can_send_is_refused_before_anything_is_loaded(key, tmp_path, monkeypatch):
    from runtime.answering import group
    from runtime.problem import Problem

    (tmp_path / "key").write_text(key, encoding="utf-8")
    for own in ({"key_file": str(tmp_path / "key")}, {}):
        monkeypatch.setenv(group.KEY, "s3cret" if own else key)
        with pytest.raises(Problem, match="what no header can") as found:
            group.key(own)
        assert found.value.code == "R005"
        assert key not in found.value.message


def test_a_key_file_may_lie_in_ones_home(tmp_path, monkeypatch):
    from runtime.answering import group
    from runtime.problem import Problem

    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Problem, match="the key file `~/key` cannot be read: No such file"):
        group.key({"key_file": "~/key"})
    (tmp_path / "key").write_text("s3cret\n")
    assert group.key({"key_file": "~/key"}) == "s3cret"


def test_what_the_model_refuses_in_a_stream_is_the_clients_fault():
    with parrot.answering() as (answering, ranks):
        ranks.mute.set()
        threading.Timer(0.3, answering.exchange.refuse, [0, "has no meaning"]).start()
        told = ask(answering, "POST", URLS[0], json={"prompt": "a", "stream": True}).text
    assert json.loads(told.splitlines()[0].removeprefix("data: "))["error"]["code"] == 400


@pytest.mark.parametrize(
    ("url", "few", "many"),
    [
        (URLS[0], {"prompt": "a"}, {"prompt": ["a"] * 4}),
        (
            URLS[1],
            {"messages": NEEDED["messages"], "max_tokens": 2},
            {"messages": NEEDED["messages"], "n": 4},
        ),
        (URLS[2], {"sentences": ["a"]}, {"sentences": ["a"] * 4}),
    ],
)
def test_above_the_bound_clients_are_told_to_come_again_unless_it_would_never_help(url, few, many):
    with parrot.answering(most=3) as (answering, ranks):
        never = ask(answering, "POST", url, json=many)
        assert never.status_code == 400
        assert "retry-after" not in never.headers
        assert "4 answers" in never.json()["error"]["message"]
        assert "at most 3" in never.json()["error"]["message"]
        ranks.mute.set()
        waiting = threading.Thread(
            target=ask, args=(answering, "POST", URLS[0]), kwargs={"json": {"prompt": "a", "n": 3}}
        )
        waiting.start()
        while len(answering.exchange) < 3:
            time.sleep(0.01)
        later = ask(answering, "POST", url, json=few)
        assert (later.status_code, later.headers["retry-after"]) == (429, "1")
        assert later.json()["error"]["type"] == "rate_limit_error"
        assert "3 answers are wanted already" in later.json()["error"]["message"]
        ranks.mute.clear()
        waiting.join(20)
        assert ask(answering, "POST", url, json=few).status_code == 200
        assert len(answering.exchange) == 0
        assert len(ranks.asked) == 4


@pytest.mark.parametrize(
    ("url", "body"),
    [
        (URLS[0], lambda n: {"prompt": "x" * n}),
        (URLS[0], lambda n: {"prompt": [120] * n}),
        (URLS[0], lambda n: {"prompt": "x" * n, "echo": True, "logprobs": 1}),
        (URLS[1], lambda n: {"messages": [{"role": "user", "content": "x" * (n - len(HEAD))}]}),
        (URLS[2], lambda n: {"sentences": ["x" * n]}),
        (URLS[2], lambda n: {"sentences": ["x" * n], "compute_logprob": True}),
    ],
)
def test_a_prompt_that_leaves_room_for_an_answer_is_taken_and_a_longer_one_told_the_numbers(
    answering, url, body
):
    fits, longer, much = (ask(answering, "POST", url, json=body(n)) for n in (199, 200, 5000))
    assert fits.status_code == 200
    for said, tokens in ((longer, 200), (much, 5000)):
        assert said.status_code == 400
        assert f"has {tokens} tokens, and the model has 200 positions" in said.json()["error"]["message"]


def test_a_server_of_fewer_positions_than_its_model_says_whose_limit_it_is(answering):
    few = dataclasses.replace(answering.prompter, positions=4096)
    with parrot.answering() as (other, _):
        other.prompter = few
        said = ask(other, "POST", URLS[0], json={"prompt": "x" * 300}).json()["error"]["message"]
    assert "300 tokens" in said
    assert "200 of the model's 4096 positions" in said
    assert "--max-length" in said


def test_a_server_that_ends_says_so_to_who_waits_and_who_comes():
    with parrot.answering() as (answering, ranks):
        ranks.mute.set()
        threading.Timer(0.3, answering.exchange.drop, ["the server is ending"]).start()
        assert ask(answering, "POST", URLS[0], json={"prompt": "a"}).status_code == 503
        assert ask(answering, "POST", URLS[2], json={"sentences": ["a"]}).status_code == 503
        assert ask(answering, "GET", "/health/ready").json() == {"status": "ending"}


# --- clients that are slow or gone, over a real socket


@pytest.fixture
def listening(monkeypatch):
    """(answering, ranks, connect): the parrot behind a real server with little patience."""
    from runtime.serving.server import bound, serving

    monkeypatch.setattr(stream, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(stream, "UNREAD_SECONDS", 0.3)
    monkeypatch.setattr(apps, "READ_SECONDS", 0.3)
    door = bound("127.0.0.1", 0)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    where = door.getsockname()

    def connect(text=b""):
        client = socket.socket()
        client.settimeout(20)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.connect(where)
        client.sendall(text)
        return client

    with parrot.answering() as (answering, ranks), serving(answering.application(), door, stream.Patient):
        yield answering, ranks, connect


def post(body, url=URLS[0], length=None):
    text = json.dumps(body).encode()
    head = f"POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(text)}\r\n\r\n"
    return head.encode() + text


def ended(client):
    """Everything that comes until the server closes; fails when it does not close."""
    said = b""
    while piece := client.recv(65536):
        said += piece
    return said


@pytest.mark.parametrize("begin", [b"", b"POST /v1/comp"], ids=["nothing", "half a head"])
def test_a_head_that_does_not_come_ends_the_connection(listening, begin):
    client = listening[2](begin)
    try:
        assert ended(client) == b""
    except ConnectionResetError:
        assert begin == b"POST /v1/comp"


def test_a_body_that_does_not_come_is_told_408(listening):
    assert b" 408 " in ended(listening[2](post({"prompt": "a"}, length=500))).split(b"\r\n")[0]


def until(holds, seconds=10):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("streams", [False, True])
def test_a_client_that_leaves_frees_its_rows(listening, streams):
    answering, ranks, connect = listening
    ranks.mute.set()
    client = connect(post({"prompt": "a", "n": 3, "stream": streams}))
    until(lambda: len(answering.exchange) == 3)
    client.close()
    until(lambda: len(answering.exchange) == 0)
    until(lambda: len(ranks.left) == 3)


def test_a_client_that_does_not_read_is_let_go_and_others_are_answered(listening):
    answering, _, connect = listening
    body = {"prompt": [[i % 250] * 20 for i in range(20)], "max_tokens": 179, "logprobs": 20, "stream": True}
    lazy = connect(post(body))
    quick = connect(post({"prompt": "ab", "max_tokens": 2}))
    assert quick.recv(65536).startswith(b"HTTP/1.1 200")
    until(lambda: len(answering.exchange) == 0, 30)
    time.sleep(1)
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := lazy.recv(1 << 20):
            said += piece
    assert said.startswith(b"HTTP/1.1 200")
    assert b"[DONE]" not in said
