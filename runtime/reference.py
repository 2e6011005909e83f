"""The log-probabilities of a reference: asked at every step, or once before training and then read from disk.

swap     The reference's weights wait in the host's memory and trade places with the model's while they are
         asked, on the very microbatches that are trained: before the first update the two agree bit by bit.
stored   One pass over all rows before the first step; then no second set of weights is needed. Rows are
         sorted by length for it, so a microbatch may have another width than in training.

    STAGE/reference/KEY/000000.npy ...   fp32, a number for each token, part by part in the order of the rows

KEY says which tokens they are of, and which weights they are from. A part appears by one rename when it is
on the disk, so a killed pass goes on with the part it was at. Files are mapped into memory, and read where
a sample is needed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from runtime import manifest
from runtime.agreement import told
from runtime.batch import Batch, Bin, Sample
from runtime.data.rows import local_path
from runtime.dealing import by_sample, deal, gathered
from runtime.frozen import Frozen
from runtime.problem import Problem
from runtime.steps import name_of
from runtime.weights import step_of, take_weights
from specc.plan import Role, Weights

if TYPE_CHECKING:
    from runtime.run import Run

NAME = "reference"
"""Of the role, and of the numbers on each column of a batch."""

PART_ROWS = 256
"""Rows whose log-probabilities are computed, and written, together."""


class Texts(Protocol):
    """Samples by index, as `Tokenised` holds them."""

    @property
    def hash(self) -> str: ...
    @property
    def group(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...
    def index(self, id: int) -> int: ...
    def tokens_before(self, index: int) -> int: ...


class Asked(Protocol):
    """A data set that a reference is asked about."""

    @property
    def rows(self) -> int: ...
    @property
    def samples(self) -> Any: ...  # Texts


class Reference(Protocol):
    """What an algorithm asks."""

    def answered(self, run: Run, asked: Sequence[tuple[Asked, list[Bin]]]) -> list[list[Batch]]:
        """This rank's microbatches of each batch of a data set, with the reference's log p of every label on
        its column.
        """
        ...


def reference_of(run: Run, views: Sequence[Asked] = ()) -> Reference:
    """The reference as the plan has it. Collective; the model takes its own weights afterwards. `views` are
    data sets that it is asked about beside the run's own.
    """
    beside = (group.roles for group in run.job.groups if run.role in group.roles)
    role = next((role for roles in beside for role in roles if role.name == NAME), None)
    if role is None:
        message = f"role `{run.role.name}` has no `{NAME}` in its processes; compile the spec again"
        raise Problem("R001", message)
    if run.settings.get("reference") == "stored":
        return stored(run, role, views)
    own = Frozen(run.model) if _keeps_its_own(run, role) else None
    take_weights(run.model, role, run.place, say=run.say, alive=run.alive)
    frozen = Frozen(run.model)
    if own is not None:
        own.restore()
    return Swapped(frozen)


def _keeps_its_own(run: Run, role: Role) -> bool:
    """Whether the model's first weights are those it was built with, and the reference's are not."""
    return run.role.model.weights.kind == "random" != role.model.weights.kind


class Swapped:
    """Weights in the host's memory."""

    def __init__(self, frozen: Frozen) -> None:
        self.frozen = frozen

    def answered(self, run: Run, asked: Sequence[tuple[Asked, list[Bin]]]) -> list[list[Batch]]:
        shares = [run.dealt(bins) for _, bins in asked]
        with self.frozen.in_place() as engine:
            for share in shares:
                for batch, logprobs_BT in zip(share, engine.forward(share), strict=True):
                    batch.extra[NAME] = logprobs_BT.cpu()
        return shares


class Stored:
    """Files of each data set, by its hash."""

    def __init__(self, files: dict[str, LogProbs]) -> None:
        self.files = files

    def answered(self, run: Run, asked: Sequence[tuple[Asked, list[Bin]]]) -> list[list[Batch]]:
        shares = []
        for data, bins in asked:
            files = self.files[data.samples.hash]
            shares.append(run.dealt([[files.on(sample) for sample in line] for line in bins]))
        for batch in (batch for share in shares for batch in share):
            batch.extra.setdefault(NAME, torch.zeros_like(batch.mask_BT))  # one that only fills up
        return shares


# ── files ────────────────────────────────────────────────────────────────────────────────────────


class LogProbs:
    """One number for each token of a data set, in parts of `PART_ROWS` rows; of a sample's n tokens the last
    has none, since column t holds log p of token t + 1.
    """

    def __init__(self, folder: Path, data: Asked) -> None:
        self.folder, self.data = folder, data
        self._open: dict[int, np.ndarray] = {}

    @property
    def parts(self) -> range:
        """Numbers of all parts."""
        return range(-(-self.data.rows // PART_ROWS))

    def file(self, part: int) -> Path:
        return self.folder / f"{part:06d}.npy"

    def samples(self, part: int) -> list[Sample]:
        """The samples whose numbers a part holds, in order."""
        tokens, group = self.data.samples, self.data.samples.group
        rows = range(part * PART_ROWS, min((part + 1) * PART_ROWS, self.data.rows))
        return [tokens[row * group + i] for row in rows for i in range(group)]

    def lost(self) -> list[int]:
        """Parts that are not there, or not whole."""
        return [part for part in self.parts if not self._is_whole(part)]

    def write(self, part: int, numbers: Sequence[np.ndarray]) -> None:
        """A part, durably: the numbers of its samples one after another."""
        self.folder.mkdir(parents=True, exist_ok=True)
        flat = [np.append(np.asarray(each, np.float32), np.float32(0)) for each in numbers]
        partial = self.folder / f".{part:06d}.{os.getpid()}.npy"
        with partial.open("wb") as out:
            np.save(out, np.concatenate(flat), allow_pickle=False)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, self.file(part))

    def on(self, sample: Sample) -> Sample:
        """The sample with its numbers on its columns."""
        index = self.data.samples.index(sample.id)
        part = index // (PART_ROWS * self.data.samples.group)
        first = self.data.samples.tokens_before(index) - self._begins(part)
        numbers = self._mapped(part)[first : first + sample.columns]
        return dataclasses.replace(sample, extra={**sample.extra, NAME: numbers})

    def _begins(self, part: int) -> int:
        """Tokens before those of a part."""
        return self.data.samples.tokens_before(part * PART_ROWS * self.data.samples.group)

    def _mapped(self, part: int) -> np.ndarray:
        if part not in self._open:
            self._open[part] = np.load(self.file(part), mmap_mode="r", allow_pickle=False)
        return self._open[part]

    def _is_whole(self, part: int) -> bool:
        last = min((part + 1) * PART_ROWS, self.data.rows) * self.data.samples.group
        tokens = self.data.samples.tokens_before(last) - self._begins(part)
        try:
            found = np.load(self.file(part), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return False
        return found.shape == (tokens,) and found.dtype == np.float32


# ── one pass ─────────────────────────────────────────────────────────────────────────────────────


def stored(run: Run, role: Role, views: Sequence[Asked] = ()) -> Stored:
    """Files that hold all there is to ask, made where they are not there yet. Collective.

    Told to stop, it leaves: the run then ends before its next step and finds the parts that are done.
    """
    step = _step(run, role)
    weights = told("R016", "cannot tell the reference's weights", lambda: weights_key(run, role, step))
    files: dict[str, LogProbs] = {}
    for data in (run.data, run.validation, *views):
        if data is None or data.samples.hash in files:
            continue
        key = hashlib.sha256(json.dumps([weights, data.samples.hash]).encode()).hexdigest()[:16]
        files[data.samples.hash] = LogProbs(run.place.stage / NAME / key, data)
    lost = told("R020", "cannot read the reference's files", lambda: [f.lost() for f in files.values()])
    if any(lost):
        own = Frozen(run.model) if _keeps_its_own(run, role) else None
        take_weights(run.model, role, run.place, say=run.say, alive=run.alive)
        for each, parts in zip(files.values(), lost, strict=True):
            fill(run, each, parts)
        if own is not None:
            own.restore()
    return Stored(files)


def fill(run: Run, files: LogProbs, parts: Sequence[int]) -> None:
    """Compute these parts and write them, one after another, until told to stop."""
    group = files.data.samples.group
    table = dataclasses.replace(run.table(), micro_batch=run.role.micro_batch * group)
    for count, part in enumerate(parts):
        if run.is_told_to_stop():
            return
        samples = files.samples(part)
        share = deal(samples, table)
        own = by_sample(run.model.forward(share.microbatches), share)
        found = gathered(own, run.model.parallel.groups.dp)
        told(
            "R020",
            f"cannot write the reference's `{files.file(part)}`",
            lambda part=part, numbers=[found[s.id] for s in samples]: files.write(part, numbers),
        )
        run.alive()
        run.say(f"reference: part {count + 1} of {len(parts)}, {len(samples)} texts")


def _step(run: Run, role: Role) -> Path | None:
    """The folder of the step that the role's weights are, where they are a checkpoint's. Collective."""
    if role.model.weights.kind in ("random", "hf"):
        return None
    folder, step, _ = step_of(role.model.weights, run.place)
    return folder / name_of(step)


def weights_key(run: Run, role: Role, step: Path | None = None) -> dict[str, Any]:
    """What tells one set of weights from another: where they are from, and what lies there."""
    weights = role.model.weights
    found: dict[str, Any] = {
        "weights": dataclasses.asdict(weights),
        "shape": dataclasses.asdict(role.model.shape),
        "precision": role.precision,
    }
    if weights.kind == "random":
        return found | {"seed": run.plan.seed}
    return found | {"holds": _contents(weights) if step is None else _held(step)}


def _contents(weights: Weights) -> list[Any]:
    """Names and sizes of the files of a folder that is here."""
    folder = local_path(weights.path)
    files = sorted(folder.glob("*.safetensors")) if folder is not None else []
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _held(step: Path) -> list[Any]:
    """A step's name, and the checksum of what lists its files with theirs."""
    return [step.name, hashlib.sha256((step / manifest.NAME).read_bytes()).hexdigest()]
