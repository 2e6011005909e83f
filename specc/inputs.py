"""The files that a spec names, looked at while compiling: absent is a warning, bad is an error.

A path may well exist on the cluster only, so absence says little here; but a file that is here and is
empty, torn or without the fields that the templates name is a mistake found minutes before the job finds
it. Only the head of a file is read, and nothing but the standard library is needed for it. The runtime
reads everything and checks again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specc.diagnostics import Diagnostic
from specc.experiment import Experiment
from specc.spec.data import FIELD, Dataset
from specc.spec.model import Model
from specc.spec.reading import listed, nearest

HEAD_BYTES = 1 << 20
HEAD_ROWS = 200
MOST_FILES = 20_000

TEXT = (".jsonl", ".json", ".ndjson")
PARQUET = (".parquet", ".pq")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
KNOWN = (*TEXT, *PARQUET, *COMPRESSED)

TOKENIZERS = "give `builtin:bytes`, a tokenizer.json, a SentencePiece .model, or a folder that holds one"

BUILTIN = ("arithmetic",)
"""Data that ships as code, in `runtime/data/builtin.py`."""

CHAT_KEYS = ("messages", "conversations")

TURNS = "a turn is {role, content} in `messages`, {from, value} in `conversations`"
ONE_PER_LINE = "write one object per line, e.g. with jq -c '.[]'"

_WORDS = {
    "Expecting value": "a value is missing here",
    "Expecting ',' delimiter": "a `,` is missing here",
    "Expecting ':' delimiter": "a `:` is missing here",
    "Expecting property name enclosed in double quotes": "a key in double quotes is missing here",
    "Unterminated string starting at": "the string that begins here is not closed",
    "Extra data": "something follows the object",
    "Invalid control character at": "a string holds a control character here",
}
"""What Python's reader of JSON says, in plain words."""


def check(experiment: Experiment, folder: Path, strict: bool = False) -> list[Diagnostic]:
    """What is wrong with the data and models named by path, seen from `folder`, where the spec lies.

    `strict` makes absence an error, for a run on this machine.
    """
    said: list[Diagnostic] = []
    for name, spec in experiment.stages.items():
        data = getattr(spec, "data", None)
        for use in type(data).model_fields if data is not None else ():
            rows = getattr(data, use)
            if isinstance(rows, Dataset):
                said += _Rows(rows, experiment.path(name, f"data.{use}"), folder, strict).check()
        model = getattr(spec, "model", None)
        if isinstance(model, Model):
            said += _model(model, experiment.path(name, "model"), folder, strict)
    return list(dict.fromkeys(said))


def is_here(path: str, folder: Path) -> bool:
    """Whether a path of a spec in `folder` names a file or folder of this machine."""
    return here(path, folder) is not None


def here(path: str, folder: Path) -> Path | None:
    """The file or folder that a path of a spec in `folder` names, None when there is none (or a URL)."""
    if "://" in path and not path.startswith("file://"):
        return None
    try:
        found = folder / Path(path.removeprefix("file://")).expanduser()
        return found if found.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, no such user, a null byte
        return None


def _where_it_starts(path: str, strict: bool) -> str:
    """What helps with a file that is not here: the folder a relative path starts from, here or there."""
    relative = not path.startswith(("/", "~"))
    if strict:
        return "relative paths start from the spec's folder" if relative else "give the path of what is here"
    start = ", where relative paths start from the profile's `data`, or from where submit.sh is called"
    return "it must exist on the cluster" + (start if relative else "")


def is_hub_id(path: str) -> bool:
    """`name` or `owner/name` without a file's ending: a data set or model on the Hugging Face hub."""
    return path.count("/") <= 1 and not path.startswith((".", "/", "~")) and Path(path).suffix not in KNOWN


@dataclass(frozen=True)
class _Mistake:
    """What is wrong with a file."""

    code: str
    message: str
    field: str = ""  # of the data set, to point at
    help: str = "check that the path is the one you mean, and that the file was written to its end"


# --- rows --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """One data set of a spec."""

    said: Dataset
    path: str  # where the spec says it
    folder: Path
    strict: bool

    def check(self) -> list[Diagnostic]:
        name = self.said.path
        if name.startswith("builtin:"):
            return self._builtin(name.removeprefix("builtin:"))
        found = here(name, self.folder)
        if found is None:
            return self._absent(name)
        mistake = self._looked_at(found)
        if mistake is None:
            return []
        where = f"{self.path}.{mistake.field or 'path'}"
        return [Diagnostic(mistake.code, "error", mistake.message, where, help=mistake.help)]

    def _builtin(self, name: str) -> list[Diagnostic]:
        if name in BUILTIN:
            return []
        near = nearest(name, BUILTIN)
        help = (
            f"did you mean `builtin:{near}`?"
            if near
            else f"there is {listed([f'builtin:{b}' for b in BUILTIN])}"
        )
        message = f"there is no generated data `builtin:{name}`"
        return [Diagnostic("G016", "error", message, f"{self.path}.path", "not known", help)]

    def _absent(self, name: str) -> list[Diagnostic]:
        if ("://" in name and not name.startswith("file://")) or is_hub_id(name):
            return []
        message = f"`{name}` is not on this machine"
        severity = "error" if self.strict else "warning"
        help = _where_it_starts(name, self.strict)
        return [Diagnostic("G010", severity, message, f"{self.path}.path", "absent here", help)]

    def _looked_at(self, found: Path) -> _Mistake | None:
        try:
            return self._folder(found) if found.is_dir() else self._file(found)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            return _Mistake("G012", f"`{self.said.path}` cannot be read: {reason}")

    def _folder(self, folder: Path) -> _Mistake | None:
        if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
            return None
        files = _data_files(folder)
        if files is None:
            return None
        if self.said.split:
            wanted = self.said.split
            files = [p for p in files if wanted in (p.parent.name, *p.name.replace("-", ".").split("."))]
        if not files:
            what = f" of split `{self.said.split}`" if self.said.split else ""
            return _Mistake("G011", f"the folder `{self.said.path}` holds no .jsonl or .parquet file{what}")
        return self._file(files[0])

    def _file(self, file: Path) -> _Mistake | None:
        name = self._name(file)
        if not file.is_file():
            return _Mistake("G012", f"`{name}` is neither a file nor a folder")
        if file.suffix not in KNOWN:
            help = "convert it to .jsonl or .parquet"
            return _Mistake("G015", f"the ending of `{name}` does not say its format", help=help)
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
        if not head:
            return _Mistake("G011", f"`{name}` is empty")
        if file.suffix in PARQUET:
            if head.startswith(b"PAR1"):
                return None
            return _Mistake("G012", f"`{name}` is not a Parquet file: it does not begin with PAR1")
        return self._lines(name, head) if file.suffix in TEXT else None

    def _name(self, file: Path) -> str:
        """The file as the spec would call it."""
        top = here(self.said.path, self.folder)
        inner = file.relative_to(top) if top is not None and file != top else None
        return self.said.path if inner is None else f"{self.said.path.rstrip('/')}/{inner}"

    def _lines(self, name: str, head: bytes) -> _Mistake | None:
        is_chat: bool | None = {"chat": True, "prompt_response": False}.get(self.said.format)
        count = 0
        for number, line in _whole_lines(head):
            if count == (self.said.limit or HEAD_ROWS):
                break
            row = _row(line, f"{name}:{number}", is_array=number == 1 and line.startswith(b"["))
            if isinstance(row, _Mistake):
                return row
            count += 1
            if is_chat is None:
                is_chat = any(isinstance(row.get(key), list) for key in CHAT_KEYS)
            mistake = (
                _chat(row, f"{name}:{number}")
                if is_chat
                else self._fields(row, f"{name}:{number}", count == 1)
            )
            if mistake:
                return mistake
        if not count and len(head) < HEAD_BYTES:
            return _Mistake("G011", f"`{name}` holds no row, only blank lines")
        return None

    def _fields(self, row: Mapping[str, Any], where: str, is_first: bool) -> _Mistake | None:
        """The first field of the templates that a row lacks, or that is no text."""
        for key in ("prompt", "response"):
            for field in FIELD.findall(getattr(self.said, key)):
                value = _value(row, field)
                if value is _ABSENT:
                    return self._lacking(row, where, key, field, is_first)
                if isinstance(value, bool) or not isinstance(value, str | int | float):
                    message = f"`{where}`: field `{field}` is {_kind(value)}, not text"
                    return _Mistake("G014", message, key, "name a field that holds text")
        return None

    def _lacking(self, row: Mapping[str, Any], where: str, key: str, field: str, is_first: bool) -> _Mistake:
        has = listed([str(k) for k in list(row)[:12]]) if row else "nothing"
        near = nearest(field, [str(k) for k in row])
        other = list(row)[0 if key == "prompt" else -1] if row else "field"
        help = f"name a field that the rows have in `{key}:`, e.g. '{{{other}}}'"
        if near:
            help = f'did you mean `{key}: "{{{near}}}"`?'
        elif not is_first:
            help = "rows before it have the field; complete this one, or take it out"
        return _Mistake("G014", f"`{where}` has no field `{field}`; it has {has}", key, help)


def _data_files(folder: Path) -> list[Path] | None:
    """The files of a known format in a folder and below, sorted; None when there are too many to look at."""
    found: list[Path] = []
    seen = 0
    for place, folders, names in os.walk(folder):
        seen += 1 + len(names)
        if seen > MOST_FILES:
            return None
        folders.sort()
        found += [Path(place, name) for name in names if Path(name).suffix in KNOWN]
    return sorted(path for path in found if path.is_file())


def _whole_lines(head: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines that hold something, with their numbers; a last line that may be cut off is left out."""
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if len(head) == HEAD_BYTES:
        lines.pop()
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _row(line: bytes, where: str, is_array: bool) -> dict[str, Any] | _Mistake:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
        return _Mistake("G012", f"`{where}`: {byte}, which is not UTF-8", help="save the file as UTF-8")
    except json.JSONDecodeError as error:
        if is_array:
            return _Mistake("G013", f"`{where}` begins a JSON array, not an object", help=ONE_PER_LINE)
        why = _WORDS.get(error.msg, f"{error.msg[:1].lower()}{error.msg[1:]}")
        return _Mistake(
            "G013", f"`{where}:{error.colno}` is not JSON: {why}", help="write one JSON object per line"
        )
    except (RecursionError, ValueError):
        return _Mistake("G013", f"`{where}` is nested too deeply, or holds too long a number")
    if isinstance(row, dict):
        return row
    help = ONE_PER_LINE if isinstance(row, list) else "write one JSON object per line"
    return _Mistake("G013", f"`{where}` is {_kind(row)}, not an object", help=help)


def _chat(row: Mapping[str, Any], where: str) -> _Mistake | None:
    """The first thing that keeps a row from being a conversation."""
    key = next((key for key in CHAT_KEYS if key in row), None)
    if key is None:
        has = listed([str(k) for k in list(row)[:12]]) if row else "nothing"
        help = "use format: prompt_response, with templates that name the fields"
        return _Mistake(
            "G014", f"`{where}` has no `messages` and no `conversations`; it has {has}", "format", help
        )
    turns = row[key]
    if not isinstance(turns, list) or not turns:
        return _Mistake(
            "G014",
            f"`{where}`: `{key}` is {'empty' if turns == [] else _kind(turns)}, not a list of turns",
            help=TURNS,
        )
    who, what = ("role", "content") if key == "messages" else ("from", "value")
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict):
            return _Mistake("G014", f"`{where}`: turn {number} is {_kind(turn)}, not an object", help=TURNS)
        for part in (who, what):
            if part not in turn and "tool_calls" not in turn:
                return _Mistake("G014", f"`{where}`: turn {number} has no `{part}`", help=TURNS)
    return None


_ABSENT = object()


def _value(row: Mapping[str, Any], field: str) -> Any:
    """A field of a row, dots going into objects."""
    found: Any = row
    for part in [field] if field in row else field.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return _ABSENT
        found = found[part]
    return found


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null", str: "text"}
    return names.get(type(value), "a number")


# --- models ------------------------------------------------------------------------------------------


def _model(model: Model, path: str, folder: Path, strict: bool) -> Iterator[Diagnostic]:
    name = model.path or model.name or ""
    if name and model.weights != "random" and model.shape is None:
        yield from _weights(name, f"{path}.{'path' if model.path else 'name'}", folder, strict)
    if model.tokenizer is not None:
        yield from _tokenizer(model.tokenizer, f"{path}.tokenizer", folder, strict)


def _weights(name: str, path: str, folder: Path, strict: bool) -> Iterator[Diagnostic]:
    """A folder with a config.json holds weights that are read; its config is the planner's to read."""
    found = here(name, folder)
    if found is None:
        if strict and not ("://" in name or is_hub_id(name)) and not name.endswith(".nemo"):
            message = f"the model `{name}` is not on this machine"
            yield Diagnostic("G010", "error", message, path, "absent here", _where_it_starts(name, strict))
        return
    if not found.is_dir() or not (found / "config.json").is_file():
        return
    if any(found.glob("*.safetensors")):
        return
    older = any(found.glob("pytorch_model*.bin"))
    message = f"the model folder `{name}` has no .safetensors file" + (", only .bin files" if older else "")
    help = "convert them with transformers: save_pretrained(FOLDER)" if older else "or use weights: random"
    yield Diagnostic("G020", "error" if older or strict else "warning", message, path, "no weights", help)


def _tokenizer(name: str, path: str, folder: Path, strict: bool) -> Iterator[Diagnostic]:
    if name.startswith("builtin:"):
        if name != "builtin:bytes":
            message = f"there is no tokenizer `{name}`"
            yield Diagnostic("G021", "error", message, path, "not known", TOKENIZERS)
        return
    found = here(name, folder)
    is_file_name = name.endswith((".json", ".model"))
    if found is None:
        if "://" in name or (is_hub_id(name) and not is_file_name):
            return
        severity = "error" if strict else "warning"
        help = _where_it_starts(name, strict)
        yield Diagnostic(
            "G010", severity, f"the tokenizer `{name}` is not on this machine", path, "absent here", help
        )
    elif found.is_dir():
        if not any(any(found.glob(pattern)) for pattern in ("tokenizer.json", "*.model")):
            message = f"the folder `{name}` holds no tokenizer.json and no .model file"
            yield Diagnostic("G021", "error", message, path, "no tokenizer", TOKENIZERS)
    elif found.stat().st_size == 0:
        yield Diagnostic("G021", "error", f"the tokenizer `{name}` is empty", path, help=TOKENIZERS)
