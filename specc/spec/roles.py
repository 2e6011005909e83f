"""The models of an algorithm with several: what each is, where it is put, and how it learns.

actor      learns to answer           critic     learns what a text so far is worth
reference  the actor's first weights  reward     scores whole answers; may be a function instead
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, model_validator
from pydantic_core import PydanticCustomError

from specc.spec.model import Model
from specc.spec.parallel import Parallel
from specc.spec.section import Many, Section, maths, placement
from specc.spec.train import Train
from specc.spec.units import Given, conflict

FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*|builtin:[a-z][a-z0-9_]*")
BUILTIN_REWARDS = ("gsm8k",)
"""Rewards that ship with the runtime: the last number of an answer against the row's."""


def check_function(function: str) -> None:
    """Raise where this cannot be a reward: neither `module:name` nor one that ships."""
    if not FUNCTION.fullmatch(function):
        message = f"`{function}` does not name a function"
        raise conflict(message, "function", "write module:name, or builtin:gsm8k")
    if function.startswith("builtin:") and function.removeprefix("builtin:") not in BUILTIN_REWARDS:
        known = " or ".join(f"builtin:{name}" for name in BUILTIN_REWARDS)
        raise conflict(f"there is no reward `{function}`", "function", f"use {known}, or module:name")


class Rates(Section):
    """What a role does otherwise than `train` says."""

    lr: float | None = maths(None, ge=0, le=10)
    """Highest learning rate; left out, that of `train`."""

    min_lr: float | None = maths(None, ge=0, le=10)
    """Learning rate at the end of the schedule; left out, that of `train`."""

    schedule: Literal["cosine", "linear", "constant"] | None = maths(None)
    """Way from `lr` down to `min_lr`; left out, that of `train`."""

    warmup_steps: int | None = maths(None, ge=0, le=10**9)
    """Steps over which the learning rate rises; left out, those of `train`."""

    constant_steps: int | None = maths(None, ge=0, le=10**9)
    """Steps at `min_lr` at the end; left out, those of `train`."""

    weight_decay: float | None = maths(None, ge=0, le=10)
    """Decoupled weight decay; left out, that of `train`."""

    betas: Many[float] | None = maths(None, min_length=2, max_length=2)
    """Adam's two decay rates; left out, those of `train`."""

    epsilon: float | None = maths(None, gt=0, le=1)
    """Adam's term in the denominator; left out, that of `train`."""

    clip: float | None = maths(None, ge=0, le=10**6)
    """Largest norm of the gradient; left out, that of `train`."""

    global_batch: int | None = maths(None, ge=1, le=10**7)
    """Rows per optimizer step; left out, those of `train`."""

    def over(self, train: Train, path: str) -> Train:
        """`train` with what is said here in its place. A conflict is said at `path`, or of `train`."""
        said = {key: value for key in type(self).model_fields if (value := getattr(self, key)) is not None}
        merged = train.model_copy(update=said)
        try:
            merged.agreed()
        except PydanticCustomError as error:
            context = dict(error.context or {})
            key = str(context.get("key", ""))
            where = f"{path}.{key}" if key in said else f"train.{key}"
            raise conflict(str(context.get("message", error)), where, str(context.get("help", ""))) from None
        return merged


class CriticRates(Rates):
    """What the critic does otherwise than `train` says; its rates are its own."""

    lr: float | None = maths(9e-6, ge=0, le=10)
    """Highest learning rate of the critic."""

    min_lr: float | None = maths(9e-7, ge=0, le=10)
    """Learning rate of the critic at the end of the schedule."""


class Placed(Section):
    """Where a role runs."""

    nodes: int | None = placement(None, ge=1, le=10**5)
    """Machines of the role's processes; left out, chosen together with those of the others."""

    gpus: int | None = placement(None, ge=1, le=10**4)
    """GPUs of each machine (processes, on a CPU); left out, all that the cluster profile says."""

    parallel: Parallel = placement(Parallel())
    """Layout of the GPUs; left out, the fastest that fits."""

    micro_batch: int | None = placement(None, ge=1, le=10**6)
    """Rows per GPU at a time; left out, the fastest that fits."""


class Actor(Placed):
    """The model that learns to answer."""

    model: Model = maths()
    """Model to start from, as a rule one that was fine-tuned."""

    train: Rates = maths(Rates())
    """Its optimizer where it differs from `train`."""

    offload_optimizer: bool | None = placement(None)
    """Adam's state waits in the host's memory during rollouts; left out, where else there is no room."""


class Critic(Placed):
    """The model that says what a text so far is worth, one number at each token."""

    model: Model | None = maths(None)
    """Model to start from; left out, the reward model (the actor's model, where the reward is a function)."""

    epochs: int | None = maths(None, ge=1, le=1000)
    """Passes over the rollouts of a step, each of which learns all of them once; left out, one."""

    train: CriticRates = maths(CriticRates())
    """Its optimizer where it differs from `train`."""

    offload_optimizer: bool | None = placement(None)
    """Adam's state waits in the host's memory while the critic only answers; left out, where else there is no
    room."""


class Frozen(Placed):
    """A model that is asked and never learns."""

    weights: Literal["swap", "resident"] | None = placement(None)
    """Where it shares the processes of another role: `swap` keeps the weights in the host's memory, and they
    trade places with the other's while it is asked; `resident` keeps them on the GPU beside. Left out, swap
    where both have the same shape."""


class Reference(Frozen):
    """The policy that the actor shall not move far away from."""

    model: Model | None = maths(None)
    """Left out, the weights that the actor starts from."""


class Scorer(Frozen):
    """What scores an answer: a model, or a function."""

    model: Model | None = maths(None)
    """A reward model, e.g. `{from: rm}` for a stage that trained one."""

    function: Given | None = maths(None)
    """`module:name` of a function of prompt, response and row that gives a number, instead of a model; or
    `builtin:gsm8k`, which compares the last number of an answer with the row's. The token that ended a
    response is not in the text."""

    attributes: Many[Given] = maths(())
    """Names of what the model's head says, where it says several numbers and is no stage of this spec."""

    merge: dict[Given, float] = maths({})
    """Weight of each attribute in the score; those not named weigh 0. Left out, what the reward model was
    trained with, else the mean."""

    standardise: bool = maths(False)
    """Take the mean out of scores and divide them by their deviation, both as measured when the reward model
    was validated."""

    mean: float | None = maths(None)
    """Mean to take out instead of the measured one."""

    std: float | None = maths(None, gt=0)
    """Deviation to divide by instead of the measured one."""

    clip: float | None = maths(None, gt=0, le=10**9)
    """Scores are held between -clip and clip, after standardising; left out, they are not."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Scorer:
        if (self.model is None) == (self.function is None):
            what = "both a model and a function" if self.model else "neither a model nor a function"
            raise conflict(f"the reward is {what}", "function" if self.model else "", "give one of the two")
        if self.function is not None:
            self._has_only_a_function(self.function)
        if not self.standardise and (self.mean is not None or self.std is not None):
            key = "mean" if self.mean is not None else "std"
            raise conflict(f"`{key}` belongs to standardised scores", key, "add standardise: true")
        for name in self.merge:
            if self.attributes and name not in self.attributes:
                raise conflict(
                    f"the head has no attribute `{name}`", f"merge.{name}", "name it in attributes"
                )
        return self

    @property
    def of_models(self) -> tuple[str, ...]:
        """What only a model has."""
        own = ("nodes", "gpus", "micro_batch", "weights", "standardise")
        return (*own, "attributes", "merge", "parallel")

    def _has_only_a_function(self, function: str) -> None:
        check_function(function)
        for key in self.of_models:
            if getattr(self, key) != type(self).model_fields[key].default:
                message = f"a reward that is a function has no `{key}`"
                raise conflict(message, key, f"remove `{key}`")


def as_data(section: BaseModel | str) -> dict[str, Any]:
    """A model as plain data: what was said and nothing else."""
    said = section if isinstance(section, str) else section.model_dump(mode="json", exclude_none=True)
    return said if isinstance(said, dict) else {"name": said}
