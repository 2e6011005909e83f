"""Weights from a Hugging Face folder into the engine, each rank its own slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from runtime.agreement import together
from runtime.hf import fetch, source
from runtime.hf.config import differences, other_attributes
from runtime.hf.source import Source
from runtime.hf.table import HEAD, SCORE, Layout, head_outputs, within
from runtime.parallel import Parallel
from runtime.problem import Problem
from runtime.shards import Shard, shards
from specc.plan import Role


def fill(
    model: Any,
    role: Role,
    folder: str,
    parallel: Parallel,
    alive: Callable[[], object],
    with_head: bool = True,
) -> None:
    """Read the weights at `folder` (folder, URL or id) into `model` (an engine, or its chunks).

    Under any layout: a rank reads only the rows and columns that it holds, one parameter at a time.
    All ranks raise the same Problem when anything is wrong. `alive` is called after each tensor.

    A head of numbers is read where the folder has one (`score.weight`) and it is asked for
    (`with_head`); else it keeps its first values.
    """
    agreed(lambda: _fill(model, role, folder, alive, with_head))


def _fill(model: Any, role: Role, folder: str, alive: Callable[[], object], with_head: bool) -> None:
    layout = Layout(role.model.shape, head_outputs(role.model))
    weights = role.model.weights
    revision = weights.revision if weights.path == folder else ""
    if folder.endswith(".nemo"):
        raise Problem("R031", f"`{folder}` is a .nemo archive, which is not read; {source.FOREIGN[0][2]}")
    here = source.opened(fetch.fetch(folder, revision, fetch.WEIGHTS), folder)
    has_head = layout.outputs == 0 or (with_head and SCORE in set(here.names))
    _check(here, layout, has_head)
    if layout.outputs and has_head and (other := other_attributes(role.model, here.config)):
        advice = "name those, or set `reward.load_head: false`"
        raise Problem("R032", f"`{here.folder}` is not the planned model: {other}; {advice}")
    with torch.no_grad():
        for chunk in getattr(model, "chunks", model):
            for shard, parameter in shards(chunk):
                if shard.name == HEAD and not has_head:
                    continue
                parameter.copy_(piece(here, layout, shard, parameter.shape))
                alive()
    if hasattr(model, "weights_changed"):
        model.weights_changed()


def _check(here: Source, layout: Layout, has_head: bool) -> None:
    if "quantization_config" in here.config:
        raise Problem("R031", f"`{here.folder}` is a quantised model; take its bf16 form")
    said = here.config.get("model_type")
    wanted = layout.family.architecture(layout.shape)[1]
    if said not in (None, wanted):
        raise Problem(
            "R031", f"`{here.folder}` is a `{said}` model, but the plan is for `{wanted}`; compile again"
        )
    expected = dict(layout.tensors())
    unread = {"lm_head.weight"} if layout.outputs or layout.shape.tied else set()
    if not has_head:
        expected.pop(SCORE)
        unread.add(SCORE)
    source.check(here, expected, unread)
    if wrong := differences(layout.shape, here.config) if here.config else []:
        raise Problem("R032", f"`{here.folder}/config.json` is not the planned model: {'; '.join(wrong)}")


def piece(here: Source, layout: Layout, shard: Shard, size: torch.Size) -> Tensor:
    """This rank's piece of a parameter, read from the file; rows past the vocabulary are zero."""
    names, entry = layout.tensors_of(shard.name)
    segments = layout.segments(entry)
    columns = None
    if shard.dim == 1:
        columns = (shard.rank * size[1], (shard.rank + 1) * size[1])
    parts = [
        here.rows(names[which], start, stop, columns)
        for first, last in _row_ranges(shard, size[0])
        for which, start, stop in within(segments, first, last)
    ]
    found = sum(part.shape[0] for part in parts)
    rows = size[0]
    if found < rows:
        assert shard.vocabulary, f"{shard.name} has {found} of {rows} rows"
        dtype = parts[0].dtype if parts else torch.float32
        parts.append(torch.zeros((rows - found, *size[1:]), dtype=dtype))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _row_ranges(shard: Shard, rows: int) -> Iterator[tuple[int, int]]:
    """Which rows of the whole parameter this rank holds; stacked parts are cut each by itself."""
    if shard.dim != 0:
        yield 0, rows
        return
    each = rows // shard.stacked
    for part in range(shard.stacked):
        start = part * each * shard.pieces + shard.rank * each
        yield start, start + each


def agreed(action: Callable[[], None]) -> None:
    """Run `action` on every rank; when it fails on one, every rank raises that one's Problem."""

    def attempt() -> tuple[str, str, bool] | None:
        try:
            action()
        except Problem as problem:
            return problem.code, problem.message, problem.outside
        return None

    for said in together("R016", "initial weights cannot be read", attempt):
        if said is not None:
            raise Problem(said[0], said[1], outside=said[2])
