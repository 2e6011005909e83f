"""A step's rows as tensors: samples, bins, microbatches and how they are dealt to the ranks.

A *sample* is one tokenised row. A *bin* is one line of a batch: one sample, or several when packed.
Bins are fixed for the whole global batch before they are dealt out, so the gradient of a step does
not depend on the layout or on the size of a microbatch.

Shape suffixes: `_B` lines of a microbatch, `_T` columns, `_N` samples. Column t holds the input token t
and the label t + 1, so a sample of n tokens takes n - 1 columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One tokenised text: `tokens`, and `mask` with 1 for each token that is to be learnt."""

    id: int  # its index in the data set
    tokens: Sequence[int]
    mask: Sequence[int]
    labels: Sequence[float] = ()  # what somebody said of it
    extra: Mapping[str, Sequence[float]] = field(default_factory=dict)  # a number for each column, by name

    @property
    def columns(self) -> int:
        """Columns it takes in a batch: the last token is a label only."""
        return max(len(self.tokens) - 1, 0)

    @property
    def trained_tokens(self) -> int:
        """Labels that count in the loss: the first token is nobody's label."""
        return sum(self.mask[1:])


Bin = Sequence[Sample]
"""Samples that share one line of a batch; an empty one only fills up."""


@dataclass
class Batch:
    """One microbatch on one rank."""

    tokens_BT: Tensor  # int64
    labels_BT: Tensor  # int64, already shifted: label t is token t + 1
    mask_BT: Tensor  # fp32, 1 where the label is trained
    positions_BT: Tensor  # int64, from 0 in every sample
    segments: Tensor | None  # int32 cu_seqlens of a packed line (B is 1 then), from 0 to T
    rows: list[int]  # ids of the samples in it, from the first line's left to the last line's right
    labels_NL: Tensor | None = None  # fp32, what somebody said of each of these samples
    extra: dict[str, Tensor] = field(default_factory=dict)  # [B, T] fp32 by name, 0 where nothing was given

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v.to(device) for k, v in tensors.items() if isinstance(v, Tensor)}
        return replace(self, **moved, extra={k: v.to(device) for k, v in self.extra.items()})


def trained_tokens(bins: Iterable[Bin]) -> int:
    """Trained labels of all bins: the denominator of a step's loss."""
    return sum(sample.trained_tokens for line in bins for sample in line)


def token_count(bins: Iterable[Bin]) -> int:
    """All tokens of the samples, without padding."""
    return sum(len(sample.tokens) for line in bins for sample in line)


def data_hash(bins: Iterable[Bin]) -> str:
    """16 hex digits of the token ids and masks of a step; how the rows are binned does not count."""
    digest = hashlib.sha256()
    for sample in sorted((s for line in bins for s in line), key=lambda s: s.id):
        digest.update(np.asarray([sample.id, len(sample.tokens)], "<i8").tobytes())
        digest.update(np.asarray(sample.tokens, "<i8").tobytes())
        digest.update(np.asarray(sample.mask, "<i8").tobytes())
        digest.update(np.asarray(sample.labels, "<f8").tobytes())
    return digest.hexdigest()[:16]


def dealt(
    bins: Sequence[Bin],
    dp_rank: int,
    dp: int,
    micro_batch: int,
    *,
    multiple: int = 1,
    rounds_multiple: int = 1,
    pad_id: int = 0,
    packed: bool = False,
) -> list[Batch]:
    """The microbatches of one data-parallel rank, from the bins of the whole global batch.

    Every microbatch of the step, on every rank, has the same shape: as many columns as the longest
    bin of the global batch, rounded up to `multiple` (2 * cp * tp). Where the bins do not fill the
    last round of microbatches, empty ones with mask 0 do; an interleaved pipeline wants the number of
    rounds to be a multiple of its stages (`rounds_multiple`). A packed microbatch is one line: its bins
    one after another, with `segments` that separate the samples and the padding.
    """
    columns = _rounded_up(max((_columns(line) for line in bins), default=0), multiple)
    per_round = dp * micro_batch
    rounds = _rounded_up(-(-len(bins) // per_round), rounds_multiple)
    filled = [*bins, *([()] * (rounds * per_round - len(bins)))]
    form = _packed if packed else _padded
    batches = []
    for turn in range(rounds):
        start = turn * per_round + dp_rank * micro_batch
        batches.append(form(filled[start : start + micro_batch], columns, pad_id))
    return batches


def _columns(line: Bin) -> int:
    return sum(sample.columns for sample in line)


def _rounded_up(value: int, multiple: int) -> int:
    return max(-(-value // multiple), 1) * multiple


def _padded(bins: Sequence[Bin], columns: int, pad_id: int) -> Batch:
    batch = _blank(bins, len(bins), columns, pad_id)
    for b, line in enumerate(bins):
        _write(batch, b, line, 0)
    batch.positions_BT[:] = torch.arange(columns)
    return batch


def _packed(bins: Sequence[Bin], columns: int, pad_id: int) -> Batch:
    batch = _blank(bins, 1, columns * len(bins), pad_id)
    ends = [0]
    for b, line in enumerate(bins):
        ends += _write(batch, 0, line, b * columns)
        bin_end = (b + 1) * columns
        if ends[-1] < bin_end:
            batch.positions_BT[0, ends[-1] : bin_end] = torch.arange(bin_end - ends[-1])
            ends.append(bin_end)
    batch.segments = torch.tensor(ends, dtype=torch.int32)
    return batch


def _blank(bins: Sequence[Bin], lines: int, columns: int, pad_id: int) -> Batch:
    labels = [list(sample.labels) for line in bins for sample in line]
    names = sorted({name for line in bins for sample in line for name in sample.extra})
    tokens_BT = torch.full((lines, columns), pad_id, dtype=torch.int64)
    return Batch(
        tokens_BT=tokens_BT,
        labels_BT=tokens_BT.clone(),
        mask_BT=torch.zeros(lines, columns, dtype=torch.float32),
        positions_BT=torch.zeros(lines, columns, dtype=torch.int64),
        segments=None,
        rows=[],
        labels_NL=torch.tensor(labels, dtype=torch.float32) if labels and labels[0] else None,
        extra={name: torch.zeros(lines, columns) for name in names},
    )


def _write(batch: Batch, b: int, line: Bin, start: int) -> list[int]:
    """Put the samples of a bin into line b from column `start`; the columns where each ends."""
    ends = []
    for sample in line:
        end = start + sample.columns
        batch.rows.append(sample.id)
        if end == start:
            continue
        tokens_T = torch.as_tensor(np.asarray(sample.tokens, np.int64))
        batch.tokens_BT[b, start:end] = tokens_T[:-1]
        batch.labels_BT[b, start:end] = tokens_T[1:]
        batch.mask_BT[b, start:end] = torch.as_tensor(np.asarray(sample.mask[1:], np.float32))
        batch.positions_BT[b, start:end] = torch.arange(end - start)
        for name, numbers in sample.extra.items():
            batch.extra[name][b, start:end] = torch.as_tensor(np.asarray(numbers, np.float32))
        ends.append(end)
        start = end
    return ends
