"""Responses of a model to prompts: one row for each sample of each prompt.

What goes out is one stage of one role that is asked and never learns. Settings of the job:
    generate   the sampling, as for every program that generates (`max_prompt_tokens` is said), and
               samples    responses to each prompt
               batch      prompts of one step, after which their rows are on the disk
               slice      {size, index} or null: prompts [index * size, (index + 1) * size) after blending
Data: `prompts`, a list of data sets of prompts with `weight` (a number, or null for all of them).
Rows: {input, output, finish, sample, source}, the samples of a prompt one after the other, prompts in order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from specc.graph import Stage
from specc.makers import asked_role, rows_stage
from specc.spec import generation
from specc.spec.making import AskedData, AskingSpec
from specc.spec.section import maths
from specc.spec.units import conflict


class Generate(generation.Generate):
    """How responses are sampled, and how many."""

    max_prompt_tokens: int | None = maths(2048, ge=1, le=10**7)
    """Tokens of a prompt at most; longer ones are left out and counted."""

    samples: int = maths(1, ge=1, le=10**5)
    """Responses to each prompt."""

    batch: int = maths(64, ge=1, le=10**6)
    """Prompts whose responses are made and written together; an interrupted run begins again behind the last
    that are on the disk."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Generate:
        if self.samples > 1 and (self.temperature == 0 or self.top_k == 1):
            key = "temperature" if self.temperature == 0 else "top_k"
            message = f"{key} {getattr(self, key):g} gives the same response {self.samples} times"
            raise conflict(message, "samples", f"use samples: 1, or a larger {key}")
        return self


class Spec(AskingSpec):
    """Responses of a model to prompts."""

    algorithm: Literal["generate"] = maths()
    """`generate`."""

    data: AskedData = maths()
    """Prompts to answer."""

    generate: Generate = maths(Generate())
    """How responses are sampled, and how many."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage, one role."""
    said = spec.generate
    prompt = said.max_prompt_tokens or 2048
    role = asked_role(spec, program="generate")
    pinned = spec.parallel.vp is not None
    role = dataclasses.replace(
        role,
        micro_batch=said.rows,
        global_batch=said.batch * said.samples,
        seq_length=prompt + said.max_tokens,
        prompt_tokens=prompt,
        response_tokens=said.max_tokens,
        parallel={"vp": 1, **role.parallel, "cp": 1},  # one token at a time: there is no row to cut
        paths={
            **{key: path for key, path in role.paths.items() if key != "cp" and (key != "vp" or pinned)},
            "micro_batch": "generate.rows",
            "global_batch": "generate.batch",
            "seq_length": "generate.max_tokens",
        },
    )
    return [rows_stage(spec, name, role, settings(spec), {"prompts": spec.data.prompts})]


def settings(spec: Spec) -> dict[str, Any]:
    """The section as the runtime reads it."""
    slice = spec.data.slice
    said = spec.generate.model_dump(mode="json")
    return said | {
        "max_prompt_tokens": spec.generate.max_prompt_tokens or 2048,
        "slice": slice.model_dump(mode="json") if slice else None,
    }


def smaller(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What a tiny twin has instead: a handful of prompts at a time, and one step or two."""
    said = stage["generate"]
    found: dict[str, Any] = {
        "generate.samples": min(said["samples"], 2),
        "generate.batch": min(said["batch"], 4),
        "generate.max_prompt_tokens": min(said.get("max_prompt_tokens") or 2048, 256),
    }
    size = ((stage.get("data") or {}).get("slice") or {}).get("size")
    return found | ({"data.slice.size": min(size, 4)} if size else {})
