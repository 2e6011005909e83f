"""Self-rewarding: a model writes responses, judges them itself, and learns to prefer the better ones; then it
does so again from where it ended.

What goes out is one stage for each iteration, NAME-1, NAME-2, ..., each from the last one's checkpoint, with
a fresh optimizer and a schedule of its own; `first_iteration_sft` makes the first one plain fine-tuning. A
stage has two roles in the same processes: `actor`, which learns, and `reference`, the weights it began with.
They wait in the host's memory and trade places with the actor's to write, judge and be compared with.

Settings of the job
    train           as for every program: `steps` and `epochs` are those of one iteration
    self_rewarding  the fields of the section flat, `beta` and `length_control` as they are in this iteration:
                    iteration, rollouts (responses of a step), responses, judgements, loss, template, pattern,
                    low, high, judge {max_tokens, temperature, top_p}, verifier, verified_by, meta_...
                    `generations` counts what a step generates, `learnt` the texts of its pairs, both for
                    expected times
    generate        the sampling and the engine, expected lengths those of responses and judgements together
Data: `prompts`, rows whose last answer is left out, and `validation`, rows whose answers are measured.

A step takes train.global_batch prompts and makes as many pairs. The order of rows goes on from iteration to
iteration. Defaults are the papers' and NeMo-Aligner's: arXiv:2401.10020, 2407.19594 (`meta`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from specc.algorithms.sft import Sft
from specc.graph import (
    Artifact,
    Stage,
    StageRole,
    model_data,
    rows_data,
    rows_inputs,
    train_settings,
    training_role,
    training_stage,
)
from specc.spec.generation import Generate
from specc.spec.judging import Judge, Meta
from specc.spec.preferences import PreferenceTrain, check_whole_texts
from specc.spec.roles import BUILTIN_REWARDS, FUNCTION
from specc.spec.section import Many, Section, maths, maths_fields
from specc.spec.stage import TrainingSpec
from specc.spec.units import Given, conflict

PROGRAM = "self_rewarding"
JUDGE_WORDS, QUESTION_TOKENS = 150, 400
"""Tokens of a judgement, asked to have 100 words, and of the judge's template: for expected times."""

EACH = ("beta", "length_control")
"""Fields with a number for each iteration."""

TINY_STEPS, TINY_ROW, TINY_JUDGEMENT = 2, 2048, 16
"""Of a tiny twin: steps of an iteration, tokens of a row, and of a judgement."""


def _listed(value: Any) -> Any:
    """One number is one for all iterations."""
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _shown(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)


def _by_iteration(low: float, high: float, open_below: bool = False) -> Any:
    """A number, or one for each iteration."""
    number = Annotated[float, Field(gt=low, le=high) if open_below else Field(ge=low, le=high)]
    one = {"type": "number", "maximum": high} | {"exclusiveMinimum" if open_below else "minimum": low}
    schema = {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
    form = (BeforeValidator(_listed), PlainSerializer(_shown), WithJsonSchema(schema), Field(min_length=1))
    return Annotated[Many[number], *form]  # type: ignore[valid-type]


Betas = _by_iteration(0, 10**3, open_below=True)
Controls = _by_iteration(0, 1)


class Verifier(Section):
    """Checks responses to rows that can be checked; they are not judged."""

    function: Given = maths()
    """`module:name` of a function of prompt, response and row that gives a number from 0 (wrong) to 1
    (right), or `builtin:gsm8k`."""

    field: Given = maths("verifier_args")
    """Field of a row that says it can be checked."""

    @model_validator(mode="after")
    def _names_a_function(self) -> Verifier:
        name = self.function
        if not FUNCTION.fullmatch(name):
            raise conflict(
                f"`{name}` does not name a function", "function", "write module:name, or builtin:gsm8k"
            )
        if name.startswith("builtin:") and name.removeprefix("builtin:") not in BUILTIN_REWARDS:
            known = " or ".join(f"builtin:{known}" for known in BUILTIN_REWARDS)
            raise conflict(f"there is no verifier `{name}`", "function", f"use {known}, or module:name")
        return self


class SelfRewarding(Section):
    """Iterations, responses, judgements, and the loss on pairs of them."""

    iterations: int = maths(3, ge=1, le=100)
    """Times that the model learns from what it wrote and judged at the end of the time before."""

    responses: int = maths(4, ge=2, le=1024)
    """Responses to each prompt."""

    judgements: int = maths(3, ge=1, le=1024)
    """Judgements of each response; their mean is its score."""

    length_control: Controls = maths((0.0,))  # type: ignore[valid-type]
    """Part of the range of scores within which length decides: the shortest of the best is learnt, the
    longest of the worst unlearnt. A number, or one for each iteration, such as [0, 0, 0.1]."""

    first_iteration_sft: bool = maths(False)
    """Let the first iteration be plain fine-tuning on the answers of the rows; the second one goes on from
    where it ended, as all do, and not from its best checkpoint."""

    judge: Judge = maths(Judge())
    """What the model is asked as a judge, and how its words become a score."""

    meta: Meta = maths(Meta())
    """Judgements that are judged and learnt from too."""

    verifier: Verifier | None = maths(None)
    """What checks rows that can be checked, instead of the judge; left out, all are judged."""

    loss: Literal["dpo", "ipo", "rpo_sq", "rpo_fwd_kl", "rpo_bwd_kl", "scale"] = maths("dpo")
    """`dpo` and `ipo` learn which response is better; the `rpo_*` how much, from the scores; `scale` is dpo
    with pairs weighed by the difference of the scores."""

    beta: Betas = maths((0.1,))  # type: ignore[valid-type]
    """How much the policy may differ from the reference: less of it, further away. A number, or one for each
    iteration."""

    eta: float = maths(1.0, ge=0, le=10**6)
    """Scale of the scores beside the policy's log-ratios, in the `rpo_*` losses."""

    preference_weight: float = maths(1.0, ge=0, le=10**6)
    """Weight of the preference loss."""

    sft_weight: float = maths(0.0, ge=0, le=10**6)
    """Weight of the chosen response's negative log-likelihood, beside it."""

    average_log_probs: bool = maths(False)
    """Divide a response's log-probability by its tokens, so that longer ones do not weigh more."""

    sft_average_log_probs: bool = maths(False)
    """The same in the likelihood of the chosen response."""

    @model_validator(mode="after")
    def _fits_together(self) -> SelfRewarding:
        for key in EACH:
            given = len(getattr(self, key))
            if given not in (1, self.iterations):
                message = f"`{key}` has {given} numbers for {self.iterations} iterations"
                raise conflict(message, key, "give one for each iteration, or one number for all")
        if self.meta.fraction and self.judgements < 2:
            message = "one judgement of a response cannot be compared with another"
            raise conflict(message, "judgements", "use judgements: 3, or meta: {fraction: 0}")
        if not self.preference_weight and not self.sft_weight:
            message = "with both weights 0 nothing would be learnt"
            raise conflict(message, "preference_weight", "use preference_weight: 1")
        if self.eta != 1.0 and not self.loss.startswith("rpo"):
            message = f"`eta` scales scores, which the loss {self.loss} does not compare"
            raise conflict(message, "eta", "remove `eta`, or use loss: rpo_sq")
        return self


class Spec(TrainingSpec):
    """Self-rewarding of one model."""

    algorithm: Literal["self_rewarding"] = maths()
    """`self_rewarding`."""

    train: PreferenceTrain = maths(PreferenceTrain())  # type: ignore[assignment]  # with other defaults
    """Batches, optimizer, schedule, checkpoints, of one iteration."""

    generate: Generate = maths(Generate())
    """How responses are sampled, and judgements where `judge` says nothing else."""

    self_rewarding: SelfRewarding = maths(SelfRewarding())
    """Iterations, responses, judgements and the loss."""

    @model_validator(mode="after")
    def _has_room(self) -> Spec:
        check_whole_texts(self)
        length, longest = self.train.seq_length, self.longest
        self.generate.check_room(length)
        if longest >= length:
            message = f"judgements of max_tokens {longest} leave no prompt in seq_length {length}"
            help = f"use max_tokens: {max(1, length // 2)}"
            raise conflict(message, "self_rewarding.judge.max_tokens", help)
        if self.train.packing:
            message = "pairs are balanced over GPUs by their tokens, not packed into rows of seq_length"
            raise conflict(message, "train.packing", "remove `packing`")
        return self

    @property
    def longest(self) -> int:
        """Tokens of the longest thing that is generated."""
        return max(self.generate.max_tokens, self.self_rewarding.judge.max_tokens or 0)


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage for each iteration."""
    return [_stage(spec, name, iteration) for iteration in range(1, spec.self_rewarding.iterations + 1)]


def smaller(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What a tiny twin has instead: two iterations of few responses, and rows with room for the judge's
    question in bytes.
    """
    own, train = stage[PROGRAM], stage["train"]
    kept = min(own["iterations"], 2)
    most: dict[str, Any] = {
        "train.steps": min(train.get("steps") or TINY_STEPS, TINY_STEPS),
        "train.seq_length": min(train["seq_length"], TINY_ROW),
        "train.validate_every": TINY_STEPS,
        "train.save_every": 1,
        f"{PROGRAM}.iterations": kept,
        **{f"{PROGRAM}.{key}": own[key][:kept] for key in EACH if isinstance(own[key], list)},
        f"{PROGRAM}.responses": min(own["responses"], 2),
        f"{PROGRAM}.judgements": min(own["judgements"], 2),
        f"{PROGRAM}.meta.batch": min(own["meta"]["batch"], 2),
    }
    if own["judge"].get("max_tokens"):
        most[f"{PROGRAM}.judge.max_tokens"] = min(own["judge"]["max_tokens"], TINY_JUDGEMENT)
    return most


def _stage(spec: Spec, name: str, iteration: int) -> Stage:
    own = spec.self_rewarding
    source = model_data(spec) if iteration == 1 else {"from": f"{name}-{iteration - 1}"}
    is_tuning = own.first_iteration_sft and iteration == 1
    stage = (_tuning if is_tuning else _judging)(spec, f"{name}-{iteration}", iteration)
    inputs = stage.inputs
    if iteration > 1:
        inputs = (Artifact("checkpoint", source["from"], path="model.from"), *inputs)
    roles = tuple(dataclasses.replace(role, model=source) for role in stage.roles)
    last = iteration == own.iterations
    return dataclasses.replace(
        stage,
        algorithm=spec.algorithm,
        roles=roles,
        inputs=inputs,
        identity=_identity(spec, iteration),
        export=spec.export if last else False,
    )


def _tuning(spec: Spec, name: str, iteration: int) -> Stage:
    """Plain fine-tuning."""
    role = training_role(spec, program="sft")
    settings = Sft().model_dump(mode="json") | {"hand_over": "last"}  # whatever its validation says
    stage = training_stage(spec, name, role, settings={"sft": settings})
    sets = {"train": spec.data.train, "validation": spec.data.validation}
    return dataclasses.replace(stage, inputs=_inputs(spec, iteration) + rows_inputs(_paths(sets)))


def _judging(spec: Spec, name: str, iteration: int) -> Stage:
    """An iteration of responses, judgements and pairs."""
    learner = training_role(spec, program=PROGRAM, name="actor")
    learner = dataclasses.replace(
        learner,
        texts=2,
        group="actor",
        offload_optimizer=None,
        prompt_tokens=spec.train.seq_length - spec.longest,
        response_tokens=spec.longest,
        parallel={**learner.parallel, "cp": 1},
        paths={key: path for key, path in learner.paths.items() if key != "cp"},
    )
    sets = {"prompts": spec.data.train, "validation": spec.data.validation}
    return Stage(
        name=name,
        algorithm=spec.algorithm,
        roles=(learner, _reference(learner)),
        settings={
            "train": train_settings(spec.train),
            PROGRAM: _flat(spec, iteration),
            "generate": _generate(spec),
            "serve": {"batch": 0, "timeout_seconds": 3600, "start_timeout_seconds": 3600},
        },
        data={
            "prompts": _with_split(rows_data(sets["prompts"]), "train"),
            "validation": _with_split(rows_data(sets["validation"]), "validation", learnt=True),
        },
        inputs=_inputs(spec, iteration) + rows_inputs(_paths(sets)),
        time_seconds=spec.time,
        env=dict(spec.env),
    )


def _reference(learner: StageRole) -> StageRole:
    """The weights that the iteration began with."""
    return dataclasses.replace(
        learner, name="reference", texts=1, trains=False, weights="swap", offload_optimizer=False
    )


def _inputs(spec: Spec, iteration: int) -> tuple[Artifact, ...]:
    source = spec.model.from_ if iteration == 1 else None
    return (Artifact("checkpoint", source.stage, source.run or "", "model.from"),) if source else ()


def _paths(sets: Mapping[str, Any]) -> dict[str, Any]:
    return {f"data.{'train' if use == 'prompts' else use}": rows for use, rows in sets.items()}


def _with_split(data: dict[str, Any] | None, split: str, learnt: bool = False) -> dict[str, Any] | None:
    """The rows of a built-in data set differ by split: the use of a set shall not choose them."""
    if data is None:
        return None
    if str(data["path"]).startswith("builtin:") and not data.get("split"):
        data = {**data, "split": split}
    return {**data, "learnt": True} if learnt else data


def _flat(spec: Spec, iteration: int) -> dict[str, Any]:
    """The section as the runtime reads it: flat, as it is in this iteration."""
    own, prompts = spec.self_rewarding, spec.train.global_batch
    left_out = {"judge", "meta", "verifier", "iterations", "first_iteration_sft"}
    judge = own.judge.model_dump(mode="json")
    sampling = {key: judge.pop(key) for key in ("max_tokens", "temperature", "top_p")}
    rollouts = prompts * own.responses
    return {
        **own.model_dump(mode="json", exclude=left_out),
        "beta": _of(own.beta, iteration),
        "length_control": _of(own.length_control, iteration),
        "iteration": iteration,
        "rollouts": rollouts,
        "epochs": 1,
        "generations": rollouts * (1 + own.judgements),
        "learnt": 2 * prompts,
        "learnt_tokens": round(sum(_expected(spec))),
        **judge,
        "judge": sampling,
        **{f"meta_{key}": value for key, value in own.meta.model_dump(mode="json").items()},
        "verifier": own.verifier.function if own.verifier else "",
        "verified_by": own.verifier.field if own.verifier else "",
    }


def _of(values: tuple[float, ...], iteration: int) -> float:
    return float(values[0] if len(values) == 1 else values[iteration - 1])


def _generate(spec: Spec) -> dict[str, Any]:
    """The section, with lengths as they are expected of responses and judgements together."""
    generate, own = spec.generate, spec.self_rewarding
    prompt, response = _expected(spec)
    longest = own.judge.max_tokens or generate.max_tokens
    judgement = min(JUDGE_WORDS, longest)
    question = min(prompt + response + QUESTION_TOKENS, spec.train.seq_length - longest)
    each = 1 + own.judgements
    return generate.model_dump(mode="json") | {
        "max_prompt_tokens": generate.prompt_tokens(spec.train.seq_length),
        "expected_tokens": max(1, round((response + own.judgements * judgement) / each)),
        "expected_prompt_tokens": max(1, round((prompt + own.judgements * question) / each)),
    }


def _expected(spec: Spec) -> tuple[float, float]:
    """Tokens of a prompt and of a response, on the mean."""
    generate = spec.generate
    most = generate.prompt_tokens(spec.train.seq_length)
    prompt = generate.expected_prompt_tokens or max(1.0, most / 4)
    return prompt, generate.expected_tokens or max(1.0, generate.max_tokens / 2)


def _identity(spec: Spec, iteration: int) -> dict[str, Any]:
    """What makes an iteration's numbers: another number of iterations changes nothing for those there are."""
    own = f"{PROGRAM}."
    said = {key: value for key, value in maths_fields(spec).items() if key != f"{own}iterations"}
    now = {key: _of(getattr(spec.self_rewarding, key), iteration) for key in EACH}
    return said | {f"{own}{key}": value for key, value in now.items()} | {f"{own}iteration": iteration}
