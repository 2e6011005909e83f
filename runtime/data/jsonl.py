"""JSONL files: one object a line, found by an index of byte offsets, so no text is held in memory."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any, BinaryIO

from runtime.data.rows import file_fingerprint
from runtime.problem import Problem


class JsonlRows:
    """The non-blank lines of a file; a line that is not a JSON object is refused when it is read."""

    def __init__(self, path: Path):
        self.path = path
        self.offsets, self.lines = array("q"), array("q")
        self._file: BinaryIO | None = None
        try:
            self._index()
        except OSError as error:
            raise Problem("R005", f"cannot read `{path}`: {error.strerror}", outside=True) from None

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._file is None:
            self._file = self.path.open("rb")
        self._file.seek(self.offsets[index])
        return self._parsed(self._file.readline(), index)

    def where(self, index: int) -> str:
        return f"{self.path}:{self.lines[index]}"

    def fingerprint(self) -> str:
        return file_fingerprint(self.path)

    def _index(self) -> None:
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    self.offsets.append(offset)
                    self.lines.append(number)
                offset += len(line)

    def _parsed(self, line: bytes, index: int) -> dict[str, Any]:
        try:
            row = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise Problem("R010", f"{self.where(index)}: byte {error.start + 1} is not UTF-8") from None
        except json.JSONDecodeError as error:
            raise Problem("R010", f"{self.where(index)}:{error.colno}: not JSON: {error.msg}") from None
        except RecursionError:
            raise Problem("R010", f"{self.where(index)}: nested too deeply") from None
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise Problem("R010", f"{self.where(index)}: expected a JSON object on every line, not a {kind}")
        return row
