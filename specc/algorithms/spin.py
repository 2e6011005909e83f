"""Self-play fine-tuning (arXiv:2401.01335): a model learns to prefer the data's answers to its own.

Iteration k of a section NAME becomes two stages: NAME-k-generate answers the prompts of the data with the
policy of the iteration before, and NAME-k-train learns by dpo that the row's own answer is better than that
one, beside the policy it starts from. Validation rows are answered too, by NAME-k-generate-validation. More
iterations leave those before them as they are.

Defaults are NeMo-Aligner's (beta 0.2, 3 iterations). There the mask of a response is shifted by a token; here
it is the response's tokens and its end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from specc.algorithms import dpo, generate
from specc.algorithms.self_rewarding import Betas
from specc.graph import Stage, lower_as
from specc.spec.data import Dataset
from specc.spec.generation import Generate
from specc.spec.making import AskedData
from specc.spec.model import Model
from specc.spec.preferences import ComparedData, ReferenceSpec, Responses
from specc.spec.section import Section, cosmetic, maths
from specc.spec.units import conflict

OF_ROWS = ("path", "from", "split", "subset", "limit", "format", "prompt")


class Spin(Responses):
    """Iterations, and the loss of each."""

    iterations: int = maths(3, ge=1, le=100)
    """Times that the policy answers and learns to be unlike those answers."""

    beta: Betas = maths((0.2,))  # type: ignore[valid-type]
    """How much the policy may differ from the one before: a number, or one for each iteration."""

    sft_weight: float = maths(0.0, ge=0, le=10**6)
    """Weight of the negative log-likelihood of the row's own answer, beside the preference."""

    average_log_probs: bool = maths(False)
    """Divide a response's log-probability by its tokens."""

    keep_iterations: int = cosmetic(1, ge=1, le=10**6)
    """Iterations whose rows and checkpoints stay, the last ones; those of earlier ones go as one ends."""

    @model_validator(mode="after")
    def _one_beta_each(self) -> Spin:
        if len(self.beta) not in (1, self.iterations):
            message = f"{len(self.beta)} values of beta are neither one nor one for each of the iterations"
            raise conflict(message, "beta", f"give {self.iterations} values, or one for all")
        return self

    def beta_of(self, iteration: int) -> float:
        """The value of an iteration, counted from 1."""
        return self.beta[min(iteration, len(self.beta)) - 1]


class SpinData(Section):
    """Rows whose answers are to be preferred."""

    train: Dataset = maths()
    """Prompts with answers, as for fine-tuning."""

    validation: Dataset | None = maths(None)
    """Such rows on which loss and accuracy are measured, against answers that the policy gives to them before
    each iteration, and the best checkpoint of each chosen to go on with; left out, no validation."""


class Spec(ReferenceSpec):
    """Self-play fine-tuning."""

    algorithm: Literal["spin"] = maths()
    """`spin`."""

    data: SpinData = maths()  # type: ignore[assignment]  # the worse answers are generated
    """Rows to learn from, and rows to validate on."""

    generate: Generate = maths(Generate())
    """How answers are sampled."""

    spin: Spin = maths(Spin())
    """Iterations, and the loss of each."""

    @model_validator(mode="after")
    def _fits_what_spin_is(self) -> Spec:
        if self.reference.model is not None:
            message = "the reference of an iteration is the policy that it starts from"
            raise conflict(message, "reference.model", "remove `model`, or use algorithm: dpo")
        if self.generate.add_bos != self.spin.add_bos:
            message = "answers are learnt behind the prompts that they were given to, begin token and all"
            said = str(self.spin.add_bos).lower()
            raise conflict(message, "generate.add_bos", f"use add_bos: {said} as in `spin`, or change both")
        self.generate.check_room(self.train.seq_length)
        return self

    @property
    def sets(self) -> dict[str, Dataset]:
        """The rows to answer, by the end of their stage's name."""
        found = {"generate": self.data.train, "generate-validation": self.data.validation}
        return {end: rows for end, rows in found.items() if rows is not None}


def lower(spec: Spec, name: str) -> list[Stage]:
    """Two stages for each iteration, or three where there are rows to validate on."""
    found: list[Stage] = []
    policy = spec.model
    for number in range(1, spec.spin.iterations + 1):
        found += [_answers(spec, rows, f"{name}-{number}-{end}", policy) for end, rows in spec.sets.items()]
        found.append(_training(spec, name, number, policy))
        policy = Model.model_validate({"from": f"{name}-{number}-train"})
    return found


def smaller(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What a tiny twin has instead."""
    return {
        "spin.iterations": min(stage["spin"]["iterations"], 2),
        "spin.beta": _first(stage["spin"]["beta"]),
    }


def _first(beta: Any) -> float:
    return beta[0] if isinstance(beta, list) else beta


def _answers(spec: Spec, rows: Dataset, name: str, policy: Model) -> Stage:
    """One answer of the policy to each prompt."""
    said = rows.model_dump(mode="json", exclude_none=True)
    said = {"path": said} if isinstance(said, str) else said
    prompts = {key: value for key, value in said.items() if key in OF_ROWS}
    use = "validation" if name.endswith("-validation") else "train"
    if use == "validation" and str(rows.path).startswith("builtin:"):
        prompts.setdefault("split", use)  # or else they would be the rows that are learnt
    most = spec.generate.prompt_tokens(spec.train.seq_length)
    sampling = spec.generate.model_dump(mode="json") | {"max_prompt_tokens": most}
    own = generate.Spec(
        algorithm="generate",
        model=policy,
        data=AskedData.model_validate({"prompts": prompts}),
        generate=generate.Generate.model_validate(sampling),
        **{key: getattr(spec, key) for key in ("nodes", "gpus", "plan", "precision", "env")},
    ).model_copy(update={"time": spec.time})
    stage = lower_as(own, name, {"data.prompts": f"data.{use}"})
    return dataclasses.replace(stage, algorithm=str(spec.algorithm))


def _training(spec: Spec, name: str, number: int, policy: Model) -> Stage:
    """The policy learns from the rows' answers and its own."""
    said = spec.spin
    uses = dict(zip(("train", "validation"), spec.sets, strict=False))
    sources = {use: {"from": f"{name}-{number}-{end}"} for use, end in uses.items()}
    names = ("truncation", "add_eos", "add_bos", "sft_weight", "average_log_probs")
    shared = ("train", "reference", "nodes", "gpus", "parallel", "plan", "precision", "env", "export")
    own = dpo.Spec(
        algorithm="dpo",
        model=policy,
        data=ComparedData.model_validate(sources),
        dpo=dpo.Dpo(beta=said.beta_of(number), **{key: getattr(said, key) for key in names}),
        **{key: getattr(spec, key) for key in shared},
    ).model_copy(update={"time": spec.time})
    where = {f"data.{use}.from": f"data.{use}" for use in uses}
    stage = lower_as(own, f"{name}-{number}-train", {**where, "dpo": "spin"})
    data, identity = dict(stage.data), dict(stage.identity)
    for use, end in uses.items():
        rows = spec.sets[end]
        formed = {"kind": "generated", "format": rows.format}
        formed |= {"prompt": rows.prompt, "response": rows.response}
        data[use] = {**stage.data[use], **formed}
        identity |= {f"data.{use}.{key}": value for key, value in formed.items()}
    back = number - said.keep_iterations
    return dataclasses.replace(
        stage,
        algorithm=str(spec.algorithm),
        data=data,
        identity=identity,
        discards=tuple(f"{name}-{back}-{end}" for end in (*spec.sets, "train")) if back > 0 else (),
    )
