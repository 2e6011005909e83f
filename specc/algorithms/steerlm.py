"""SteerLM: a model that answers with the attributes one asks for, by fine-tuning alone.

What goes out are the stages of its four steps. Each is what the algorithm of that kind makes of a spec of its
own (`prepare`, `reward`, `annotate`, `sft`, `generate`), so that it is identified by what matters to it:
    NAME-marks, NAME-marks-validation        what people marked, as texts with numbers
    NAME-reward                              a model of attributes learns these marks
    NAME-annotate, NAME-annotate-validation  it gives marks to conversations
    NAME-train                               a policy learns to answer with given marks
and of bootstrapping, for each round k:
    NAME-k-ask, NAME-k-generate, NAME-k-answers    the policy answers with the best marks asked for
    NAME-k-annotate, NAME-k-keep                   what was really answered is marked; enough of it is kept
    NAME-k-train                                   and learnt

Paper: arXiv:2310.05344. Defaults are the tutorials' (NeMo-Aligner).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from specc.algorithms import annotate, generate, prepare, reward, sft
from specc.algorithms.annotate import Annotate
from specc.algorithms.generate import Generate
from specc.algorithms.prepare import marks_are_whole
from specc.algorithms.reward import STEERLM, Reward, RewardTrain
from specc.algorithms.sft import Sft
from specc.graph import Stage, lower_as
from specc.rounds import at_role
from specc.spec.data import Data, Dataset, Judged, JudgedData, Rows
from specc.spec.making import AskedData, RowsData
from specc.spec.model import Model
from specc.spec.planning import Planning
from specc.spec.reading import listed, nearest
from specc.spec.roles import Placed
from specc.spec.section import Many, Section, cosmetic, maths, placement
from specc.spec.train import Train
from specc.spec.units import Environment, Given, Time, conflict

BEST = {name: 0 if name in ("toxicity", "humor", "creativity") else 4 for name in STEERLM}
"""The marks that the tutorials ask for."""

END = "<extra_id_1>"
"""With which an answer ends."""


class Learner(Placed):
    """The model that learns to answer."""

    model: Model = maths()
    """Model to start from; its chat template is `extra_id`."""


class Marker(Placed):
    """The model of attributes."""

    model: Model = maths()
    """Model to start from; it gets a head of one number for each attribute."""

    train: RewardTrain = maths(RewardTrain())
    """Batches, optimizer, schedule and checkpoints of its training."""


class Roles(Section):
    """The two models. Only one is loaded at a time."""

    reward: Marker = maths()
    """What learns to give marks, and gives them."""

    actor: Learner = maths()
    """What learns to answer."""


class SteerData(Section):
    """Conversations, as `prepare` makes them."""

    marks: Rows = maths()
    """Conversations with marks of people, which the model of attributes learns."""

    marks_validation: Rows | None = maths(None)
    """Such conversations on which it is measured, and its best checkpoint chosen; left out, none."""

    train: Rows = maths()
    """Conversations to be marked by it, and then learnt."""

    validation: Rows | None = maths(None)
    """Conversations to be marked by it, on which the loss of what is learnt is measured; left out, none."""

    prompts: Rows | None = maths(None)
    """Conversations whose questions are asked in bootstrapping; left out, those of `train`."""


class Steerlm(Section):
    """The attributes, and the rounds of bootstrapping."""

    attributes: Many[Given] = maths(())
    """Names of the attributes, in their order; left out, the nine of SteerLM."""

    rounds: int = maths(0, ge=0, le=100)
    """How often the policy answers with the best marks asked for and learns from that."""

    label: dict[Given, int] = maths({})
    """Marks that are asked for in bootstrapping, 0 to 4; left out, those of the tutorials."""

    least: dict[Given, float] = maths({})
    """Marks that an answer has at least to be learnt, by the model of attributes; left out, all are."""

    truncated: Literal["drop", "keep"] = maths("drop")
    """Whether an answer that was cut at its limit is learnt in bootstrapping."""

    turns: Literal["all", "last"] = maths("last")
    """Which answers of a conversation are learnt in bootstrapping: the `last` one, which the policy gave, or
    `all`, with those that came with the question; of the conversations before, `sft` says it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes, said or not."""
        return self.attributes or STEERLM

    @property
    def asked(self) -> dict[str, int]:
        """The marks that are asked for, said or not."""
        return self.label or {name: BEST[name] for name in self.names if name in BEST}

    @model_validator(mode="after")
    def _attributes_are_known(self) -> Steerlm:
        for key in ("label", "least"):
            for name in getattr(self, key):
                if name not in self.names:
                    near = nearest(name, self.names)
                    help = f"did you mean `{near}`?" if near else f"there are {listed(self.names)}"
                    raise conflict(f"there is no attribute `{name}`", f"{key}.{name}", help)
        marks_are_whole(self.label, "label")
        if self.rounds and not self.asked:
            message = "nobody knows which marks of these attributes are the best"
            raise conflict(message, "label", f"say label: {{{self.names[0]}: 4}}")
        return self


class Spec(Section):
    """SteerLM."""

    algorithm: Literal["steerlm"] = maths()
    """`steerlm`."""

    data: SteerData = maths()
    """Conversations with marks, and conversations to learn."""

    roles: Roles = maths()
    """The model of attributes, and the policy."""

    steerlm: Steerlm = maths(Steerlm())
    """The attributes, and the rounds of bootstrapping."""

    annotate: Annotate = maths(Annotate())
    """What the model of attributes reads as it gives marks."""

    generate: Generate = maths(Generate())
    """How answers are sampled in bootstrapping; without `stop`, they end at `<extra_id_1>`."""

    train: Train = maths(Train())
    """Batches, optimizer, schedule and checkpoints of the policy."""

    sft: Sft = maths(Sft(add_eos=False))
    """What is learnt of a conversation."""

    plan: Planning = placement(Planning())
    """Which numbers of nodes to choose where they are left out."""

    precision: Literal["bf16", "fp32"] = maths("bf16")
    """Number format of weights and activations; the optimizer keeps fp32 in any case."""

    time: Time | None = placement(None)
    """Time limit of one job, such as 4h; at the limit it saves and continues. Left out, the profile's."""

    env: Environment = placement({})
    """Environment variables of the jobs; they win over the cluster profile's."""

    export: bool | None = cosmetic(None)
    """Write a Hugging Face folder each time the policy has learnt; left out, only the last stage does."""

    @model_validator(mode="after")
    def _labels_have_a_template(self) -> Spec:
        actor = self.roles.actor.model
        template = actor.chat_template
        if template is None and actor.from_ is None:
            message = "labels stand in the chat template `extra_id`, and the model has its own"
            help = f"roles.actor.model: {{name: {actor.name or '...'}, chat_template: extra_id}}"
            raise conflict(message, "roles.actor.model", help)
        if template is not None and template.partition(":")[0] != "extra_id":
            message = "labels stand in the chat template `extra_id` alone"
            raise conflict(message, "roles.actor.model.chat_template", "use chat_template: extra_id")
        return self

    @model_validator(mode="after")
    def _texts_are_judged_whole(self) -> Spec:
        if (self.roles.reward.parallel.cp or 1) > 1:
            message = "cp cuts a text over GPUs, but its marks are read from the whole text"
            raise conflict(message, "roles.reward.parallel.cp", "remove `cp`; use tp or recompute")
        if self.annotate.attributes:
            message = "the attributes are those of `steerlm`"
            raise conflict(message, "annotate.attributes", "say steerlm: {attributes: [...]}")
        return self


def lower(spec: Spec, name: str) -> list[Stage]:
    """The four steps, and the rounds."""
    return _Steps(spec, name).stages()


def stands_in(stage: Mapping[str, Any]) -> str:
    """The form of generated rows that take the place of a data set which is not here."""
    return "steerlm"


def smaller(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What the twin has instead, beside what all have: the training of the model of attributes is like the
    policy's.
    """
    most = {"steps": 10, "global_batch": 4, "seq_length": 512, "warmup_steps": 1, "constant_steps": 2}
    most |= {"validate_every": 5, "save_every": 5}
    train = stage["roles"]["reward"].get("train") or {}
    few = {key: limit for key, limit in most.items() if (train.get(key) or 0) > limit}
    few |= {"steps": min(train.get("steps") or most["steps"], most["steps"]), "micro_batch": None}
    found: dict[str, Any] = {f"roles.reward.train.{key}": value for key, value in few.items()}
    rounds = min(stage["steerlm"]["rounds"], 2)  # of answers by a model that has not learnt to end
    return found | {"steerlm.rounds": rounds, "steerlm.truncated": "keep", "steerlm.least": {}}


class _Steps:
    """The stages of one section."""

    def __init__(self, spec: Spec, name: str) -> None:
        self.spec, self.name = spec, name
        self.asking: dict[str, Any] = {"plan": spec.plan, "precision": spec.precision}

    def stages(self) -> list[Stage]:
        """All of them, in order."""
        data = self.spec.data
        found = [self.prepared("marks", data.marks, {"form": "regression"}, "data.marks")]
        if data.marks_validation:
            where = "data.marks_validation"
            found.append(
                self.prepared("marks-validation", data.marks_validation, {"form": "regression"}, where)
            )
        found += [self.reward(), self.annotated("annotate", data.train, "data.train")]
        if data.validation:
            found.append(self.annotated("annotate-validation", data.validation, "data.validation"))
        found.append(self.trained("train", "annotate", self.spec.roles.actor.model, self.spec.sft))
        for number in range(1, self.spec.steerlm.rounds + 1):
            found += self.round(number)
        return found

    def round(self, number: int) -> list[Stage]:
        """One round of bootstrapping."""
        said, part = self.spec.steerlm, f"{number}-"
        before = self.named("train" if number == 1 else f"{number - 1}-train")
        where = "data.prompts" if self.spec.data.prompts else "data.train"
        prompts = self.spec.data.prompts or self.spec.data.train
        answers = {"form": "answers", "truncated": said.truncated}
        found = [
            self.prepared(f"{part}ask", prompts, {"form": "ask", "label": said.asked}, where),
            self.generated(part, before),
            self.prepared(f"{part}answers", _made(self.named(f"{part}generate")), answers),
            self.annotated(f"{part}annotate", _made(self.named(f"{part}answers"))),
        ]
        learnt = f"{part}annotate"
        if said.least:
            rows = _made(self.named(learnt))
            found.append(self.prepared(f"{part}keep", rows, {"form": "keep", "least": said.least}))
            learnt = f"{part}keep"
        policy = Model.model_validate({"from": before})
        own = self.spec.sft.model_copy(update={"turns": said.turns})
        return [*found, self.trained(f"{part}train", learnt, policy, own)]

    def named(self, what: str) -> str:
        return f"{self.name}-{what}"

    def lowered(self, own: Any, name: str, where: Mapping[str, str]) -> Stage:
        """The stage of a spec of another algorithm, with the time and environment of this one."""
        common = {"time": self.spec.time, "env": self.spec.env}
        return lower_as(own.model_copy(update=common), name, where)

    def prepared(self, what: str, rows: Rows, own: dict[str, Any], where: str = "") -> Stage:
        """A clerk that brings rows into another form."""
        names = self.spec.steerlm.names if own["form"] == "regression" else ()
        said = prepare.Prepare.model_validate({**own, "attributes": list(names)})
        data = RowsData(rows=rows)
        made = prepare.Spec(algorithm="prepare", data=data, prepare=said)
        return self.lowered(made, self.named(what), {"data.rows": where} if where else {})

    def reward(self) -> Stage:
        """The training of the model of attributes."""
        role, has = self.spec.roles.reward, self.spec.data.marks_validation
        validation = Judged.model_validate({"from": self.named("marks-validation")}) if has else None
        train = Judged.model_validate({"from": self.named("marks")})
        batches = {"micro_batch": role.micro_batch} if role.micro_batch else {}
        own = reward.Spec(
            algorithm="reward",
            model=role.model,
            data=JudgedData(train=train, validation=validation),
            train=role.train.model_copy(update=batches),
            reward=Reward(loss="regression", attributes=self.spec.steerlm.names, add_eos=False),
            nodes=role.nodes,
            gpus=role.gpus,
            parallel=role.parallel,
            export=False,
            **self.asking,
        )
        where = {"train": "roles.reward.train", **at_role("reward", role)}
        return self.lowered(own, self.named("reward"), where)

    def annotated(self, what: str, rows: Rows, where: str = "") -> Stage:
        """Marks for conversations; on one machine or more, as the planner sees fit."""
        own = annotate.Spec(
            algorithm="annotate",
            model=Model.model_validate({"from": self.named("reward")}),
            data=RowsData(rows=rows),
            annotate=self.spec.annotate,
            **self.asking,
        )
        return self.lowered(own, self.named(what), {"data.rows": where} if where else {})

    def trained(self, what: str, rows: str, policy: Model, own: Sft) -> Stage:
        """The training of the policy."""
        spec, role = self.spec, self.spec.roles.actor
        train = Dataset.model_validate({"from": self.named(rows), "format": "chat"})
        validation = None
        if spec.data.validation:
            made = {"from": self.named("annotate-validation"), "format": "chat"}
            validation = Dataset.model_validate(made)
        batches = {"micro_batch": role.micro_batch} if role.micro_batch else {}
        made = sft.Spec(
            algorithm="sft",
            model=policy,
            data=Data(train=train, validation=validation),
            train=spec.train.model_copy(update=batches),
            sft=own,
            nodes=role.nodes,
            gpus=role.gpus,
            parallel=role.parallel,
            export=spec.export,
            **self.asking,
        )
        return self.lowered(made, self.named(what), at_role("actor", role))

    def generated(self, part: str, policy: str) -> Stage:
        """The policy's answers, with the marks asked for."""
        spec, role = self.spec, self.spec.roles.actor
        ask = {"prompts": [{"from": self.named(f"{part}ask"), "format": "chat"}]}
        said = spec.generate if spec.generate.stop else spec.generate.model_copy(update={"stop": (END,)})
        own = generate.Spec(
            algorithm="generate",
            model=Model.model_validate({"from": policy}),
            data=AskedData.model_validate(ask),
            generate=said,
            nodes=role.nodes,
            gpus=role.gpus,
            **self.asking,
        )
        return self.lowered(own, self.named(f"{part}generate"), at_role("actor"))


def _made(stage: str) -> Rows:
    """Rows of another stage."""
    return Rows.model_validate({"from": stage})
