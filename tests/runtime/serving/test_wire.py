"""The protocol's bytes, against tritonclient's and against hostile ones."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.serving.wire import (
    TYPES,
    BadTensors,
    Request,
    datatype_of,
    read_reply,
    read_request,
    write_reply,
    write_request,
)

shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
numbers = st.sampled_from([t for t in TYPES.values() if t != "O"]).flatmap(
    lambda dtype: arrays.arrays(np.dtype(dtype), shapes)
)


@st.composite
def texts(draw: st.DrawFn) -> Any:
    elements = draw(st.lists(st.binary(max_size=9), max_size=5))
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


tensors = st.dictionaries(st.text(min_size=1, max_size=8), numbers | texts(), min_size=1, max_size=4)


def same(one: Any, other: Any) -> bool:
    assert one.shape == other.shape
    assert datatype_of(one) == datatype_of(other)
    return one.tobytes() == other.tobytes() if one.dtype != object else one.tolist() == other.tolist()


@settings(max_examples=settings().max_examples * 4 // 5, deadline=None)
@given(tensors)
def test_what_is_written_is_read_back_bit_for_bit(inputs: dict[str, Any]) -> None:
    body, length = write_request(inputs, id="7")
    request = read_request(body, length)
    assert request.id == "7"
    assert all(same(request.inputs[name], array) for name, array in inputs.items())
    reply, length = write_reply("m", request.inputs, request)
    assert all(same(read_reply(reply, length)[name], array) for name, array in inputs.items())


@settings(max_examples=settings().max_examples * 4 // 5, deadline=None)
@given(tensors)
def test_json_alone_carries_every_finite_number(inputs: dict[str, Any]) -> None:
    finite = {k: v for k, v in inputs.items() if v.dtype.kind != "f" or np.isfinite(v).all()}
    if not finite:
        return
    reply, length = write_reply("m", finite, Request(finite))
    assert length == len(reply)  # nobody asked for bytes
    assert all(same(read_reply(reply)[name], array) for name, array in finite.items())


@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(st.data())
def test_a_torn_body_is_refused_or_read_and_never_anything_else(data: st.DataObject) -> None:
    good, length = write_request({"tokens": np.arange(6).reshape(2, 3), "text": np.array([b"a"], object)})
    body = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not body:
            return
    with contextlib.suppress(BadTensors):
        read_request(bytes(body), data.draw(st.sampled_from([length, None, 0, 10**9])))


def entry(**changes: Any) -> bytes:
    tensor = {"name": "x", "datatype": "INT64", "shape": [2], "data": [1, 2]} | changes
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b"{}", "`inputs` is not a list"),
        (b'{"inputs": [3]}', "an entry of `inputs` is not a JSON object"),
        (entry(name=""), "has no name"),
        (entry(datatype="INT65"), "'INT65', not one of"),
        (entry(datatype=["INT64"]), "not one of"),
        (entry(shape=[2.0]), "has no shape"),
        (entry(shape=[True, 2]), "has no shape"),
        (entry(shape=[-2]), "has no shape"),
        (entry(shape=[1 << 40]), "more than"),
        (entry(shape=[10**4000, 10**4000]), "more than"),
        (entry(shape=[0, 10**30], data=[]), "more than"),
        (entry(shape=[3]), "2 elements, but its shape says 3"),
        (entry(data=[1, "2"]), "holds '2'"),
        (entry(data=[1, 2.5]), "holds 2.5"),
        (entry(data=[1, 2**70]), "is no INT64"),
        (entry(data=[True, 2]), "holds True"),
        (entry(data=[[1], 2]), "nested unevenly"),
        (entry(data=None), "no `data` and no bytes"),
        (entry(datatype="BYTES", data=["a", 2]), "not a text"),
        (entry(parameters={"binary_data_size": 16}), "says 16 bytes, but 0 are left"),
        (entry(parameters={"binary_data_size": True}), "says True bytes"),
        (entry() + b"tail", "not JSON"),
    ],
)
def test_a_bad_body_is_told_what_is_wrong(body: bytes, said: str) -> None:
    with pytest.raises(BadTensors, match=said):
        read_request(body)


def test_nested_and_flat_data_are_the_same() -> None:
    nested = read_request(entry(shape=[2, 2], data=[[1, 2], [3, 4]])).inputs["x"]
    assert same(nested, read_request(entry(shape=[2, 2], data=[1, 2, 3, 4])).inputs["x"])


def test_binary_tensors_are_cut_exactly() -> None:
    def body(shape: list[int], size: int, tail: bytes) -> tuple[bytes, int]:
        tensor = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}
        text = json.dumps({"inputs": [tensor]}).encode()
        return text + tail, len(text)

    assert read_request(*body([2], 8, bytes(8))).inputs["x"].tolist() == [0.0, 0.0]
    with pytest.raises(BadTensors, match="takes 12 bytes, but 8 came"):
        read_request(*body([3], 8, bytes(8)))
    with pytest.raises(BadTensors, match="4 bytes follow the last tensor"):
        read_request(*body([2], 8, bytes(12)))


def test_a_number_that_is_not_finite_goes_as_bytes_only() -> None:
    outputs = {"y": np.array([np.nan], np.float32)}
    with pytest.raises(BadTensors, match="not finite"):
        write_reply("m", outputs, Request({}))
    body, length = write_reply("m", outputs, Request({}, binary=frozenset("*")))
    assert np.isnan(read_reply(body, length)["y"]).all()
