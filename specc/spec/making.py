"""What algorithms have in common that make rows instead of training a model.

Rows that a stage makes are one JSON object per line; `data` of another stage takes them by `from: STAGE`.
A generated row is {input, output, finish, sample, source}: the prompt, the response, `stop` or `length` for
how it ended, which sample of its prompt it is, and the row that asked. `score` adds `reward`, and
`attributes` for a head of several numbers. The samples of a prompt follow one another, prompts in the order
of the data.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from specc.spec.data import Asked, Rows
from specc.spec.model import Model
from specc.spec.parallel import Parallel
from specc.spec.planning import Planning
from specc.spec.section import Many, Section, maths, placement
from specc.spec.units import Environment, Time, conflict


def _as_list(given: Any) -> Any:
    """One entry may stand without the brackets."""
    return [given] if isinstance(given, str | dict) else given


class Weighted(Asked):
    """Prompts to be answered, as a part of several; text alone is their path."""

    weight: float | None = maths(None, gt=0, le=10**6)
    """Share among all prompts, relative to the other weights: sources alternate by their shares, one that
    runs out begins again, and there are as many prompts as in all of them. Where none has a weight, they
    follow one another."""


AnyPrompts = Annotated[
    Many[Weighted], BeforeValidator(_as_list, json_schema_input_type=Weighted | tuple[Weighted, ...])
]
"""One data set of prompts, or a list of them."""


def agreeing_weights(sources: tuple[Any, ...], key: str) -> None:
    """Raise where some of several sources have a weight and others none."""
    said = [source.weight is not None for source in sources]
    if any(said) and not all(said):
        where = f"{key}[{said.index(False)}]"
        raise conflict(
            "some of the sources have a `weight` and this one has none",
            where,
            "give every source one, or none",
        )


class Slice(Section):
    """A stretch of the prompts, after they were blended."""

    size: int = maths(ge=1, le=10**9)
    """Prompts of a slice."""

    index: int = maths(0, ge=0, le=10**9)
    """Which slice, from 0; the last one may be shorter, and behind it there is none."""


class AskedData(Section):
    """Prompts of a stage that generates."""

    prompts: AnyPrompts = maths(min_length=1)
    """Prompts to answer: a data set, or a list of several, each with a `weight` if you like."""

    slice: Slice | None = maths(None)
    """Answer only these of the prompts; left out, all."""

    @model_validator(mode="after")
    def _weights_agree(self) -> AskedData:
        agreeing_weights(self.prompts, "prompts")
        return self


class RowsData(Section):
    """Rows of a stage that makes rows of rows."""

    rows: Rows = maths()
    """Rows to read: `from: STAGE`, or a path."""


class MakingSpec(Section):
    """A stage that makes rows."""

    time: Time | None = placement(None)
    """Time limit of one job, such as 4h; at the limit it saves and continues. Left out, the profile's."""

    env: Environment = placement({})
    """Environment variables of the job; they win over the cluster profile's."""


class ClerkSpec(MakingSpec):
    """A stage that makes rows of rows in one plain process: it has no model and takes no GPU."""

    data: RowsData = maths()
    """Rows to read."""


class AskingSpec(MakingSpec):
    """A stage that asks one model, which never learns."""

    model: Model = maths()
    """Model to ask."""

    nodes: int | None = placement(None, ge=1, le=10**5)
    """Machines; left out, the fewest that the model fits on."""

    gpus: int | None = placement(None, ge=1, le=10**4)
    """GPUs of each machine (processes, on a CPU); left out, all that the cluster profile says."""

    parallel: Parallel = placement(Parallel())
    """Layout of the GPUs; left out, the fastest that fits."""

    plan: Planning = placement(Planning())
    """Which number of nodes to choose where it is left out."""

    precision: Literal["bf16", "fp32"] = maths("bf16")
    """Number format of weights and activations."""
