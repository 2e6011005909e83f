"""A safetensors folder, read slice by slice.

What cannot be read is refused by name before a weight is touched: pickled weights, `.nemo`, GGUF,
quantised tensors, damaged files, tensors that are missing, of another size, or unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from runtime.problem import Problem

IGNORED = ("rotary_emb.inv_freq", "self_attn.masked_bias", "self_attn.bias")
"""Ends of names that old files carry and nobody needs."""

FLOATS = ("F32", "F16", "BF16", "F64")

_SAVE_AGAIN = "`AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)`"

FOREIGN = (
    (
        "*.nemo",
        ".nemo archive",
        "convert it to a Hugging Face folder with NeMo's own converter and give that",
    ),
    (
        "model_weights",
        "unpacked .nemo archive",
        "convert it to a Hugging Face folder with NeMo's own converter",
    ),
    ("pytorch_model*.bin*", "pickled checkpoint (.bin)", f"write it as safetensors: {_SAVE_AGAIN}"),
    ("consolidated*.pth", "pickled checkpoint (.pth)", "take the Hugging Face form of this model"),
    ("*.gguf", "GGUF file", "take the safetensors form of this model"),
    ("*.pt", "pickled checkpoint (.pt)", "take the safetensors form of this model"),
)
"""What else a folder of weights may hold, and the way out."""


class Source:
    """Tensors by name, over one file or many. Files are mapped, so reading a slice costs a slice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _read_config(folder)
        self._files: dict[str, Any] = {}
        self._where = self._index()

    @property
    def names(self) -> Iterable[str]:
        return self._where.keys()

    def size(self, name: str) -> tuple[int, ...]:
        return tuple(self._file(name).get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """In safetensors' words: F32, BF16 …"""
        return self._file(name).get_slice(name).get_dtype()

    def rows(self, name: str, start: int, stop: int, columns: tuple[int, int] | None = None) -> Tensor:
        """Rows [start, stop) of a tensor, and of these the columns [from, to) when given."""
        part = self._file(name).get_slice(name)
        return part[start:stop] if columns is None else part[start:stop, columns[0] : columns[1]]

    def _file(self, name: str) -> Any:
        return self._open(self._where[name])

    def _open(self, file: str) -> Any:
        if file not in self._files:
            path = self.folder / file
            try:
                self._files[file] = safe_open(path, framework="pt")
            except FileNotFoundError:
                raise Problem(
                    "R030", f"`{path}` is missing, though the index names it; fetch it again", outside=True
                ) from None
            except (SafetensorError, OSError) as error:
                raise Problem(
                    "R033", f"`{path}` is damaged ({_words(error)}); fetch it again", outside=True
                ) from None
        return self._files[file]

    def _index(self) -> dict[str, str]:
        index = self.folder / "model.safetensors.index.json"
        if index.is_file():
            return _read_index(index)
        files = sorted(path.name for path in self.folder.glob("*.safetensors"))
        if not files:
            raise _no_weights(self.folder)
        where: dict[str, str] = {}
        for file in ["model.safetensors"] if "model.safetensors" in files else files:
            for name in self._open(file).keys():  # noqa: SIM118 - no mapping
                where[name] = file
        return where


def opened(path: Path, shown: str) -> Source:
    """The source in a folder; Problem R030, R031 or R033 when there are no weights to be read."""
    if path.is_file():
        for pattern, kind, way in FOREIGN:
            if path.match(pattern):
                raise Problem("R031", f"`{shown}` is a {kind}, which is not read; {way}")
        if path.suffix != ".safetensors":
            raise Problem("R031", f"`{shown}` is no folder with safetensors; give the folder")
        path = path.parent
    return Source(path)


def check(source: Source, expected: dict[str, tuple[int, ...]], unread: set[str]) -> None:
    """Problem R032 when a tensor is missing, of another size or unknown; R031 when one is quantised."""
    where = source.folder
    found = set(source.names)
    if missing := [name for name in expected if name not in found]:
        raise Problem(
            "R032", f"`{where}` has no {_listed(missing)}; it is not a whole model of the planned shape"
        )
    extra = {name for name in found - expected.keys() - unread if not name.endswith(IGNORED)}
    if extra:
        raise Problem(
            "R032",
            f"`{where}` has {_listed(sorted(extra))}, which the planned model has not; "
            "plan with the folder's own config.json",
        )
    for name, size in expected.items():
        there = source.size(name)
        if there != size:
            raise Problem(
                "R032", f"`{name}` in `{where}` is {list(there)}, but the plan's model wants {list(size)}; "
                "plan with the folder's own config.json",
            )  # fmt: skip
        if source.dtype(name) not in FLOATS:
            raise Problem(
                "R031",
                f"`{name}` in `{where}` is quantised ({source.dtype(name)}); take the bf16 form of the model",
            )


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise Problem("R032", f"`{folder}/config.json` cannot be read ({_words(error)})") from None
    return data if isinstance(data, dict) else {}


def _read_index(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise Problem("R033", f"`{index}` is no index of tensors ({_words(error)}); fetch it again") from None
    if outside := [file for file in names.values() if Path(file).name != file]:
        raise Problem("R033", f"`{index}` names a file outside its folder: `{outside[0]}`")
    return names


def _no_weights(folder: Path) -> Problem:
    for pattern, kind, way in FOREIGN:
        if any(folder.glob(pattern)):
            return Problem("R031", f"`{folder}` holds a {kind}, which is not read; {way}")
    return Problem("R030", f"`{folder}` holds no .safetensors file; give a model in that form", outside=True)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
