"""A data set as rows: a sequence of JSON objects, each of which knows where it came from.

`open_rows` reads a JSONL or Parquet file, a folder of them, a folder that Hugging Face `datasets`
saved, the id of a data set there, any of the files behind an fsspec URL, or `builtin:NAME`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from runtime.problem import Problem

T = TypeVar("T")

TEXT = (".jsonl", ".json", ".ndjson")
PARQUET = (".parquet", ".pq")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


class Rows(Protocol):
    """Rows by index; `where(i)` is what an error message calls row i, as `train.jsonl:12`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def where(self, index: int) -> str: ...

    def fingerprint(self) -> str:
        """Changes when the rows may have changed; cheap (names, sizes and times of files)."""
        ...


def open_rows(settings: Mapping[str, Any], *, seed: int, cache: Path) -> Rows:
    """The rows of `data.train` or `data.validation`; Problem R005 when they cannot be had.

    `settings` holds `path` and optionally `split, subset, limit`. `cache` takes what is fetched.
    """
    rows = _open(str(settings["path"]), settings, seed, cache)
    limit = int(settings.get("limit") or 0)
    return First(rows, limit) if 0 < limit < len(rows) else rows


def local_path(path: str, folder: Path | None = None) -> Path | None:
    """The file or folder on this machine that `path` names, else None (a URL, a data set's id)."""
    if "://" in path and not path.startswith("file://"):
        return None
    plain = Path(os.path.expanduser(path.removeprefix("file://")))
    if plain.exists():
        return plain
    if folder is not None and not plain.is_absolute() and (folder / plain).exists():
        return folder / plain
    return None


def looks_like_hub_id(path: str) -> bool:
    """`name` or `owner/name` without a file's ending: a data set on the Hugging Face hub."""
    return path.count("/") <= 1 and not path.startswith((".", "/", "~")) and Path(path).suffix not in _KNOWN


_KNOWN = {*TEXT, *PARQUET, *COMPRESSED}


def of_row(where: str, action: Callable[[], T]) -> T:
    """What `action` makes of a row; R010 says where the row stands that it can make nothing of."""
    try:
        return action()
    except (Problem, ValueError, KeyError, TypeError) as error:
        said = error.message if isinstance(error, Problem) else " ".join(str(error).split())
        raise Problem("R010", f"{where}: {said or type(error).__name__}") from error


def is_unfinished(row: Mapping[str, Any]) -> bool:
    """Does the row hold an answer that was cut at its limit, as a stage that generates says?"""
    return row.get("finish") == "length"


def _open(path: str, settings: Mapping[str, Any], seed: int, cache: Path) -> Rows:
    if path.startswith("builtin:"):
        from runtime.data.builtin import generated

        return generated(path.removeprefix("builtin:"), settings, seed)
    if "://" in path and not path.startswith("file://"):
        return _open_local(fetched(path, cache), settings, cache)
    found = local_path(path)
    if found is not None:
        return _open_local(found, settings, cache)
    if looks_like_hub_id(path):
        from runtime.data.hub import hub_rows

        return hub_rows(path, settings)
    raise Problem(
        "R005", f"no data at `{path}`; give a file, a folder, a URL or `builtin:arithmetic`", outside=True
    )


def _open_local(path: Path, settings: Mapping[str, Any], cache: Path) -> Rows:
    if path.is_dir():
        return _open_folder(path, settings, cache)
    if path.suffix in COMPRESSED:
        path = fetched(str(path), cache)
    if path.suffix in PARQUET:
        from runtime.data.parquet import ParquetRows

        return ParquetRows(path)
    if path.suffix in TEXT:
        from runtime.data.jsonl import JsonlRows

        return JsonlRows(path)
    endings = ", ".join(sorted(_KNOWN))
    raise Problem("R005", f"`{path}` has no ending that says its format; expected one of {endings}")


def _open_folder(folder: Path, settings: Mapping[str, Any], cache: Path) -> Rows:
    if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
        from runtime.data.hub import saved_rows

        return saved_rows(folder, settings)
    split = settings.get("split")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in {*TEXT, *PARQUET, *COMPRESSED})
    if split:
        files = [p for p in files if split in (p.parent.name, *p.name.replace("-", ".").split("."))]
    if not files:
        wanted = f" of split `{split}`" if split else ""
        raise Problem("R005", f"folder `{folder}` holds no .jsonl or .parquet file{wanted}")
    parts = [_open_local(p, settings, cache) for p in files]
    return parts[0] if len(parts) == 1 else Chained(parts)


def fetched(url: str, cache: Path) -> Path:
    """A local, unpacked copy of a URL or compressed file; R005 names the URL when it fails."""
    import fsspec

    name = url.rstrip("/").rsplit("/", 1)[-1]
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    target = cache / f"{hashlib.sha256(_identity(url).encode()).hexdigest()[:16]}-{name}"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with fsspec.open(url, "rb", compression="infer") as source, partial.open("wb") as copy:
            while chunk := source.read(1 << 22):  # type: ignore[attr-defined]
                copy.write(chunk)
        os.replace(partial, target)
    except Exception as error:
        partial.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise Problem("R005", f"cannot read `{url}`: {reason}", outside=True) from error
    return target


def _identity(url: str) -> str:
    found = local_path(url)
    return f"{url} {file_fingerprint(found)}" if found else url


def file_fingerprint(path: Path) -> str:
    """Size and time of change of a file, as text."""
    facts = path.stat()
    return f"{path.name}:{facts.st_size}:{facts.st_mtime_ns}"


class First:
    """The first `count` rows of others."""

    def __init__(self, rows: Rows, count: int):
        self.rows, self.count = rows, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]

    def where(self, index: int) -> str:
        return self.rows.where(index)

    def fingerprint(self) -> str:
        return f"{self.rows.fingerprint()} first {self.count}"


class Chained:
    """Several files one after another."""

    def __init__(self, parts: Sequence[Rows]):
        self.parts = parts
        self.starts = [0]
        for part in parts:
            self.starts.append(self.starts[-1] + len(part))

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, inner = self._find(index)
        return part[inner]

    def where(self, index: int) -> str:
        part, inner = self._find(index)
        return part.where(inner)

    def fingerprint(self) -> str:
        return " ".join(part.fingerprint() for part in self.parts)

    def _find(self, index: int) -> tuple[Rows, int]:
        from bisect import bisect_right

        at = bisect_right(self.starts, index) - 1
        return self.parts[at], index - self.starts[at]
