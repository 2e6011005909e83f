"""The files that a spec names, looked at while compiling: absent is a warning, bad is an error.

A path may well exist on the cluster only, so absence says little here; but a file that is here and is
empty, torn or without the fields that the templates name is a mistake found minutes before the job finds
it. Only the head of a file is read, and nothing but the standard library is needed for it. The runtime
reads everything and checks again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specc.diagnostics import Diagnostic
from specc.experiment import Experiment
from specc.rows import Form, Mistake, kind
from specc.spec.data import Asked, Dataset, Judged, Rows
from specc.spec.model import Model
from specc.spec.preferences import Compared, Verdicts
from specc.spec.reading import listed, nearest

HEAD_BYTES = 1 << 20
HEAD_ROWS = 200
MOST_FILES = 20_000

TEXT = (".jsonl", ".json", ".ndjson")
PARQUET = (".parquet", ".pq")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
KNOWN = (*TEXT, *PARQUET, *COMPRESSED)

TRAINED = "builtin:words/"
"""Before the family whose special tokens a small tokenizer has that is trained on the spot."""
TOKENIZERS = "give `builtin:bytes`, a tokenizer.json, a SentencePiece .model, or a folder that holds one"

BUILTIN = ("arithmetic",)
"""Data that ships as code, in `runtime/data/builtin.py`."""

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
        for path, rows in _data_sets(spec):
            if rows.path is not None:  # else a stage makes them
                where = experiment.path(name, path)
                said += _Rows(rows, rows.path, _form(rows, spec), where, folder, strict).check()
        for path, model in _models(spec):
            said += _model(model, experiment.path(name, path), folder, strict)
    return list(dict.fromkeys(said))


def _data_sets(spec: Any) -> Iterator[tuple[str, Rows]]:
    """Every data set that a stage names, with where it does."""
    data = getattr(spec, "data", None)
    for use in type(data).model_fields if data is not None else ():
        given = getattr(data, use)
        if isinstance(given, Rows):
            yield f"data.{use}", given
        elif isinstance(given, tuple):
            several = len(given) > 1  # one may stand without brackets
            yield from (
                (f"data.{use}[{number}]" if several else f"data.{use}", rows)
                for number, rows in enumerate(given)
                if isinstance(rows, Rows)
            )


def _models(spec: Any) -> Iterator[tuple[str, Model]]:
    """Every model that a stage names, with where it does."""
    roles = getattr(spec, "roles", None)
    found = {f"roles.{name}.": getattr(roles, name) for name in type(roles).model_fields} if roles else {}
    found |= {"reference.": getattr(spec, "reference", None)}
    for prefix, section in {"": spec, **found}.items():
        model = getattr(section, "model", None)
        if isinstance(model, Model):
            yield f"{prefix}model", model


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


# --- rows --------------------------------------------------------------------------------------------


def _form(rows: Rows, spec: Any) -> Form:
    """How the rows have to look, for what the stage does with them."""
    if isinstance(rows, Asked):
        return Form("prompts" if rows.format == "auto" else rows.format, {"prompt": rows.prompt})
    if isinstance(rows, Dataset):
        return Form(rows.format, {"prompt": rows.prompt, "response": rows.response})
    if isinstance(rows, Compared):
        return Form(
            "hh" if rows.format == "hh" else "pairs",
            {"prompt": rows.prompt, "chosen": rows.chosen, "rejected": rows.rejected},
        )
    if isinstance(rows, Verdicts):
        return Form("verdicts", {"prompt": rows.prompt, "response": rows.response})
    if not isinstance(rows, Judged):
        return Form("any")
    reward = spec.reward
    wanted = "attributes" if reward.formula == "regression" else "comparisons"
    return Form(
        wanted if rows.format == "auto" else rows.format,
        {"prompt": rows.prompt, "chosen": rows.chosen, "rejected": rows.rejected},
        reward.names or ("reward",),
        reward.needs_strength,
    )


@dataclass(frozen=True)
class _Rows:
    """One data set of a spec."""

    said: Rows
    name: str  # its path
    form: Form
    path: str  # where the spec says it
    folder: Path
    strict: bool

    def check(self) -> list[Diagnostic]:
        name = self.name
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

    def _looked_at(self, found: Path) -> Mistake | None:
        try:
            return self._folder(found) if found.is_dir() else self._file(found)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            return Mistake("G012", f"`{self.name}` cannot be read: {reason}")

    def _folder(self, folder: Path) -> Mistake | None:
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
            return Mistake("G011", f"the folder `{self.name}` holds no .jsonl or .parquet file{what}")
        return self._file(files[0])

    def _file(self, file: Path) -> Mistake | None:
        name = self._name(file)
        if not file.is_file():
            return Mistake("G012", f"`{name}` is neither a file nor a folder")
        if file.suffix not in KNOWN:
            help = "convert it to .jsonl or .parquet"
            return Mistake("G015", f"the ending of `{name}` does not say its format", help=help)
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
        if not head:
            return Mistake("G011", f"`{name}` is empty")
        if file.suffix in PARQUET:
            if head.startswith(b"PAR1"):
                return None
            return Mistake("G012", f"`{name}` is not a Parquet file: it does not begin with PAR1")
        return self._lines(name, head) if file.suffix in TEXT else None

    def _name(self, file: Path) -> str:
        """The file as the spec would call it."""
        top = here(self.name, self.folder)
        inner = file.relative_to(top) if top is not None and file != top else None
        return self.name if inner is None else f"{self.name.rstrip('/')}/{inner}"

    def _lines(self, name: str, head: bytes) -> Mistake | None:
        form, count = self.form, 0
        for number, line in _whole_lines(head):
            if count == (self.said.limit or HEAD_ROWS):
                break
            row = _row(line, f"{name}:{number}", is_array=number == 1 and line.startswith(b"["))
            if isinstance(row, Mistake):
                return row
            count += 1
            form = form.of(row)
            mistake = form.mistake(row, f"{name}:{number}", count == 1)
            if mistake:
                return mistake
        if not count and len(head) < HEAD_BYTES:
            return Mistake("G011", f"`{name}` holds no row, only blank lines")
        return None


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


def _row(line: bytes, where: str, is_array: bool) -> dict[str, Any] | Mistake:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
        return Mistake("G012", f"`{where}`: {byte}, which is not UTF-8", help="save the file as UTF-8")
    except json.JSONDecodeError as error:
        if is_array:
            return Mistake("G013", f"`{where}` begins a JSON array, not an object", help=ONE_PER_LINE)
        why = _WORDS.get(error.msg, f"{error.msg[:1].lower()}{error.msg[1:]}")
        return Mistake(
            "G013", f"`{where}:{error.colno}` is not JSON: {why}", help="write one JSON object per line"
        )
    except (RecursionError, ValueError):
        return Mistake("G013", f"`{where}` is nested too deeply, or holds too long a number")
    if isinstance(row, dict):
        return row
    help = ONE_PER_LINE if isinstance(row, list) else "write one JSON object per line"
    return Mistake("G013", f"`{where}` is {kind(row)}, not an object", help=help)


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
        if name != "builtin:bytes" and not name.startswith(TRAINED):
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
