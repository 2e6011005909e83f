"""Reading the pickled parts of Megatron's checkpoint format, with an allow-list.

`torch_dist` keeps its index (`.metadata`), the optimizer's settings (`common.pt`) and objects inside
the shards as pickles, and a pickle can name any function to be called. Everything that is read
here goes through a list of the few names the format needs; anything else is refused by its name,
before it is imported.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.distributed.checkpoint.metadata import Metadata

_DTYPES = frozenset(
    ("torch", name) for name in dir(torch) if isinstance(getattr(torch, name, None), torch.dtype)
)
_LAYOUT_OF_THE_INDEX = "torch.distributed.checkpoint.metadata"
_ALLOWED = _DTYPES | {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    (_LAYOUT_OF_THE_INDEX, "BytesStorageMetadata"),
    (_LAYOUT_OF_THE_INDEX, "ChunkStorageMetadata"),
    (_LAYOUT_OF_THE_INDEX, "Metadata"),
    (_LAYOUT_OF_THE_INDEX, "MetadataIndex"),
    (_LAYOUT_OF_THE_INDEX, "StorageMeta"),
    (_LAYOUT_OF_THE_INDEX, "TensorProperties"),
    (_LAYOUT_OF_THE_INDEX, "TensorStorageMetadata"),
    (_LAYOUT_OF_THE_INDEX, "_MEM_FORMAT_ENCODING"),
}

USELESS = "which no checkpoint has a use for"


class Refused(ValueError):
    """A pickle names something that a checkpoint has no use for, or is no pickle at all."""


def index(path: Path) -> Metadata:
    """The index of a checkpoint, its `.metadata`: which tensor lies where.

    Raises Refused with the name of the file and of what it wanted to have called; OSError.
    """
    with path.open("rb") as stream:
        value = _AllowList(stream, path.name).load_all()
    if not isinstance(value, Metadata):
        raise Refused(f"`{path.name}` holds a {type(value).__name__} and not the index of a checkpoint")
    return value


def settings(path: Path) -> Any:
    """What `common.pt` holds: numbers, strings, tensors, and lists and dicts of them.

    Raises Refused with the name of the file; OSError.
    """
    with path.open("rb") as stream:
        return plain(stream, path.name)


def plain(stream: BinaryIO | io.BytesIO, name: str) -> Any:
    """A value written with torch.save that is made of tensors and plain data only; Refused otherwise."""
    try:
        return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if unwanted := _unwanted(error):
            raise Refused(f"`{name}` names `{unwanted}`, {USELESS}") from None
        raise Refused(f"`{name}` is not plain data: {_first_line(error)}") from None
    except (RuntimeError, EOFError, KeyError, ValueError, TypeError) as error:
        raise Refused(f"`{name}` cannot be read: {_first_line(error)}") from None


class _AllowList(pickle.Unpickler):
    """An unpickler that resolves the names of the list above and no others."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        super().__init__(stream)
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise Refused(f"`{self._name}` names `{module}.{name}`, {USELESS}")
        return super().find_class(module, name)

    def load_all(self) -> Any:
        try:
            return self.load()
        except Refused:
            raise
        except Exception as error:  # a broken pickle can fail in any way
            raise Refused(f"`{self._name}` cannot be read: {_first_line(error)}") from None


def _unwanted(error: Exception) -> str:
    """The name that torch's own allow-list refused, or empty when the pickle is broken otherwise."""
    named = re.search(r"GLOBAL ([\w.]+\w)", str(error))
    return named[1] if named else ""


def _first_line(error: Exception) -> str:
    """What torch says, short: its advice to switch the check off is the last thing a user should read."""
    operand = re.search(r"Unsupported operand \d+", str(error))
    return operand[0] if operand else (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
