"""Parquet files, one row group in memory at a time."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import Any

from runtime.data.rows import file_fingerprint
from runtime.problem import Problem


class ParquetRows:
    """Rows of a Parquet file; reading in order touches each row group once."""

    def __init__(self, path: Path):
        import pyarrow
        import pyarrow.parquet

        self.path = path
        try:
            self.file = pyarrow.parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise Problem("R005", f"cannot read `{path}` as Parquet: {error}", outside=True) from None
        self.starts = [0]
        for group in range(self.file.num_row_groups):
            self.starts.append(self.starts[-1] + self.file.metadata.row_group(group).num_rows)
        self._group, self._rows = -1, []

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        group = bisect_right(self.starts, index) - 1
        if group != self._group:
            self._group, self._rows = group, self.file.read_row_group(group).to_pylist()
        return self._rows[index - self.starts[group]]

    def where(self, index: int) -> str:
        return f"{self.path}: row {index + 1}"

    def fingerprint(self) -> str:
        return file_fingerprint(self.path)
