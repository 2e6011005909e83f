"""Reward models: a score for a text, learnt from comparisons or from marks that people gave.

Defaults are the tutorials' (NeMo-Aligner), where these are sound: see `average` and `load_head`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from pydantic import model_validator

from specc.graph import Stage, rows_data, training_role, training_stage
from specc.spec.data import Judged, JudgedData
from specc.spec.reading import listed, nearest
from specc.spec.section import Many, Section, maths
from specc.spec.stage import TrainingSpec
from specc.spec.train import Train
from specc.spec.units import Given, conflict

STEERLM = (
    *("quality", "toxicity", "humor", "creativity"),  # OpenAssistant
    *("helpfulness", "correctness", "coherence", "complexity", "verbosity"),  # HelpSteer
)
"""The nine attributes of SteerLM, in their order."""

WITH_STRENGTH = ("margin_bt", "scaled_bt")


class Reward(Section):
    """The head, and what it is to learn."""

    head: Literal["scalar", "attributes"] | None = maths(None)
    """One number for a text, or one for each of several attributes; left out, what `attributes` and `loss`
    imply, else scalar. Its weights are fp32 whatever the precision of the rest."""

    attributes: Many[Given] = maths(())
    """Names of the attributes, in the order of the labels; left out, the nine of SteerLM."""

    merge: dict[Given, float] = maths({})
    """Weight of each attribute in the one score of a text; those not named weigh 0. Left out, their mean."""

    loss: Literal["bradley_terry", "regression", "regular_bt", "margin_bt", "scaled_bt"] | None = maths(None)
    """`bradley_terry` (the same as `regular_bt`) learns which of two texts is better; `margin_bt` and
    `scaled_bt` also how clearly; `regression` learns the labels. Left out, by the head: the first for a
    scalar, regression for attributes."""

    average: Literal["global", "micro_batch"] = maths("global")
    """What the loss is the mean over: all pairs or labels of the global batch, or first each micro-batch by
    itself, as older implementations do; then missing labels make some rows weigh more."""

    load_head: bool = maths(True)
    """Take the head along where the model comes from a stage or folder that has one; else it begins anew."""

    truncation: Literal["drop", "left", "right", "error"] = maths("drop")
    """What happens to a text of more than `seq_length` tokens: leave its row out, or cut it at that end."""

    add_eos: bool = maths(True)
    """Append the end token to each text and read the score there, as at the end of a generated response."""

    add_bos: bool = maths(False)
    """Put the begin token before each text."""

    @property
    def is_scalar(self) -> bool:
        """Whether the head gives one number."""
        if self.head is not None:
            return self.head == "scalar"
        return not self.attributes and not self.merge and self.loss != "regression"

    @property
    def names(self) -> tuple[str, ...]:
        """The head's attributes; none for a scalar."""
        return () if self.is_scalar else self.attributes or STEERLM

    @property
    def formula(self) -> str:
        """The loss, said or not."""
        return self.loss or ("bradley_terry" if self.is_scalar else "regression")

    @property
    def needs_strength(self) -> bool:
        """Whether the loss wants to know how clear each preference is."""
        return self.formula in WITH_STRENGTH

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each attribute in the score."""
        if not self.merge:
            return (1 / max(len(self.names), 1),) * max(len(self.names), 1)
        return tuple(self.merge.get(name, 0.0) for name in self.names)

    @model_validator(mode="after")
    def _head_and_names_agree(self) -> Reward:
        for key in ("attributes", "merge"):
            if self.head == "scalar" and getattr(self, key):
                message = (
                    f"a scalar head has no {'attributes' if key == 'attributes' else 'attributes to merge'}"
                )
                raise conflict(message, key, f"use head: attributes, or remove `{key}`")
        doubled = next((n for i, n in enumerate(self.attributes) if n in self.attributes[:i]), None)
        if doubled:
            raise conflict(f"the attribute `{doubled}` is named twice", "attributes", "name each once")
        for name in self.merge:
            if name not in self.names:
                near = nearest(name, self.names)
                help = f"did you mean `{near}`?" if near else f"the attributes are {listed(self.names)}"
                raise conflict(f"the head has no attribute `{name}`", f"merge.{name}", help)
        if self.merge and not any(self.merge.values()):
            raise conflict("all weights of the score are 0", "merge", "give one attribute another weight")
        return self


class RewardTrain(Train):
    """One training run of a reward model."""

    global_batch: int = maths(64, ge=1, le=10**7)
    """Rows per optimizer step, over all GPUs; two texts that are compared are one row."""

    lr: float = maths(9e-6, ge=0, le=10)
    """Highest learning rate, reached after the warm-up."""

    min_lr: float = maths(9e-7, ge=0, le=10)
    """Learning rate at the end of the schedule."""

    weight_decay: float = maths(0.1, ge=0, le=10)
    """Decoupled weight decay; biases and norms have none."""


class Spec(TrainingSpec):
    """A reward model."""

    algorithm: Literal["reward"] = maths()
    """`reward`."""

    data: JudgedData = maths()  # type: ignore[assignment]  # other rows than those that are learnt
    """Rows to learn from, and rows to validate on."""

    train: RewardTrain = maths(RewardTrain())  # type: ignore[assignment]  # the same with other defaults
    """Batches, optimizer, schedule, checkpoints."""

    reward: Reward = maths(Reward())
    """The head, and what it is to learn."""

    @model_validator(mode="after")
    def _data_fits_the_loss(self) -> Spec:
        formula = self.reward.formula
        for use in ("train", "validation"):
            rows = getattr(self.data, use)
            wanted = "attributes" if formula == "regression" else "comparisons"
            if rows is None or rows.format in ("auto", wanted):
                continue
            where = f"data.{use}.format"
            if rows.format == "hh" and formula != "regression" and not self.reward.needs_strength:
                continue
            what = f"the loss {formula} learns from {wanted}"
            if self.reward.needs_strength and rows.format == "hh":
                what = f"the loss {formula} wants to know how clear a preference is, which hh rows do not say"
            help = (
                "use loss: bradley_terry"
                if wanted == "attributes" or rows.format == "hh"
                else "use loss: regression"
            )
            raise conflict(what, where, help)
        if (self.parallel.cp or 1) > 1:
            message = (
                f"cp {self.parallel.cp} cuts a text over GPUs, but its score is read from the whole text"
            )
            raise conflict(message, "parallel.cp", "remove `cp`; use tp or recompute where memory is short")
        return self


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage, one role."""
    reward = spec.reward
    head = "scalar" if reward.is_scalar else "attributes"
    role = training_role(spec, program="reward", head=head)
    role = dataclasses.replace(
        role,
        attributes=reward.names,
        texts=1 if reward.formula == "regression" else 2,
        parallel={**role.parallel, "cp": 1},  # a score is read from the whole text
        paths={key: path for key, path in role.paths.items() if key != "cp"},
    )
    stage = training_stage(spec, name, role, settings={"reward": _settings(reward)})
    sets = {"train": spec.data.train, "validation": spec.data.validation}
    return [dataclasses.replace(stage, data={use: _rows(rows, reward) for use, rows in sets.items()})]


def _settings(reward: Reward) -> dict[str, Any]:
    """The section as the runtime reads it: everything said."""
    head = "scalar" if reward.is_scalar else "attributes"
    said = {key: getattr(reward, key) for key in ("average", "load_head", "truncation", "add_eos", "add_bos")}
    return {
        "head": head,
        "attributes": list(reward.names),
        "weights": list(reward.weights),
        "loss": reward.formula,
        **said,
    }


def _rows(rows: Judged | None, reward: Reward) -> dict[str, Any] | None:
    """A data set with its format said, and the attributes that its labels are for."""
    if rows is None:
        return None
    wanted = "attributes" if reward.formula == "regression" else "comparisons"
    return {
        **(rows_data(rows) or {}),
        "format": wanted if rows.format == "auto" else rows.format,
        "attributes": list(reward.names),
    }
