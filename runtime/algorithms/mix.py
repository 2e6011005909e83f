"""Several sets of rows as one, by weights; see `runtime/data/blend.py` for the order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.making import Making


def step(run: Making) -> dict[str, float]:
    """The next rows, as they are."""
    parts = [run.source.find(index)[0] for index in run.indices()]
    run.put(run.batch())
    run.count(**{f"rows_of_{part + 1}": parts.count(part) for part in sorted(set(parts))})
    return {}
