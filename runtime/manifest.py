"""The manifest of a checkpoint: what it holds, and a checksum for every file.

`MANIFEST.json` is written last; a step folder without one is not a checkpoint. It has exactly one
form, `render(manifest)`, with a checksum of itself, so that a changed byte anywhere is noticed:
in a listed file by that file's sha256, in the manifest by its own. Standard library only, so that a
checkpoint can be verified where there is no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

FORMAT = 1
NAME = "MANIFEST.json"


class ManifestError(ValueError):
    """A step folder has no manifest or one that cannot be trusted; the message says why."""


@dataclass(frozen=True)
class FileRecord:
    """What one file of the checkpoint has to be: size in bytes and sha256 as hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is, for whoever wants to use it: enough to refuse it before reading it."""

    step: int
    model: dict[str, Any] = field(default_factory=dict)  # name, head, attributes, tokenizer, shape
    layout: dict[str, Any] = field(default_factory=dict)  # tp, pp, vp, ... dp, as saved
    precision: str = ""
    optimizer: str = ""  # how its state is laid out: distributed | replicated | none
    metric: float | None = None  # of the validation at this step, if there was one
    files: dict[str, FileRecord] = field(default_factory=dict)  # by path relative to the step folder
    format: int = FORMAT


def render(manifest: Manifest) -> bytes:
    """The manifest as bytes: sorted JSON in UTF-8 with `sha256`, the checksum of the rest, in it."""
    data = dataclasses.asdict(manifest)
    if manifest.metric is not None and not math.isfinite(manifest.metric):
        data["metric"] = None
    return _dump(data | {"sha256": hashlib.sha256(_dump(data)).hexdigest()})


def parse(content: bytes) -> Manifest:
    """The manifest of these bytes; ManifestError unless they are what `render` wrote."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise ManifestError("it is not JSON") from None
    if not isinstance(data, dict):
        raise ManifestError("it is not a JSON object")
    if data.get("format") != FORMAT:
        raise ManifestError(f"it has format {data.get('format')!r}, but this version reads format {FORMAT}")
    stated = data.pop("sha256", None)
    if stated != hashlib.sha256(_dump(data)).hexdigest() or content != _dump(data | {"sha256": stated}):
        raise ManifestError("its own checksum does not match")
    try:
        files = {name: FileRecord(**record) for name, record in data.pop("files").items()}
        manifest = Manifest(files=files, **data)
    except (KeyError, TypeError, AttributeError):
        raise ManifestError("its keys are not those of a manifest") from None
    for name in manifest.files:
        _refuse_a_path_that_leaves_the_folder(name)
    return manifest


def read(folder: Path) -> Manifest:
    """The manifest of a step folder; ManifestError says what is wrong with it."""
    try:
        content = (folder / NAME).read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{NAME} is missing") from None
    except OSError as error:
        raise ManifestError(f"{NAME} cannot be read: {error.strerror}") from None
    try:
        return parse(content)
    except ManifestError as error:
        raise ManifestError(f"{NAME} cannot be trusted: {error}") from None


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, to the disk and not only to the page cache; OSError when that fails."""
    write_durably(folder / NAME, render(manifest))


def record(path: Path) -> FileRecord:
    """Size and checksum of a file as it is now; OSError when it cannot be read."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileRecord(os.fstat(stream.fileno()).st_size, digest)


def problems(folder: Path, files: dict[str, FileRecord]) -> list[str]:
    """What is wrong with these files of a step folder, a phrase per file; empty when all are as recorded."""
    found = (problem(folder / name, name, wanted) for name, wanted in sorted(files.items()))
    return [text for text in found if text]


def problem(path: Path, name: str, wanted: FileRecord) -> str:
    """What is wrong with one file; empty when it is as recorded. Its size is looked at before its bytes."""
    try:
        size = path.stat().st_size
        if size != wanted.bytes:
            return f"`{name}` has {size} bytes instead of {wanted.bytes}"
        if record(path).sha256 != wanted.sha256:
            return f"the checksum of `{name}` does not match"
    except FileNotFoundError:
        return f"`{name}` is missing"
    except OSError as error:
        return f"`{name}` cannot be read: {error.strerror}"
    return ""


def dealt(files: dict[str, FileRecord], rank: int, ranks: int) -> dict[str, FileRecord]:
    """This rank's part of the files: largest first, each to the rank with the fewest bytes so far."""
    loads = [0] * ranks
    mine: dict[str, FileRecord] = {}
    for name in sorted(files, key=lambda name: (-files[name].bytes, name)):
        lightest = loads.index(min(loads))
        loads[lightest] += files[name].bytes + 1
        if lightest == rank:
            mine[name] = files[name]
    return mine


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk; OSError when there is no room."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def replace_durably(path: Path, content: bytes) -> None:
    """Put a file in place of another in one step: a reader sees the old bytes or the new ones."""
    waiting = path.with_name(f".{path.name}.writing")
    write_durably(waiting, content)
    waiting.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's list of names is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path, names: Iterable[str]) -> None:
    """Wait until these files of the folder, and the folders they lie in, are on the disk."""
    for name in names:
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())
    for parent in sorted({(folder / name).parent for name in names}):
        sync_folder(parent)


def _dump(data: dict[str, Any]) -> bytes:
    text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _refuse_a_path_that_leaves_the_folder(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ManifestError(f"it lists `{name}`, which is not inside the checkpoint")
