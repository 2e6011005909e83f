"""A model that answers people over HTTP as a stage: what `specc serve` does, planned for a cluster.

    served:
      algorithm: serve
      model: {from: sft}
      serve: {port: 1427, idle: 30m}

What goes out is one stage of one role that is asked and never learns, as `generate` has it: the planner lays
it out for generating `rows` answers at once on as few nodes as it fits on. It is an end: no other stage can
take anything from it, and as stages of one machine run one after the other, it comes last, wherever the spec
has it. Settings of the job, which are those of `specc serve`:
    answer     host, port (0: any free one), name, key_file, length, most, rows
               idle       seconds without a request after which the stage has finished; 0 for never
               rehearsal  requests that the server puts to itself when it is ready

How it ends. Told to stop (the file `stop` in its folder, SIGTERM, Ctrl-C) it finishes the answers that have
begun and leaves; the stage has not finished, and the same command serves again. Near a job's time limit it
does the same and is queued again, so that it serves until somebody stops it: stopped by the file, the job
ends well. With `idle` it finishes by itself, and `output.json` says how much it answered; like any finished
stage it then runs again in that folder only when it is begun anew (`--fresh`). Where it listens stands in its
log and in `attempts/K/address.json`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from specc.graph import Stage, model_source
from specc.makers import asked_role, rows_stage
from specc.plan import ANSWER
from specc.spec.making import AskingSpec
from specc.spec.section import Section, cosmetic, maths, placement
from specc.spec.units import Given, Time, conflict

KEY = "SPECC_API_KEY"
"""Environment variable with the key that clients have to know."""


class Serve(Section):
    """Where a model answers, and for how long."""

    host: Given = placement("127.0.0.1")
    """Address to listen at. The default lets in programs of the first node only, such as the end of an SSH
    tunnel; 0.0.0.0 lets in other machines, which then need the key in `key_file`."""

    port: int = placement(1427, ge=0, le=65535)
    """Port to listen at; 0 for any that is free."""

    key_file: Given | None = placement(None)
    """File on the first node with the key that clients have to know; left out, the variable SPECC_API_KEY,
    which a job of a cluster has where the profile's `secrets` name it, and without it everybody who reaches
    the server may ask."""

    name: Given | None = cosmetic(None)
    """What clients call the model; left out, the stage or the model that it is."""

    max_length: int = placement(4096, ge=2, le=10**8)
    """Tokens of a prompt and its answer at most; no more than the model has positions."""

    rows: int | None = placement(None, ge=1, le=10**6)
    """Answers that a replica makes at once; left out, the planner takes what fits."""

    max_requests: int = placement(512, ge=1, le=1 << 24)
    """Answers that wait or are made; above it clients are told to come again."""

    idle: Time | None = placement(None)
    """Time without a request, such as 30m, after which the stage has finished and its GPUs are free; left
    out, it serves until it is told to stop."""

    rehearsal: int = placement(0, ge=0, le=1000)
    """Requests that the server puts to itself, over HTTP, when it is ready; its log says how they went."""

    @model_validator(mode="after")
    def _lets_in_only_who_may(self) -> Serve:
        if self.key_file or _is_local(self.host):
            return self
        message = f"at {self.host} other machines reach this server, and everybody may ask"
        raise conflict(message, "host", "name a key_file that clients have to know, or use host: 127.0.0.1")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Spec(AskingSpec):
    """A model that answers people over HTTP, until it is told to stop."""

    algorithm: Literal["serve"] = maths()
    """`serve`."""

    serve: Serve = placement(Serve())
    """Where it answers, and for how long."""

    @model_validator(mode="after")
    def _key_is_not_written_down(self) -> Spec:
        if KEY not in self.env:
            return self
        message = f"`env` writes {KEY} into the plan, where others may read it"
        raise conflict(message, "env", "name a file in serve.key_file, or list it in the profile's secrets")


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage, one role."""
    said = spec.serve
    role = asked_role(spec, program=ANSWER)
    pinned = spec.parallel.vp is not None
    half = max(said.max_length // 2, 1)
    role = dataclasses.replace(
        role,
        micro_batch=said.rows,
        global_batch=said.max_requests,  # the layout is the one that has answered all of them first
        seq_length=said.max_length,
        prompt_tokens=said.max_length - half,
        response_tokens=half,
        parallel={"vp": 1, **role.parallel, "cp": 1},  # one token at a time: there is no row to cut
        paths={
            **{key: path for key, path in role.paths.items() if key != "cp" and (key != "vp" or pinned)},
            "micro_batch": "serve.rows",
            "global_batch": "serve.max_requests",
            "seq_length": "serve.max_length",
        },
    )
    stage = rows_stage(spec, name, role, settings(spec), {})
    return [dataclasses.replace(stage, algorithm=spec.algorithm, makes="answers")]


def settings(spec: Spec) -> dict[str, Any]:
    """The section as `specc serve` says it to the runtime."""
    said = spec.serve
    model = spec.model.model_dump(mode="json", exclude_none=True)
    model = {"name": model} if isinstance(model, str) else model
    source = model_source(model)
    named = source[0] if source else model.get("name") or model.get("path") or "model"
    return {
        "host": said.host,
        "port": said.port,
        "name": said.name or named,
        "key_file": said.key_file or "",
        "length": said.max_length,
        "most": said.max_requests,
        "idle": said.idle or 0,
        "rehearsal": said.rehearsal,
    }


def smaller(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What a tiny twin has instead: it answers a few questions of its own and ends by itself."""
    said = stage["serve"]
    return {
        "serve.host": "127.0.0.1",
        "serve.port": 0,
        "serve.key_file": None,
        "serve.max_length": min(said["max_length"], 256),
        "serve.rows": 4,
        "serve.idle": "2s",
        "serve.rehearsal": 3,
    }
