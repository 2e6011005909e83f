"""Rows that a stage makes, as they lie on the disk: durable shards while it works, one file at the end.

    STAGE/shards/000003.jsonl    rows of some batches of the source, whole since the rename
    STAGE/shards/journal.jsonl   what the rows are made of, then a line for each shard
    STAGE/rows.jsonl             all rows; complete when output.json is there

A shard is written beside its place, flushed to the disk, renamed, and then entered in the journal. What is
not entered does not count: it is made again, and comes out the same. A shard whose bytes are not those that
were entered is moved to the attempt's folder and made again, with all behind it. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtime.manifest import replace_durably, sync_folder

JOURNAL = "journal.jsonl"
ROWS = "rows.jsonl"
BREATH = 4096
"""Rows between two signs of life."""


@dataclass(frozen=True)
class Shard:
    """A line of the journal. `counts` are of the whole run so far, not of this shard."""

    name: str
    step: int  # steps done when it was written
    done: int  # rows of the source that were handled then
    rows: int
    sha256: str
    counts: dict[str, float] = field(default_factory=dict)


class Store:
    """The shards of one stage. One process uses it: rank 0."""

    def __init__(self, stage: Path):
        self.stage, self.folder = stage, stage / "shards"
        self.source: dict[str, Any] = {}
        self.shards: list[Shard] = []
        self._waiting: list[bytes] = []

    # ── going on ───────────────────────────────────────────────────────────────────────────────

    def open(self, source: Mapping[str, Any], attempt: Path) -> list[str]:
        """Take up what earlier attempts left of rows made of `source`; what had to be moved aside.

        ValueError names what the source is no longer. OSError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = _journal(self.folder / JOURNAL)
        if not lines:
            self._begin(source)
            return []
        self.source = lines[0]
        changed = [key for key, value in source.items() if self.source.get(key) != value]
        if changed:
            raise ValueError(", ".join(changed))
        entered = _entered(lines[1:])
        held = next((i for i, shard in enumerate(entered) if not self._holds(shard)), len(entered))
        self.shards = entered[:held]
        broken = [shard.name for shard in entered[held:]]
        for name in broken:
            self._move_aside(name, attempt)
        self._enter_all()
        self._sweep()
        return broken

    @property
    def last(self) -> Shard:
        """Where to go on."""
        return self.shards[-1] if self.shards else Shard("", 0, 0, 0, "")

    # ── making ─────────────────────────────────────────────────────────────────────────────────

    def put(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Take rows; they lie in memory until `flush`. How many there were."""
        lines = [line_of(row) for row in rows]
        self._waiting += lines
        return len(lines)

    def flush(self, step: int, done: int, counts: Mapping[str, float]) -> None:
        """Make a durable shard of the rows that wait. OSError; they still wait then."""
        content = b"".join(self._waiting)
        name = f"{len(self.shards):06d}.jsonl"
        replace_durably(self.folder / name, content)
        digest = hashlib.sha256(content).hexdigest()
        shard = Shard(name, step, done, len(self._waiting), digest, dict(counts))
        with (self.folder / JOURNAL).open("ab") as journal:
            journal.write(line_of(asdict(shard)))
            journal.flush()
            os.fsync(journal.fileno())
        self.shards.append(shard)
        self._waiting = []

    def rows(self) -> Iterator[dict[str, Any]]:
        """All durable rows in order; again from the first for each call."""
        for shard in self.shards:
            with (self.folder / shard.name).open("rb") as file:
                for line in file:
                    yield json.loads(line)

    # ── ending ─────────────────────────────────────────────────────────────────────────────────

    def write(self, rows: Iterable[Mapping[str, Any]], alive: Callable[[], None]) -> dict[str, Any]:
        """Write `rows.jsonl` by one rename; `rows` and `sha256` for output.json. OSError."""
        target = self.stage / ROWS
        waiting = target.with_name(f".{ROWS}.writing")
        digest, count = hashlib.sha256(), 0
        with waiting.open("wb") as file:
            for row in rows:
                line = line_of(row)
                digest.update(line)
                file.write(line)
                count += 1
                if count % BREATH == 0:
                    alive()
            file.flush()
            os.fsync(file.fileno())
        waiting.replace(target)
        sync_folder(self.stage)
        return {"rows": count, "sha256": digest.hexdigest()}

    def remove(self) -> None:
        """The shards have done their duty."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    def _begin(self, source: Mapping[str, Any]) -> None:
        self.source = dict(source)
        self._enter_all()
        self._sweep()

    def _enter_all(self) -> None:
        """The journal anew, without a torn last line or shards that do not hold."""
        lines = [line_of(self.source), *(line_of(asdict(shard)) for shard in self.shards)]
        replace_durably(self.folder / JOURNAL, b"".join(lines))

    def _holds(self, shard: Shard) -> bool:
        try:
            return sha256_of(self.folder / shard.name) == shard.sha256
        except OSError:
            return False

    def _move_aside(self, name: str, attempt: Path) -> None:
        if (self.folder / name).exists():
            (attempt / "shards").mkdir(parents=True, exist_ok=True)
            os.replace(self.folder / name, attempt / "shards" / name)

    def _sweep(self) -> None:
        """Remove what a kill left before it was entered."""
        known = {JOURNAL, *(shard.name for shard in self.shards)}
        for path in self.folder.iterdir():
            if path.name not in known:
                path.unlink()


def line_of(row: Mapping[str, Any]) -> bytes:
    """A row as a line of UTF-8; half a character, which UTF-8 cannot hold, is escaped."""
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row) + "\n").encode()


def sha256_of(file: Path) -> str:
    """The hash of a file's bytes; OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def note(output: Path, **facts: Any) -> None:
    """Write facts into an output.json that is there, durably; OSError, ValueError."""
    content = json.loads(output.read_text(encoding="utf-8"))
    replace_durably(output, (json.dumps({**content, **facts}, indent=2) + "\n").encode())


def write_output(output: Path, content: Mapping[str, Any]) -> None:
    """`output.json`, which says that a stage is finished; on the disk when this returns. OSError."""
    replace_durably(output, (json.dumps(content, indent=2) + "\n").encode())


def _entered(lines: list[dict[str, Any]]) -> list[Shard]:
    """The shards of the journal's lines, up to the first line that is none."""
    found: list[Shard] = []
    for line in lines:
        try:
            shard = Shard(**line)
        except TypeError:
            return found
        if shard.name != f"{len(found):06d}.jsonl":
            return found
        found.append(shard)
    return found


def _journal(file: Path) -> list[dict[str, Any]]:
    """The whole lines of the journal; a torn last one, which a kill left, does not count."""
    try:
        lines = file.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line) if line.endswith(b"\n") else None)
        except ValueError:
            found.append(None)
        if not isinstance(found[-1], dict):
            return found[:-1]
    return found
