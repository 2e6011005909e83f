"""Tensors as the Open Inference Protocol v2 sends them: JSON, and after it the binary ones.

A body is a JSON object, followed by the bytes of every tensor that says `binary_data_size`, in order; the
header `Inference-Header-Content-Length` then says how long the JSON is. Tensors are little-endian, row by
row; an element of BYTES is a 4-byte length and so many bytes. Specification: kserve.github.io, "Open
Inference Protocol" and "Binary Tensor Data Extension".

Everything that comes in is checked: sizes against shapes, shapes against limits, types against names. What
is wrong is a `BadTensors` whose message names the tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

TYPES: dict[str, str] = {
    "BOOL": "|b1",
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    "BYTES": "O",
}
"""The protocol's name of each type, and numpy's."""

MOST_TENSORS, MOST_DIMENSIONS, MOST_ELEMENTS = 64, 8, 1 << 31


class BadTensors(ValueError):
    """The bytes are not a request or reply of the protocol; the message says which tensor and why."""


@dataclass(frozen=True)
class Request:
    """A question to a model: tensors by name, the outputs that are wanted (all when empty)."""

    inputs: dict[str, Array]
    outputs: tuple[str, ...] = ()
    binary: frozenset[str] = frozenset()  # outputs wanted as bytes
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


# --- in


def read_request(body: bytes, json_length: int | None = None) -> Request:
    """The request in `body`; BadTensors when it is none."""
    head, rest = _split(body, json_length)
    inputs = _tensors(head.get("inputs"), rest, "inputs")
    parameters = _object(head.get("parameters", {}), "parameters")
    wanted = head.get("outputs") or []
    if not isinstance(wanted, list) or len(wanted) > MOST_TENSORS:
        raise BadTensors("`outputs` is not a list of outputs")
    names, binary = [], set()
    for output in wanted:
        entry = _object(output, "an entry of `outputs`")
        name = _name(entry, "outputs")
        names.append(name)
        if _object(entry.get("parameters", {}), "parameters").get("binary_data"):
            binary.add(name)
    if parameters.get("binary_data_output"):
        binary |= set(names) or {"*"}
    id = head.get("id", "")
    if not isinstance(id, str) or len(id) > 256:
        raise BadTensors("`id` is not a text of at most 256 characters")
    return Request(inputs, tuple(names), frozenset(binary), id, parameters)


def read_reply(body: bytes, json_length: int | None = None) -> dict[str, Array]:
    """The outputs in the reply `body`, by name; BadTensors when it is none."""
    head, rest = _split(body, json_length)
    return _tensors(head.get("outputs"), rest, "outputs")


def _split(body: bytes, json_length: int | None) -> tuple[dict[str, Any], memoryview]:
    length = len(body) if json_length is None else json_length
    if not 0 <= length <= len(body):
        raise BadTensors(f"the JSON is said to be {length} bytes long, but {len(body)} bytes came")
    try:
        head = json.loads(body[:length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadTensors(f"the body is not JSON: {error}") from None
    return _object(head, "the body"), memoryview(body)[length:]


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadTensors(f"{what} is not a JSON object")
    return value


def _name(entry: Mapping[str, Any], where: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise BadTensors(f"a tensor of `{where}` has no name")
    return name


def _tensors(entries: Any, rest: memoryview, where: str) -> dict[str, Array]:
    if not isinstance(entries, list) or not entries or len(entries) > MOST_TENSORS:
        raise BadTensors(f"`{where}` is not a list of 1 to {MOST_TENSORS} tensors")
    tensors: dict[str, Array] = {}
    at = 0
    for value in entries:
        entry = _object(value, f"an entry of `{where}`")
        name = _name(entry, where)
        if name in tensors:
            raise BadTensors(f"tensor `{name}` comes twice")
        size = _object(entry.get("parameters", {}), "parameters").get("binary_data_size")
        if size is None:
            tensors[name] = _from_json(name, entry)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest) - at:
            raise BadTensors(f"tensor `{name}` says {size} bytes, but {len(rest) - at} are left")
        tensors[name] = _from_bytes(name, entry, rest[at : at + size])
        at += size
    if at != len(rest):
        raise BadTensors(f"{len(rest) - at} bytes follow the last tensor")
    return tensors


def _form(name: str, entry: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """Type and shape of a tensor, checked."""
    datatype, shape = entry.get("datatype"), entry.get("shape")
    if not isinstance(datatype, str) or datatype not in TYPES:
        raise BadTensors(f"tensor `{name}` has the datatype {datatype!r}, not one of {', '.join(TYPES)}")
    sizes: list[Any] = shape if isinstance(shape, list) else [None]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes)
    if not whole or len(sizes) > MOST_DIMENSIONS:
        raise BadTensors(f"tensor `{name}` has no shape of at most {MOST_DIMENSIONS} sizes")
    if math.prod(max(size, 1) for size in sizes) > MOST_ELEMENTS:  # beside a 0 no size may be endless either
        raise BadTensors(f"tensor `{name}` has a shape of more than {MOST_ELEMENTS} elements")
    return datatype, tuple(sizes)


def _from_json(name: str, entry: Mapping[str, Any]) -> Array:
    datatype, shape = _form(name, entry)
    flat = _flattened(name, entry.get("data"), math.prod(shape))
    try:
        if datatype == "BYTES":
            array = np.empty(len(flat), dtype=object)
            array[:] = [_text(name, element) for element in flat]
        else:
            array = _numbers(name, datatype, flat)
    except (ValueError, OverflowError, TypeError) as error:
        raise BadTensors(f"tensor `{name}` is no {datatype}: {error}") from None
    return array.reshape(shape)


def _text(name: str, element: Any) -> bytes:
    if not isinstance(element, str):
        raise BadTensors(f"tensor `{name}` of BYTES holds {element!r}, which is not a text")
    return element.encode("utf-8", "surrogateescape")


def _numbers(name: str, datatype: str, flat: list[Any]) -> Array:
    kind = bool if datatype == "BOOL" else (int, float) if datatype.startswith("FP") else int
    for element in flat:
        if not isinstance(element, kind) or (kind is not bool and isinstance(element, bool)):
            raise BadTensors(f"tensor `{name}` of {datatype} holds {element!r}")
    return np.array(flat, dtype=TYPES[datatype])


def _flattened(name: str, data: Any, count: int) -> list[Any]:
    """The elements of `data`, which may be flat or nested, without recursion."""
    if not isinstance(data, list):
        raise BadTensors(f"tensor `{name}` has no `data` and no bytes")
    depth = 0
    while data and isinstance(data[0], list):
        depth += 1
        if depth > MOST_DIMENSIONS or not all(isinstance(inner, list) for inner in data):
            raise BadTensors(f"the `data` of tensor `{name}` is nested unevenly")
        data = [element for inner in data for element in inner]
    if len(data) != count:
        raise BadTensors(f"tensor `{name}` has {len(data)} elements, but its shape says {count}")
    return data


def _from_bytes(name: str, entry: Mapping[str, Any], data: memoryview) -> Array:
    datatype, shape = _form(name, entry)
    count = math.prod(shape)
    if datatype == "BYTES":
        return _unpacked(name, data, count).reshape(shape)
    dtype = np.dtype(TYPES[datatype])
    if len(data) != count * dtype.itemsize:
        raise BadTensors(
            f"tensor `{name}` of {datatype} and shape {list(shape)} takes {count * dtype.itemsize} bytes, "
            f"but {len(data)} came"
        )
    if datatype == "BOOL" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise BadTensors(f"tensor `{name}` of BOOL holds bytes that are neither 0 nor 1")
    return np.frombuffer(data, dtype).reshape(shape)


def _unpacked(name: str, data: memoryview, count: int) -> Array:
    elements: list[bytes] = []
    at = 0
    while at + 4 <= len(data) and len(elements) < count:
        size = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if at + size > len(data):
            break
        elements.append(bytes(data[at : at + size]))
        at += size
    if at != len(data) or len(elements) != count:
        raise BadTensors(f"tensor `{name}` of BYTES does not hold {count} elements of its bytes")
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array


# --- out


def write_request(inputs: Mapping[str, Array], id: str = "") -> tuple[bytes, int]:
    """The body of a request with binary tensors that wants binary outputs, and the length of its JSON."""
    head: dict[str, Any] = {"parameters": {"binary_data_output": True}}
    if id:
        head["id"] = id
    return _written(head, "inputs", inputs, frozenset(inputs))


def write_reply(model: str, outputs: Mapping[str, Array], request: Request) -> tuple[bytes, int]:
    """The body of the reply to `request` and the length of its JSON; BadTensors for an output nobody has."""
    unknown = [name for name in request.outputs if name not in outputs]
    if unknown:
        raise BadTensors(f"`{model}` has no output `{unknown[0]}`; it has {', '.join(outputs)}")
    wanted = {name: outputs[name] for name in request.outputs or outputs}
    binary = frozenset(wanted) if "*" in request.binary else request.binary
    head: dict[str, Any] = {"model_name": model, "model_version": "1"}
    if request.id:
        head["id"] = request.id
    return _written(head, "outputs", wanted, binary)


def _written(
    head: dict[str, Any], where: str, tensors: Mapping[str, Array], binary: frozenset[str]
) -> tuple[bytes, int]:
    entries, pieces = [], []
    for name, array in tensors.items():
        datatype = datatype_of(array)
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if name in binary:
            piece = _packed(array) if datatype == "BYTES" else _little(array).tobytes()
            entry["parameters"] = {"binary_data_size": len(piece)}
            pieces.append(piece)
        elif datatype == "BYTES":
            entry["data"] = [element.decode("utf-8", "surrogateescape") for element in array.reshape(-1)]
        else:
            entry["data"] = array.reshape(-1).tolist()
        entries.append(entry)
    try:
        text = json.dumps({**head, where: entries}, allow_nan=False).encode()
    except ValueError:
        raise BadTensors("a number that is not finite cannot be sent as JSON; ask for binary data") from None
    return b"".join([text, *pieces]), len(text)


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's type; BadTensors for one that it does not have."""
    if array.dtype == object:
        return "BYTES"
    kind = {"b": "BOOL", "u": "UINT", "i": "INT", "f": "FP"}.get(array.dtype.kind, "")
    name = kind if kind in ("", "BOOL") else f"{kind}{8 * array.dtype.itemsize}"
    if name not in TYPES:
        raise BadTensors(f"{array.dtype} cannot be sent")
    return name


def _little(array: Array) -> Array:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _packed(array: Array) -> bytes:
    elements: Sequence[bytes] = array.reshape(-1).tolist()
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)
