"""Proximal policy optimisation: an actor answers, a reward model scores, a critic says what to expect.

What goes out is one stage of two to four roles. What its settings and roles mean to the runtime:

Roles, and where they live
    role       learns  head                group when apart   group when `placement: local`
    actor      yes     language            actor              actor
    critic     yes     scalar per token    critic             actor
    reward     no      scalar, attributes  critic (combined)  actor
                                           or reward
    reference  no      language            actor              actor
`Role.group` names the processes: one het group under Slurm, one torchrun here. `Job.groups` gives them in
order, the actor's first: its end is the job's. The program of a group is that of its first role: `ppo` for
the actor's, `serve` for the others, which answer and learn on request. Roles of one group are on the same
nodes and GPUs. A role whose `swaps_with` names another has that one's shape and layout: its weights wait in
the host's memory and trade places with the other's while it is asked. Otherwise it is a model of its own.
`trains` says who has an optimizer, `offload_optimizer` whose state waits on the host while none is trained,
`rows` how many responses each replica generates at once. There is no role `reward` when a function scores.

Settings of the job, each complete
    train      of the actor, as for every program: `steps` are PPO steps (rollout and all), `epochs` passes
               over the prompts (0: by steps). The rate's schedule counts PPO steps too. The role's own
               `global_batch` is rows per optimizer step
    ppo        the fields of `ppo` and `ppo.kl` flat: kl, kl_estimator, kl_in, kl_target, kl_horizon, ...
    generate   the sampling and the engine; `max_prompt_tokens` is said
    critic     {train: as `train`, epochs}: its own rates, and its passes over a step where it is not one
    reward     {function, merge, standardise, mean, std, clip}; `function` is "" for a model.
               `merge` is by attribute of the role's model, {} where that model's `output.json` says
    serve      {batch: rows of one request, timeout_seconds, start_timeout_seconds}: requests are cut by index
Data: `prompts` and `validation`, both rows of prompts.

Batches: a step takes `rollouts` prompts. Each rank of the actor gets rollouts / DP of them; the optimizer
takes global_batch rows at a time, so rollouts is a multiple of both roles' global_batch. A request holds
`serve.batch` rows, of which each replica of the far side passes micro_batch at a time.

Defaults are NeMo-Aligner's and the tutorials', but where sound practice differs: KL is k1, not its absolute
value; means run over the whole global batch; responses that were cut do not teach either model (`truncated`).
The old ones: kl.estimator: absolute, average: micro_batch, truncated: mask_actor.
Papers: arXiv:1707.06347 (PPO), 2203.02155 (InstructGPT), 2405.01481 (NeMo-Aligner).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from specc.graph import (
    Artifact,
    Stage,
    StageRole,
    model_source,
    placed_role,
    rows_data,
    rows_inputs,
    train_settings,
)
from specc.spec.online import OnlineSpec
from specc.spec.roles import Actor, Critic, Reference, Scorer, as_data
from specc.spec.section import Section, maths, maths_fields
from specc.spec.section import placement as placed
from specc.spec.train import Train
from specc.spec.units import conflict

SERVE = "serve"


class Kl(Section):
    """What it costs the actor to move away from the reference."""

    coefficient: float = maths(0.02, ge=0, le=10**3)
    """Weight of the KL divergence; 0 needs no reference."""

    estimator: Literal["k1", "k2", "k3", "absolute"] = maths("k1")
    """Of the log ratio d to the reference at a token: k1 = d (unbiased), k2 = d^2 / 2, k3 = e^-d - 1 + d
    (never below 0), absolute = |d| (biased; what older implementations do)."""

    where: Literal["reward", "loss"] = maths("reward")
    """Taken from the reward of each token, or added to the actor's loss, where k2 and k3 have the right
    gradient."""

    target: float = maths(0.0, ge=0, le=10**3)
    """KL per token that the coefficient is adapted to; 0 keeps it fixed."""

    horizon: int = maths(10000, ge=1, le=10**9)
    """Rollouts over which an adapted coefficient follows."""


class Ppo(Section):
    """One step: rollouts, rewards, advantages, then passes over them in optimizer steps."""

    rollouts: int = maths(512, ge=1, le=10**7)
    """Responses of one step, each to a prompt of its own."""

    epochs: int = maths(1, ge=1, le=1000)
    """Passes over the rollouts of a step."""

    kl: Kl = maths(Kl())
    """What it costs to move away from the reference."""

    clip: float = maths(0.2, gt=0, le=10)
    """Change of a token's probability, as a ratio, beyond which nothing more is gained."""

    dual_clip: float = maths(0.0, ge=0, le=10**3)
    """Bound of the loss where the advantage is negative, in advantages (3 is common); 0 for none."""

    value_clip: float = maths(0.2, ge=0, le=10**6)
    """Change of the critic's value in a step beyond which nothing more is gained; 0 for no limit."""

    discount: float = maths(1.0, ge=0, le=1)
    """Worth of a reward one token later."""

    gae_lambda: float = maths(0.95, ge=0, le=1)
    """Weight of later tokens in an advantage: 0 trusts the critic, 1 the rewards."""

    entropy: float = maths(0.0, ge=0, le=10**3)
    """Bonus for the entropy of the next token."""

    whiten: bool = maths(True)
    """Shift and scale advantages to mean 0 and deviation 1, over all response tokens of the step."""

    average: Literal["global", "micro_batch"] = maths("global")
    """What a loss is the mean over: all response tokens of the optimizer step, or first each micro-batch by
    itself, as older implementations do; then tokens of short responses weigh more."""

    truncated: Literal["mask", "mask_actor", "keep"] = maths("mask")
    """What a response that was cut at `max_tokens` teaches: nothing, the critic only (as in older
    implementations), or as much as any other."""

    truncated_score: float | None = maths(None, ge=-(10**6), le=10**6)
    """Score of a response that was cut, instead of the reward model's; left out, the reward model's."""

    critic_warmup_steps: int = maths(0, ge=0, le=10**6)
    """Rounds of rollouts before the first step on which the critic alone learns; no prompt is used up."""

    max_kl: float = maths(0.0, ge=0, le=10**3)
    """KL from the old to the new policy, per token, above which the rest of a step's passes is left out; 0
    for no limit."""

    @model_validator(mode="after")
    def _dual_clip_is_above_one(self) -> Ppo:
        if 0 < self.dual_clip <= 1:
            message = f"dual_clip {self.dual_clip:g} is not above 1, so it would undo the clip"
            raise conflict(message, "dual_clip", "use dual_clip: 3, or 0 for none")
        if self.kl.target and not self.kl.coefficient:
            message = "a coefficient of 0 cannot be adapted"
            raise conflict(message, "kl.coefficient", "use kl: {coefficient: 0.02}, or remove `target`")
        return self


class Roles(Section):
    """The four models."""

    actor: Actor = maths()
    """The model that learns to answer."""

    critic: Critic = maths(Critic())
    """The model that says what a text so far is worth."""

    reward: Scorer = maths()
    """What scores an answer."""

    reference: Reference = maths(Reference())
    """The policy that the actor shall not move far away from."""


class Spec(OnlineSpec):
    """Proximal policy optimisation."""

    algorithm: Literal["ppo"] = maths()
    """`ppo`."""

    roles: Roles = maths()
    """The models, where they run, and how each learns."""

    ppo: Ppo = maths(Ppo())
    """Rollouts, rewards and losses."""

    combine: bool = placed(True)
    """Critic and reward model share one server; otherwise each has its own."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage: actor, critic, and what of reward model and reference there is."""
    kl = spec.ppo.kl
    adapted = {"kl_in": kl.where, "kl_target": kl.target, "kl_horizon": kl.horizon}
    return online_stages(spec, name, adapted)


def online_stages(spec: OnlineSpec, name: str, more: Mapping[str, Any]) -> list[Stage]:
    """The stage of any algorithm of this kind; `more` stands in its own section as it is."""
    trains = {
        role: getattr(spec.roles, role).train.over(spec.train, f"roles.{role}.train") for role in spec.batches
    }
    roles = _roles(spec)
    inputs = [
        Artifact("checkpoint", *source, path=f"{role.paths['model']}.from")
        for role in roles
        if (source := model_source(role.model)) is not None
    ]
    sets = {f"data.{use}": getattr(spec.data, use) for use in ("prompts", "validation")}
    return [
        Stage(
            name=name,
            algorithm=spec.algorithm,
            roles=roles,
            settings={
                "train": train_settings(trains["actor"]),
                spec.algorithm: _flat(spec.own) | dict(more),
                "generate": _generate(spec),
                **({"critic": _critic(spec.critic, trains["critic"])} if spec.critic else {}),
                "reward": _reward(spec),
                "serve": {"batch": 0, "timeout_seconds": 3600, "start_timeout_seconds": 3600},
            },
            data={
                "prompts": rows_data(spec.data.prompts),
                "validation": rows_data(spec.data.validation),
            },
            inputs=(*dict.fromkeys(inputs), *rows_inputs(sets)),
            identity=maths_fields(spec),
            time_seconds=spec.time,
            env=dict(spec.env),
            export=spec.export,
            placement="hetjob" if spec.placement == "local" else spec.placement,
        )
    ]


def _roles(spec: OnlineSpec) -> tuple[StageRole, ...]:
    """The roles, a group's first role before its guests."""
    roles, guests = spec.roles, spec.guests
    actor = as_data(roles.actor.model)
    reward = as_data(roles.reward.model) if roles.reward.model else None
    found = [_role(spec, "actor", actor, head="language", trains=True)]
    if spec.critic:
        own = spec.critic.model
        where = "critic" if own else "reward" if reward else "actor"
        critic = as_data(own) if own else reward or actor
        path = f"roles.{where}.model"
        found.append(_role(spec, "critic", critic, head="scalar", trains=True, model_path=path))
    if reward is not None:
        head = "attributes" if roles.reward.attributes else "scalar"
        scorer = _role(spec, "reward", reward, head=head)
        found.append(
            dataclasses.replace(scorer, attributes=roles.reward.attributes, takes_head=head == "scalar")
        )
    if spec.has_reference:
        own = roles.reference.model
        where = "roles.reference.model" if own else "roles.actor.model"
        found.append(
            _role(spec, "reference", as_data(own) if own else actor, head="language", model_path=where)
        )
    order = list(dict.fromkeys(guests.get(role.name, role.name) for role in found))
    return tuple(sorted(found, key=lambda role: order.index(guests.get(role.name, role.name))))


def _role(
    spec: OnlineSpec, name: str, model: dict[str, Any], head: str, trains: bool = False, model_path: str = ""
) -> StageRole:
    said = getattr(spec.roles, name)
    group = spec.guests.get(name, name)
    generate = spec.generate
    role = placed_role(
        said,
        name,
        spec.algorithm if group == "actor" else SERVE,
        model,
        spec.plan,
        spec.precision,
        at=f"roles.{name}.",
    )
    prompt, response = generate.prompt_tokens(spec.train.seq_length), generate.max_tokens
    return dataclasses.replace(
        role,
        head=head,
        trains=trains,
        group=group,
        micro_batch=said.micro_batch or spec.train.micro_batch,
        global_batch=spec.batches.get(name, spec.own.rollouts),
        seq_length=spec.train.seq_length,
        weights=getattr(said, "weights", None),
        offload_optimizer=getattr(said, "offload_optimizer", None) if trains else False,
        prompt_tokens=prompt,
        response_tokens=response,
        parallel={**role.parallel, "cp": 1},
        paths={
            **{key: path for key, path in role.paths.items() if key != "cp"},
            "model": model_path or f"roles.{name}.model",
            "weights": f"roles.{name}.weights",
            "placement": "placement",
            "micro_batch": f"roles.{name}.micro_batch" if said.micro_batch else "train.micro_batch",
            "global_batch": _batch_path(spec, name),
            "seq_length": "train.seq_length",
        },
    )


def _batch_path(spec: OnlineSpec, name: str) -> str:
    if name not in spec.batches:
        return f"{spec.algorithm}.rollouts"
    said = getattr(spec.roles, name).train.global_batch is not None
    return f"roles.{name}.train.global_batch" if said else "train.global_batch"


def _flat(own: Any) -> dict[str, Any]:
    """The section as the runtime reads it: flat."""
    said = own.model_dump(mode="json", exclude={"kl"})
    return said | {"kl": own.kl.coefficient, "kl_estimator": own.kl.estimator}


def _generate(spec: OnlineSpec) -> dict[str, Any]:
    said = spec.generate.model_dump(mode="json")
    return said | {"max_prompt_tokens": spec.generate.prompt_tokens(spec.train.seq_length)}


def _critic(critic: Critic, train: Train) -> dict[str, Any]:
    passes = {"epochs": critic.epochs} if critic.epochs else {}
    return {"train": train_settings(train)} | passes


def _reward(spec: OnlineSpec) -> dict[str, Any]:
    reward = spec.roles.reward
    return {
        "function": reward.function or "",
        "merge": dict(reward.merge),
        "standardise": reward.standardise,
        "mean": reward.mean,
        "std": reward.std,
        "clip": reward.clip,
    }
