"""Rounds of answering, scoring, selecting and learning, unrolled into a chain of stages.

Round k of a section NAME becomes the stages NAME-k-generate, NAME-k-mix where there is something to mix,
NAME-k-score, NAME-k-select and NAME-k-train. Each is what the algorithm of that kind makes of a spec of its
own (`generate`, `mix`, `score`, a selector, `sft`), so that it is identified by what matters to it: more
rounds leave those before them as they are. The policy that answers is always that of the last round.

The tutorials' `while` loop (NeMo-Aligner, "Model Alignment by Offline methods") is the same chain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import model_validator

from specc.algorithms import generate, mix, score, sft
from specc.algorithms.generate import Generate
from specc.algorithms.score import Score, Scoring, Standardise
from specc.algorithms.sft import Sft
from specc.graph import Stage, lower_as
from specc.spec.data import Data, Dataset, Rows
from specc.spec.making import AnyPrompts, AskedData, ClerkSpec, RowsData, Slice, agreeing_weights
from specc.spec.model import Model
from specc.spec.planning import Planning
from specc.spec.roles import Placed, Scorer
from specc.spec.section import Section, cosmetic, maths, placement
from specc.spec.train import Train
from specc.spec.units import Environment, Time, conflict


class Policy(Placed):
    """The model that answers and learns."""

    model: Model = maths()
    """Model to start from, as a rule one that was fine-tuned."""


class Reward(Scorer):
    """What scores an answer: a model, or a function."""

    standardise: Literal[True, False, "rows"] = maths(False)  # type: ignore[assignment]  # a round has rows
    """Take the mean out of scores and divide them by their deviation: `true` for both as measured when the
    reward model was validated, `rows` for those of all rows that are scored in the same round."""

    @property
    def of_models(self) -> tuple[str, ...]:
        """What only a model has: the scores of a round may be a function's."""
        return tuple(key for key in super().of_models if key != "standardise" or not self.by_rows)

    @property
    def by_rows(self) -> bool:
        """Whether mean and deviation are those of the round's rows."""
        return self.standardise == "rows"

    @model_validator(mode="after")
    def _rows_are_measured(self) -> Reward:
        key = "mean" if self.mean is not None else "std" if self.std is not None else ""
        if self.by_rows and key:
            message = f"`{key}` is given, and `standardise: rows` measures it in each round"
            raise conflict(message, key, f"remove `{key}`, or use standardise: true")
        return self


class Roles(Section):
    """The two models. Only one is loaded at a time."""

    actor: Policy = maths()
    """The model that answers and learns; its layout is that of its training, for answers the fastest is
    taken."""

    reward: Reward = maths()
    """What scores an answer: a model, or a function."""


class RoundData(Section):
    """Prompts to answer, and rows to validate on."""

    prompts: AnyPrompts = maths(min_length=1)
    """Prompts to answer: a data set, or a list of several, each with a `weight` if you like."""

    validation: Dataset | None = maths(None)
    """Rows on which the loss is measured as the policy learns; left out, none."""

    @model_validator(mode="after")
    def _weights_agree(self) -> RoundData:
        agreeing_weights(self.prompts, "prompts")
        return self


class Learning(Sft):
    """What is learnt of a row."""

    turns: Literal["all", "last"] = maths("last")
    """Which answers of a conversation are learnt: the `last` one, which the policy gave, or `all`, with
    those that came with the prompt and that nobody scored."""


class RoundsSpec(Section):
    """A policy that learns from those of its own answers that were scored well, in one round or several."""

    algorithm: Any = maths()
    """Name of the algorithm, and of its own section."""

    data: RoundData = maths()
    """Prompts to answer, and rows to validate on."""

    roles: Roles = maths()
    """The policy, and what scores its answers."""

    rounds: int = maths(1, ge=1, le=100)
    """How often the policy answers and learns."""

    prompts_per_round: int | None = maths(None, ge=1, le=10**9)
    """Prompts of a round, each the next ones of the data; left out, all of them in every round."""

    carry: Literal["policy", "start"] = maths("policy")
    """What a round's training starts from: the last round's policy, or the first model."""

    keep_rounds: int = cosmetic(1, ge=1, le=10**6)
    """Rounds whose rows and checkpoints stay, the last ones; those of earlier ones go as a round ends."""

    generate: Generate = maths(Generate())
    """How answers are sampled, and how many to each prompt."""

    score: Scoring = maths(Scoring())
    """The text that is scored."""

    train: Train = maths(Train())
    """Batches, optimizer, schedule and checkpoints of each round's training."""

    sft: Learning = maths(Learning())
    """What is learnt of a row."""

    plan: Planning = placement(Planning())
    """Which numbers of nodes to choose where they are left out."""

    precision: Literal["bf16", "fp32"] = maths("bf16")
    """Number format of weights and activations; the optimizer keeps fp32 in any case."""

    time: Time | None = placement(None)
    """Time limit of one job, such as 4h; at the limit it saves and continues. Left out, the profile's."""

    env: Environment = placement({})
    """Environment variables of the jobs; they win over the cluster profile's."""

    export: bool | None = cosmetic(None)
    """Write a Hugging Face folder at the end of each round; left out, only the last stage of a spec does."""


@dataclass(frozen=True)
class Selector:
    """What makes rows to learn of scored ones."""

    spec: type[ClerkSpec]  # of the algorithm whose name its section bears
    section: Section
    format: Literal["auto", "prompt_response"] = "auto"  # of the rows that it makes
    path: str = ""  # of the section
    others: tuple[mix.Part, ...] = ()  # rows that are scored beside the answers
    weight: float | None = None  # of the answers among them


def unrolled(spec: RoundsSpec, name: str, selector: Selector) -> list[Stage]:
    """The stages of all rounds, in order."""
    found: list[Stage] = []
    for number in range(1, spec.rounds + 1):
        found += _Round(spec, name, number, selector).stages()
    return found


@dataclass(frozen=True)
class _Round:
    spec: RoundsSpec
    name: str
    number: int
    selector: Selector

    def stages(self) -> list[Stage]:
        return [self.generate(), *self.mix(), self.score(), self.select(), self.train()]

    def part(self, what: str, back: int = 0) -> str:
        """The stage of this name, of this round or of so many rounds before."""
        return f"{self.name}-{self.number - back}-{what}"

    @property
    def common(self) -> dict[str, Any]:
        return {"time": self.spec.time, "env": self.spec.env}

    @property
    def asking(self) -> dict[str, Any]:
        return {**self.common, "plan": self.spec.plan, "precision": self.spec.precision}

    @property
    def policy(self) -> Model:
        """The model that answers."""
        if self.number == 1:
            return self.spec.roles.actor.model
        return Model.model_validate({"from": self.part("train", back=1)})

    def generate(self) -> Stage:
        spec, actor = self.spec, self.spec.roles.actor
        size = spec.prompts_per_round
        cut = Slice(size=size, index=self.number - 1) if size else None
        own = generate.Spec(
            algorithm="generate",
            model=self.policy,
            data=AskedData(prompts=spec.data.prompts, slice=cut),
            generate=spec.generate,
            nodes=actor.nodes,
            gpus=actor.gpus,
            **self.asking,
        )
        return lower_as(own, self.part("generate"), at_role("actor"))

    def mix(self) -> list[Stage]:
        """Answers and other rows, where there are others."""
        if not self.selector.others:
            return []
        made = mix.Part.model_validate({"from": self.part("generate"), "weight": self.selector.weight})
        sources = mix.Sources(sources=(made, *self.selector.others))
        own = mix.Spec(algorithm="mix", data=sources, **self.common)
        return [lower_as(own, self.part("mix"), {"data.sources": "data.others"})]

    def score(self) -> Stage:
        spec, reward = self.spec, self.spec.roles.reward
        way = "rows" if reward.by_rows else "model" if reward.standardise else None
        by = Standardise(by=way, mean=reward.mean, std=reward.std)
        said = {key: getattr(spec.score, key) for key in Scoring.model_fields}
        more = {key: getattr(reward, key) for key in ("attributes", "merge", "clip")}
        if reward.micro_batch:
            said["micro_batch"] = reward.micro_batch
        own = score.Spec(
            algorithm="score",
            model=reward.model,
            function=reward.function,
            data=RowsData(rows=Rows.model_validate({"from": self.scored})),
            score=Score(**said, **more, standardise=by),
            nodes=reward.nodes,
            gpus=reward.gpus,
            parallel=reward.parallel,
            **self.asking,
        )
        return lower_as(own, self.part("score"), at_role("reward", reward, "score"))

    @property
    def scored(self) -> str:
        return self.part("mix" if self.selector.others else "generate")

    def select(self) -> Stage:
        chosen = self.selector
        program = chosen.spec.__module__.rsplit(".", 1)[-1]
        rows = RowsData(rows=Rows.model_validate({"from": self.part("score")}))
        own = chosen.spec(**{"algorithm": program, "data": rows, program: chosen.section}, **self.common)
        return lower_as(own, self.part("select"), {program: chosen.path})

    def train(self) -> Stage:
        spec, actor = self.spec, self.spec.roles.actor
        train = spec.train
        if actor.micro_batch:
            train = train.model_copy(update={"micro_batch": actor.micro_batch})
        rows = Dataset.model_validate({"from": self.part("select"), "format": self.selector.format})
        own = sft.Spec(
            algorithm="sft",
            model=actor.model if spec.carry == "start" else self.policy,
            data=Data(train=rows, validation=spec.data.validation),
            train=train,
            sft=spec.sft,
            nodes=actor.nodes,
            gpus=actor.gpus,
            parallel=actor.parallel,
            export=spec.export,
            **self.asking,
        )
        stage = lower_as(own, self.part("train"), at_role("actor", actor))
        return dataclasses.replace(stage, discards=self.discards())

    def discards(self) -> tuple[str, ...]:
        """What nobody needs when this round has ended: all of the round that falls out of those kept."""
        back = self.spec.keep_rounds
        if self.number <= back:
            return ()
        kinds = ("generate", *(["mix"] if self.selector.others else []), "score", "select", "train")
        return tuple(self.part(kind, back) for kind in kinds)


def at_role(name: str, role: Placed | None = None, section: str = "train") -> dict[str, str]:
    """Where the spec says what an algorithm of one role says at the top, and the micro batch of a section."""
    where = {key: f"roles.{name}.{key}" for key in ("model", "nodes", "gpus", "parallel", "function")}
    if role is not None and role.micro_batch:
        where[f"{section}.micro_batch"] = f"roles.{name}.micro_batch"
    return where


def smaller(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What a tiny twin has instead: two rounds over a handful of prompts, rewards not measured."""
    reward = stage["roles"]["reward"]
    found: dict[str, Any] = {"rounds": min(stage["rounds"], 2), **generate.smaller(stage)}
    if stage.get("prompts_per_round"):
        found["prompts_per_round"] = min(stage["prompts_per_round"], 4)
    found |= {f"score.{key}": value for key, value in score.few(stage["score"]).items()}
    source = reward.get("model", {}).get("from") if isinstance(reward.get("model"), Mapping) else None
    if reward.get("standardise") is True and not isinstance(source, str):
        found |= {"roles.reward.mean": 0.0, "roles.reward.std": 1.0}
    return found
