"""What a kill left undone of a finished stage: `output.json` is there, and not all is gone that goes then.

The runtime discards what a finished stage needs no more, and removes the shards of its rows, behind its
output.json; killed before that, or on the way, it does the rest when it is started again. Whoever skips a
finished stage asks here whether there is a rest. Standard library only.
"""

from __future__ import annotations

from pathlib import Path

from specc.plan import Job

BULKY = (
    *("rows.jsonl", "shards", "checkpoint", "data", ".discarded-*"),
    *("*/checkpoint", "*/.discarded-*", "reference/*/*.npy"),
)
"""What goes of a stage that is discarded, and what it is called on its way out (`runtime.handover`)."""


def are_left(job: Job, folder: Path) -> bool:
    """Whether a finished stage still has to remove something, of its own or of earlier stages."""
    own, discarded = folder / job.stage, (folder / name for name in job.discards)
    if (own / "rows.jsonl").exists() and (own / "shards").is_dir():
        return True
    return any(_has(stage, BULKY) for stage in discarded if (stage / "output.json").exists())


def _has(stage: Path, names: tuple[str, ...]) -> bool:
    return any(next(stage.glob(name), None) is not None for name in names)
