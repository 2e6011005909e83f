"""The engine's weights as a folder that transformers opens.

Every parameter is put together from its tensor-parallel pieces on one rank of its pipeline stage (an
expert's on one of its expert-parallel rank), which writes it at once into a file of its own, so no
process ever holds more than one whole tensor besides its share of the model. Rank 0 adds the index,
config and tokenizer. All of it happens in a folder beside the target that takes the target's name at
the very end; the folder is on a file system that all ranks see.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
from torch import Tensor

from runtime import chat, tokenizer
from runtime.agreement import rank, together, told
from runtime.hf.config import config_of, generation_config_of, head_config_of
from runtime.hf.table import HEAD, Layout, head_outputs, within
from runtime.parallel import Parallel
from runtime.problem import Problem
from runtime.shards import Shard, shards
from specc.plan import Role

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_IN_FILE = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_LONG = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

FILE_BYTES = 5 * 10**9
"""A file grows to about this size, as on the Hugging Face hub."""

_FAILED = "the model cannot be exported"


@dataclass(frozen=True)
class Held:
    """A parameter of which this rank has the piece to export, and the tensors it becomes."""

    shard: Shard
    parameter: Tensor
    group: Any  # ranks that hold the other pieces; its first one writes
    sizes: dict[str, tuple[int, ...]]  # of the Hugging Face tensors, in the entry's order

    @property
    def is_written_here(self) -> bool:
        return self.group.rank() == 0

    @property
    def numel(self) -> int:
        return sum(torch.Size(size).numel() for size in self.sizes.values())


def write(
    model: Any, role: Role, folder: Path, parallel: Parallel, dtype: str, alive: Callable[[], object]
) -> None:
    """Write `model` (an engine, or its chunks) to `folder`; all ranks call it. R037 when it cannot be done.

    The vocabulary's padding and a tied output layer are left out. `dtype` is bfloat16, float16 or
    float32. An older export in the same place goes away when the new one is complete.
    """
    dtype = _LONG.get(dtype, dtype)
    if dtype not in DTYPES:
        raise Problem("R037", f"a model cannot be exported as `{dtype}`; use {', '.join(DTYPES)}")
    layout = Layout(role.model.shape, head_outputs(role.model))
    scratch = folder.with_name(f".{folder.name}.partial")
    told("R037", _FAILED, lambda: _fresh(scratch))
    held = list(_held(getattr(model, "chunks", model), layout, parallel))
    files = _Files(scratch, [one for one in held if one.is_written_here], dtype)
    for one in held:
        whole = _whole(one, DTYPES[dtype])
        if whole is not None:
            files.add(one, _split(whole, one, layout))
        alive()
    written = together("R037", _FAILED, files.finish)
    told(
        "R037",
        _FAILED,
        lambda: _complete(scratch, folder, role, dtype, [f for some in written for f in some]),
    )


def _fresh(scratch: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)


def _held(chunks: Sequence[Any], layout: Layout, parallel: Parallel) -> Iterator[Held]:
    """In the model's order, which is the same on all ranks that share a parameter."""
    groups = parallel.groups
    for chunk in chunks:
        for shard, parameter in shards(chunk):
            expert = ".local_experts." in shard.name
            replica = groups.expt_dp.rank() if expert else parallel.dp_rank + parallel.cp_rank
            if replica or (layout.shape.tied and shard.name == HEAD and not layout.outputs):
                continue
            names, entry = layout.tensors_of(shard.name)
            sizes = {name: layout.size(entry, which) for which, name in enumerate(names)}
            yield Held(shard, parameter.detach(), groups.expt_tp if expert else groups.tp, sizes)


def _whole(one: Held, dtype: torch.dtype) -> Tensor | None:
    """The parameter from the pieces of its group, on the CPU; None on the ranks that only send theirs."""
    piece = one.parameter.to(dtype)
    if one.shard.dim is None:
        return piece.cpu() if one.is_written_here else None
    pieces = [torch.empty_like(piece) for _ in range(one.shard.pieces)] if one.is_written_here else None
    dist.gather(piece.contiguous(), pieces, group=one.group, group_dst=0)
    return None if pieces is None else one.shard.join([other.cpu() for other in pieces])


def _split(whole: Tensor, one: Held, layout: Layout) -> Iterator[Tensor]:
    """The Hugging Face tensors in a whole parameter; rows past the vocabulary belong to none."""
    _, entry = layout.tensors_of(one.shard.name)
    parts: list[list[Tensor]] = [[] for _ in entry.hf]
    at = 0
    for which, start, stop in within(layout.segments(entry), 0, whole.shape[0]):
        parts[which].append(whole[at : at + stop - start])
        at += stop - start
    for rows in parts:
        yield rows[0] if len(rows) == 1 else torch.cat(rows)


# --- files -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """One finished file of one rank, under the name it has until all are counted."""

    name: str
    tensors: tuple[str, ...]
    bytes: int


class _Files:
    """safetensors files written front to back: the sizes are known, so the header can come first.

    A disk that fails is kept in mind and raised by `finish`, so that this rank goes on taking part in
    the gathers that others wait for.
    """

    def __init__(self, folder: Path, held: Sequence[Held], dtype: str) -> None:
        self._folder, self._dtype = folder, dtype
        self._planned = _in_files(held, DTYPES[dtype].itemsize)
        self._done: list[Written] = []
        self._open: BinaryIO | None = None
        self._left = 0  # parameters still to come in the open file
        self._failure: OSError | None = None

    def add(self, one: Held, tensors: Iterator[Tensor]) -> None:
        """Append the tensors of the next parameter."""
        if self._failure is not None:
            return
        try:
            if self._open is None:
                self._begin()
            assert self._open is not None
            for tensor in tensors:
                self._open.write(tensor.contiguous().view(torch.uint8).numpy().data)
            self._left -= 1
            if not self._left:
                self._end()
        except OSError as error:
            self._failure = error
            with contextlib.suppress(OSError):
                if self._open is not None:
                    self._open.close()

    def finish(self) -> list[Written]:
        """What was written; raises what went wrong meanwhile."""
        if self._failure is not None:
            raise self._failure
        return self._done

    def _begin(self) -> None:
        held = self._planned[len(self._done)]
        self._left = len(held)
        sizes = {name: size for one in held for name, size in one.sizes.items()}
        name = f"part-{rank():05d}-{len(self._done):05d}"
        head = _header(sizes, _IN_FILE[self._dtype], DTYPES[self._dtype].itemsize)
        self._open = (self._folder / name).open("wb")
        self._open.write(head)
        numel = sum(one.numel for one in held)
        self._done.append(Written(name, tuple(sizes), numel * DTYPES[self._dtype].itemsize))

    def _end(self) -> None:
        assert self._open is not None
        self._open.flush()
        os.fsync(self._open.fileno())
        self._open.close()
        self._open = None


def _in_files(held: Sequence[Held], itemsize: int) -> list[list[Held]]:
    """The parameters in files of about FILE_BYTES, in order; none is left empty."""
    files: list[list[Held]] = []
    size = 0
    for one in held:
        if not files or size + one.numel * itemsize > FILE_BYTES:
            files.append([])
            size = 0
        files[-1].append(one)
        size += one.numel * itemsize
    return files


def _header(sizes: Mapping[str, tuple[int, ...]], dtype: str, itemsize: int) -> bytes:
    """The beginning of a safetensors file: the header's length, then where each tensor lies."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, size in sizes.items():
        end = at + torch.Size(size).numel() * itemsize
        entries[name] = {"dtype": dtype, "shape": list(size), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _complete(scratch: Path, folder: Path, role: Role, dtype: str, written: Sequence[Written]) -> None:
    """Final names, index, config and tokenizer; then the folder takes its place."""
    where: dict[str, str] = {}
    for number, file in enumerate(written, 1):
        name = (
            "model.safetensors"
            if len(written) == 1
            else f"model-{number:05d}-of-{len(written):05d}.safetensors"
        )
        (scratch / file.name).rename(scratch / name)
        where |= dict.fromkeys(file.tensors, name)
    if missing := dict(Layout(role.model.shape, head_outputs(role.model)).tensors()).keys() - where.keys():
        raise Problem("R037", f"{len(missing)} tensors were written by no rank, `{min(missing)}` for one")
    if len(written) > 1:
        index = {
            "metadata": {"total_size": sum(f.bytes for f in written)},
            "weight_map": dict(sorted(where.items())),
        }
        _write_json(scratch / "model.safetensors.index.json", index)
    _write_companions(scratch, role, dtype)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write_companions(scratch: Path, role: Role, dtype: str) -> None:
    words = tokenizer.load(role.model.tokenizer)
    words.save(scratch)
    _write_json(
        scratch / "config.json", config_of(role.model.shape, dtype, words) | head_config_of(role.model)
    )
    if template := chat.jinja_of(role.model.chat_template):
        (scratch / "chat_template.jinja").write_text(template, encoding="utf-8")
    if role.model.head != "language":  # it does not generate
        return
    given = words.files[0].parent / "generation_config.json" if words.files else None
    if given is not None and given.is_file():
        shutil.copyfile(given, scratch / given.name)
    else:
        _write_json(scratch / "generation_config.json", generation_config_of(words, role.model.shape.vocab))


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
