"""Proximal policy optimisation (arXiv:1707.06347) with a KL to the first policy, after arXiv:2203.02155.

    ratio_t = exp(log p_new - log p_old);   A from GAE on rewards shaped by KL
    L_actor  = mean_t max(-A ratio, -A clip(ratio, 1 - c, 1 + c))  [- entropy bonus] [+ KL]
    L_critic = 1/2 mean_t max((V - R)^2, (V_old + clip(V - V_old, -v, v) - R)^2)

Means run over all response tokens of an optimizer step, over all microbatches and ranks, unless
`average: micro_batch`. Old log-probabilities come from the training forward on the very microbatches of the
first pass, so the first ratio of a step is exactly 1. The reference is the first policy's weights in the
same model. Advantages are whitened over the whole step.

Left out: the value of a response that was cut is not bootstrapped; `truncated` says what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from runtime.advantages import (
    Estimator,
    adapted_coefficient,
    gae,
    kl_estimate,
    shaped_rewards,
    whitened,
)
from runtime.batch import Batch, Sample
from runtime.dealing import Deal, by_sample, deal, gathered, padded
from runtime.judges import Answers, Lesson
from runtime.rollouts import Rollout
from runtime.schedule import learning_rate
from runtime.tensors import masked_sum

if TYPE_CHECKING:
    from runtime.engine import Engine
    from runtime.run import Run


SHOWN = 4
"""Rollouts of a step that are written down for people."""


@dataclass(frozen=True)
class Settings:
    """The sections `ppo` and `ppo.kl` of the plan."""

    rollouts: int = 128  # responses of a step
    epochs: int = 1  # passes over them
    kl: float = 0.05
    kl_estimator: Estimator = "k1"
    kl_in: str = "reward"  # reward | loss
    kl_target: float = 0.0  # 0: the coefficient is fixed
    kl_horizon: int = 10000
    clip: float = 0.2
    dual_clip: float = 0.0  # 0: off
    value_clip: float = 0.2  # 0: off
    discount: float = 1.0
    gae_lambda: float = 0.95
    entropy: float = 0.0
    whiten: bool = True
    average: str = "global"  # global | micro_batch
    truncated: str = "mask"  # mask | mask_actor | keep
    truncated_score: float | None = None  # of a response that was cut, instead of the judge's
    critic_warmup_steps: int = 0
    max_kl: float = 0.0  # 0: off; above it the rest of a step's passes is left out


@dataclass(frozen=True)
class Experience:
    """A step's rollouts and what was said of them; row i of a tensor [N, T] is rollout i, fp64."""

    rollouts: list[Rollout]
    answers: Answers
    mask_NT: Tensor  # response columns
    old_NT: Tensor
    reference_NT: Tensor
    advantages_NT: Tensor
    returns_NT: Tensor
    shaped_NT: Tensor
    counts_NT: Tensor  # 1 where the actor's loss counts

    @property
    def scores_N(self) -> Tensor:
        return torch.tensor([self.answers.scores[r.id] for r in self.rollouts], dtype=torch.float64)


# ── the formulas ─────────────────────────────────────────────────────────────────────────────────


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip: float, dual_clip: float = 0.0) -> Tensor:
    """max(-A r, -A clip(r)); with `dual_clip` c > 1, at most -c A where A < 0 (arXiv:1912.09729, eq. 5)."""
    losses = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    if dual_clip:
        losses = torch.where(advantages < 0, torch.minimum(losses, -dual_clip * advantages), losses)
    return losses


def value_losses(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """1/2 max((V - R)^2, (V_old + clip(V - V_old) - R)^2); without a clip, 1/2 (V - R)^2."""
    squares = (values - returns).square()
    if clip:
        held = old + (values - old).clamp(-clip, clip)
        squares = torch.maximum(squares, (held - returns).square())
    return squares / 2


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(R - V) / Var(R) over the mask; 0 where the returns do not vary."""
    returns, rest = returns[mask > 0], (returns - values)[mask > 0]
    spread = float(returns.var(unbiased=False)) if len(returns) else 0.0
    return 1.0 - float(rest.var(unbiased=False)) / spread if spread > 0 else 0.0


# ── the step ─────────────────────────────────────────────────────────────────────────────────────


def step(run: Run) -> dict[str, Any]:
    """One step: responses, judgements, advantages; then the critic and the actor learn."""
    settings = run.program_settings(Settings)
    coefficient = run.carried.get("kl_coefficient", settings.kl)
    warmups = settings.critic_warmup_steps if run.step == 0 else 0
    for turn in range(warmups):  # on the same prompts with other random numbers: none is used up
        experience = experienced(run, settings, coefficient, draw=-1 - turn)
        run.online.judges.teach(lessons(experience, settings), step=-1 - turn)
        run.online.judges.taught()

    experience = experienced(run, settings, coefficient, draw=run.step)
    run.online.judges.teach(lessons(experience, settings), step=run.step)
    with run.part("actor"):
        learnt = improved(run, settings, experience, coefficient)
    with run.part("critic"):
        critic = run.online.judges.taught()
    told = said_of(experience)
    if settings.kl_target:
        count = len(experience.rollouts)
        run.carried["kl_coefficient"] = adapted_coefficient(
            coefficient, told["kl"], settings.kl_target, settings.kl_horizon, count
        )
    run.show(rows_of(run, experience))
    return {**learnt, **told, **critic, "kl_coefficient": coefficient}


ActorLoss = Callable[..., tuple[Tensor, dict[str, Tensor]]]
"""A microbatch's share of the actor's loss, called as `loss` is."""

Judging = Callable[..., "Experience"]
"""How scores become advantages: `judged`, or that of an algorithm with another baseline."""


def experienced(
    run: Run, settings: Settings, coefficient: float, draw: int, judging: Judging | None = None
) -> Experience:
    """Roll out, ask, and turn scores into advantages."""
    prompts = [sample for line in run.data.bins(run.step) for sample in line]
    with run.part("offload"):
        run.online.rest()
    with run.part("generate"):
        rollouts = run.online.roll_out(prompts, draw)
    with run.part("logprobs"):
        shares = [dealt(run, part) for part in parts(rollouts, run, settings, epoch=0)]
        old = logprobs(run, shares)
        with run.online.reference() as engine:
            reference = logprobs(run, shares, engine)
    with run.part("judge"):
        answers = cut_short(rollouts, run.online.judges.answers(rollouts), settings)
    return (judging or judged)(rollouts, answers, old, reference, settings, coefficient)


def cut_short(rollouts: Sequence[Rollout], answers: Answers, settings: Settings) -> Answers:
    """The answers, with the score that a response which was cut gets in any case, if there is one."""
    if settings.truncated_score is None:
        return answers
    cut = {r.id: settings.truncated_score for r in rollouts if not r.ended}
    return replace(answers, scores=answers.scores | cut)


def judged(
    rollouts: list[Rollout],
    answers: Answers,
    old: Mapping[int, np.ndarray],
    reference: Mapping[int, np.ndarray],
    settings: Settings,
    coefficient: float,
) -> Experience:
    """Rewards, advantages and returns of a step, in fp64 over the whole batch."""
    mask_NT = padded([[0] * (len(r.prompt) - 1) + [1] * len(r.response) for r in rollouts])
    width = mask_NT.size(1)
    old_NT = padded([old[r.id] for r in rollouts], width)
    reference_NT = padded([reference[r.id] for r in rollouts], width)
    values_NT = padded([answers.values.get(r.id, ()) for r in rollouts], width)
    scores_N = torch.tensor([answers.scores[r.id] for r in rollouts], dtype=torch.float64)
    kl_NT = kl_estimate(old_NT, reference_NT, settings.kl_estimator)
    in_reward = coefficient if settings.kl_in == "reward" else 0.0
    shaped_NT = shaped_rewards(scores_N, kl_NT, mask_NT, in_reward)
    advantages_NT, returns_NT = gae(shaped_NT, values_NT, mask_NT, settings.discount, settings.gae_lambda)
    ended_N1 = torch.tensor([[float(r.ended)] for r in rollouts], dtype=torch.float64)
    counts_NT = mask_NT if settings.truncated == "keep" else mask_NT * ended_N1
    if settings.whiten:
        advantages_NT = whitened(advantages_NT, mask_NT)
    return Experience(
        rollouts, answers, mask_NT, old_NT, reference_NT, advantages_NT, returns_NT, shaped_NT, counts_NT
    )


def lessons(experience: Experience, settings: Settings) -> list[Lesson]:
    """What the critic learns: the returns of all responses, or of those that ended."""
    mask_NT = experience.counts_NT if settings.truncated == "mask" else experience.mask_NT
    found = []
    for i, rollout in enumerate(experience.rollouts):
        size = len(rollout.tokens) - 1
        values = experience.answers.values.get(rollout.id)
        if values is not None:
            returns, mask = experience.returns_NT[i, :size].numpy(), mask_NT[i, :size].numpy()
            found.append(Lesson(rollout, returns, np.asarray(values, np.float64), mask))
    return found


def improved(
    run: Run, settings: Settings, experience: Experience, coefficient: float, of: ActorLoss | None = None
) -> dict[str, Any]:
    """The actor's optimizer steps over a step's rollouts; means of what each of them said."""
    samples = {sample.id: sample for sample in learnable(experience)}
    said: list[dict[str, float]] = []
    updates = settings.epochs * -(-len(experience.rollouts) // run.role.global_batch)
    for epoch in range(settings.epochs):
        for part in parts(experience.rollouts, run, settings, epoch):
            done = run.step * updates + len(said)
            rate = learning_rate(done, run.max_steps * updates, run.train)
            said.append(update(run, settings, [samples[r.id] for r in part], coefficient, rate, of or loss))
            if settings.max_kl and said[-1]["policy_kl"] > settings.max_kl:
                return means(said)
    return means(said)


def update(
    run: Run, settings: Settings, samples: list[Sample], coefficient: float, rate: float, of: ActorLoss
) -> dict[str, float]:
    """One optimizer step on the loss `of`."""
    share = deal(samples, run.table())
    counted = sum(float(np.sum(sample.extra["counts"])) for sample in samples)
    how = partial(of, settings=settings, coefficient=coefficient, denominator=max(counted, 1.0))
    if settings.average == "micro_batch":
        how = partial(how, means_of=len(share.microbatches) * run.role.layout.dp)
    sums = run.model.forward_backward(share.microbatches, how, entropy=bool(settings.entropy))
    found = run.model.optim_step(rate)
    count = max(counted, 1.0)
    named = {
        name: sums[name] / count
        for name in ("policy_kl", "clip_fraction", "ratio", "entropy")
        if name in sums
    }
    return {"loss": sums["loss"], **found, **named, "lr": rate}


def loss(
    output: Tensor,
    batch: Batch,
    *,
    settings: Settings,
    coefficient: float,
    denominator: float,
    means_of: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """This microbatch's share of the actor's loss. `output` is log-probs [B, T], or those and entropies
    [B, T, 2]. With `means_of` the share is the mean of this microbatch, divided by that many.
    """
    logprobs_BT, entropy_BT = (output[..., 0], output[..., 1]) if output.dim() == 3 else (output, None)
    counts_BT = batch.extra["counts"]
    # where nothing counts, old and new may differ without bound, and exp of that is no number
    change_BT = (logprobs_BT - batch.extra["old"]).masked_fill(counts_BT == 0, 0.0)
    ratio_BT = change_BT.exp()
    losses_BT = clipped_surrogate(ratio_BT, batch.extra["advantages"], settings.clip, settings.dual_clip)
    if settings.kl_in == "loss" and coefficient:
        losses_BT = losses_BT + coefficient * kl_estimate(
            logprobs_BT, batch.extra["reference"], settings.kl_estimator
        )
    if entropy_BT is not None:
        losses_BT = losses_BT - settings.entropy * entropy_BT
    if means_of:
        denominator = max(float(counts_BT.sum()), 1.0) * means_of
    clipped_BT = (ratio_BT - 1).abs() > settings.clip
    named = {
        "policy_kl": -masked_sum(change_BT, counts_BT),  # k1 of the old to the new policy
        "clip_fraction": masked_sum(clipped_BT.float(), counts_BT),
        "ratio": masked_sum(ratio_BT, counts_BT),
    }
    if entropy_BT is not None:
        named["entropy"] = masked_sum(entropy_BT, counts_BT)
    return masked_sum(losses_BT, counts_BT) / denominator, {k: v.detach() for k, v in named.items()}


def critic_loss(
    values_BTO: Tensor, batch: Batch, *, clip: float, denominator: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """This microbatch's share of the critic's loss."""
    values_BT, mask_BT = values_BTO[..., 0], batch.extra["counts"]
    losses_BT = value_losses(values_BT, batch.extra["values"], batch.extra["returns"], clip)
    clipped_BT = (values_BT - batch.extra["values"]).abs() > (clip or float("inf"))
    named = {"value_clip_fraction": masked_sum(clipped_BT.float(), mask_BT)}
    return masked_sum(losses_BT, mask_BT) / denominator, named


# ── inside ───────────────────────────────────────────────────────────────────────────────────────


def parts(rollouts: Sequence[Rollout], run: Run, settings: Settings, epoch: int) -> list[list[Rollout]]:
    """The rollouts of each optimizer step of a pass, in an order drawn from seed, step and pass."""
    size = run.role.global_batch
    order = np.random.Generator(np.random.PCG64([run.plan.seed, run.step, epoch])).permutation(len(rollouts))
    return [[rollouts[i] for i in order[start : start + size]] for start in range(0, len(order), size)]


def dealt(run: Run, rollouts: Sequence[Rollout]) -> Deal:
    return deal([rollout.sample() for rollout in rollouts], run.table())


def logprobs(run: Run, shares: Sequence[Deal], engine: Engine | None = None) -> dict[int, np.ndarray]:
    """log p of every label of every rollout, by id, on every rank; each part is passed as it is trained."""
    own: dict[int, np.ndarray] = {}
    for share in shares:
        own |= by_sample((engine or run.model).forward(share.microbatches, "logprobs"), share)
    return gathered(own, run.model.parallel.groups.dp)


def learnable(experience: Experience) -> list[Sample]:
    """The rollouts with all that the loss needs on each column."""
    found = []
    for i, rollout in enumerate(experience.rollouts):
        size = len(rollout.tokens) - 1
        extra = {
            "old": experience.old_NT[i, :size].numpy(),
            "reference": experience.reference_NT[i, :size].numpy(),
            "advantages": experience.advantages_NT[i, :size].numpy(),
            "counts": experience.counts_NT[i, :size].numpy(),
        }
        found.append(rollout.sample(extra))
    return found


def said_of(experience: Experience) -> dict[str, float]:
    """What is logged of a step's rollouts."""
    rollouts, mask = experience.rollouts, experience.mask_NT
    count = float(mask.sum().clamp(min=1))
    scores = experience.scores_N
    change = (experience.old_NT - experience.reference_NT) * mask
    sampled = padded([[*[0.0] * (len(r.prompt) - 1), *r.sampled] for r in rollouts], mask.size(1))
    # samplers say the model's own log-probabilities, also where a stop token was out of reach
    early = padded([r.sample().extra.get("early", ()) for r in rollouts], mask.size(1))
    named = {
        "reward": float(scores.mean()),
        "reward_std": float(scores.std(unbiased=False)),
        "shaped_reward": float((experience.shaped_NT * mask).sum() / len(rollouts)),
        "kl": float(change.sum() / count),
        "response_length": sum(len(r.response) for r in rollouts) / len(rollouts),
        "ended": sum(r.ended for r in rollouts) / len(rollouts),
        "sampler_gap": float(((sampled - experience.old_NT).abs() * mask * (1 - early)).sum() / count),
        "rollouts": len(rollouts),
        "tokens": sum(len(r.tokens) for r in rollouts),
    }
    if experience.answers.values:
        values = experience.returns_NT - _raw_advantages(experience)
        named["explained_variance"] = explained_variance(values, experience.returns_NT, mask)
    return named


def _raw_advantages(experience: Experience) -> Tensor:
    values = padded(
        [experience.answers.values[r.id] for r in experience.rollouts], experience.mask_NT.size(1)
    )
    return (experience.returns_NT - values) * experience.mask_NT


def means(said: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric; the rate is the last one."""
    found = {name: sum(one[name] for one in said) / len(said) for name in said[0]}
    return found | {"lr": said[-1]["lr"], "optimizer_steps": len(said)}


def rows_of(run: Run, experience: Experience) -> list[dict[str, Any]]:
    """The first few rollouts as texts, for people."""
    return [
        {
            "step": run.step + 1,
            "prompt": run.online.text(rollout.prompt),
            "response": run.online.text(rollout.response),
            "reward": experience.answers.scores[rollout.id],
            "finish": rollout.finish,
        }
        for rollout in experience.rollouts[:SHOWN]
    ]


def evaluate(run: Run) -> dict[str, float]:
    """Mean score and length of the validation prompts' responses, and the share a verifier calls right."""
    assert run.validation is not None
    prompts = [sample for bins in run.validation.batches() for line in bins for sample in line]
    rollouts = run.online.roll_out(prompts, draw=0, validation=True)
    said = run.online.judges.answers(rollouts)
    answers = cut_short(rollouts, said, run.program_settings(Settings))
    scores = [answers.scores[r.id] for r in rollouts]
    found = {
        "validation_reward": sum(scores) / len(scores),
        "validation_response_length": sum(len(r.response) for r in rollouts) / len(rollouts),
    }
    if (right := run.online.right) is not None:
        found["validation_right"] = sum(said.scores[r.id] == right for r in rollouts) / len(rollouts)
    return found


BEST = ("validation_reward", False)
"""The metric that the best checkpoint is chosen by, and whether less of it is better."""
