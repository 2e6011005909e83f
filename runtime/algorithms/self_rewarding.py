"""Self-rewarding (arXiv:2401.10020) and meta-rewarding (arXiv:2407.19594): one iteration of a model that
writes responses, judges them itself, and learns to prefer the better ones.

    for every prompt of a step:
        N responses, K judgements of each, all by the reference: the weights that the iteration began with
        score = mean of the judgements; chosen and rejected of the N by score, length or certainty
    one update on the pairs:  preference_weight * L(d) + sft_weight * -log pi(chosen)

A bad pair (nothing to tell apart) keeps its place in the batch with nothing to learn: it counts in every
mean, with log 2 in the loss. With `meta_fraction`, judgements are judged too, and pairs of them take the
place of bad pairs and of some good ones; they wait in `run.carried`, so a run that was killed goes on with
them. As they have no score of their own, losses that want rewards get 1 for the better one and 0.

The order of rows goes on over the iterations, as do the random numbers: step k of iteration i is step
(i - 1) max_steps + k. Each iteration has its own schedule and a fresh optimizer.

Otherwise than in NeMo-Aligner: the response's columns are p - 1 to n - 2 and not one later; a question that
does not fit leaves a response without a score, where there another text was judged in its place; the score
is the last match of the pattern, and not the first; verdicts know whose they are (`runtime.meta_judging`);
what is logged as a reward is multiplied by beta, as its guide says.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from runtime.algorithms import dpo, sft
from runtime.batch import Batch, Sample, data_hash, dealt
from runtime.choosing import choose
from runtime.dealing import Table
from runtime.judging import Question, Scale
from runtime.jury import JUDGEMENTS, VERDICTS, Judged, Jury, judging_of
from runtime.meta_judging import (
    Battle,
    Group,
    Pair,
    Share,
    battles_of,
    limit_of,
    outcomes,
    pair_of,
    rated,
    replaces,
    uneven,
    verdict,
)
from runtime.scoring import function_of

if TYPE_CHECKING:
    from runtime.run import Run

SHOWN = 4
"""Pairs that are written down for people at a validation."""
CHOICE, PLACE = 1, 2
"""Streams of random numbers beside those of generation: which pair is drawn, which one is replaced."""
BEST = ("", True)
"""No metric chooses a checkpoint: an iteration goes on from where the one before it ended."""


@dataclass(frozen=True)
class Settings:
    """The section of the plan."""

    iteration: int = 1
    responses: int = 4  # to each prompt
    judgements: int = 3  # of each response
    length_control: float = 0.0
    loss: str = "dpo"  # one of dpo.LOSSES
    beta: float = 0.1
    eta: float = 1.0
    preference_weight: float = 1.0
    sft_weight: float = 0.0
    average_log_probs: bool = False
    sft_average_log_probs: bool = False
    template: str = ""
    pattern: str = ""
    low: float = 0.0
    high: float = 5.0
    judge: Any = None  # sampling of judgements, where it differs
    verifier: str = ""
    verified_by: str = ""
    meta_fraction: float = 0.0
    meta_max_share: float = 0.4
    meta_max_rows: float = 0.2
    meta_batch: int = 64
    meta_template: str = ""
    meta_pattern: str = ""

    @property
    def preferences(self) -> dpo.Settings:
        names = ("loss", "beta", "eta", "preference_weight", "sft_weight", "average_log_probs")
        same = {name: getattr(self, name) for name in (*names, "sft_average_log_probs")}
        return dpo.Settings(**same)


@dataclass(frozen=True)
class Lesson:
    """A pair that stands in the batch."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    rewards: tuple[float, float]  # as the losses take them
    scores: tuple[float | None, float | None] = (None, None)  # as they are logged
    ends: int = 2  # of the two that came to one
    bad: bool = False
    of_judgements: bool = False

    def samples(self, place: int) -> list[Sample]:
        """Both texts, the chosen one first."""
        return [
            Sample(
                2 * place + i,
                self.prompt + answer,
                [0] * len(self.prompt) + [1] * len(answer),
                labels=(self.rewards[i],),
            )
            for i, answer in enumerate((self.chosen, self.rejected))
        ]


# ── the step ─────────────────────────────────────────────────────────────────────────────────────


def step(run: Run) -> dict[str, Any]:
    """One step: responses, judgements, pairs, and one update on them."""
    began = time.perf_counter()
    settings = run.program_settings(Settings)
    jury = jury_of(run, settings)
    draw = (settings.iteration - 1) * run.max_steps + run.step
    prompts = [(s.id, s.tokens) for line in run.data.bins(draw) for s in line]
    with run.part("offload"):
        run.online.rest()
    with run.online.reference() as engine:
        with run.part("generate"):
            first = draw * len(prompts) * settings.responses
            responses = jury.responses(prompts, settings.responses, first)
            run.alive()
        with run.part("judge"):
            judged = jury.judge(responses)
            run.alive()
        groups = [judged[i : i + settings.responses] for i in range(0, len(judged), settings.responses)]
        lessons = [chosen_of(run, settings, draw, p, group) for p, group in enumerate(groups)]
        if settings.meta_fraction > 0:
            with run.part("meta"):
                judge_judgements(run, settings, jury, groups)
            lessons = replaced(run, settings, draw, lessons)
        with run.part("reference"):
            microbatches = paired([lesson for lesson in lessons if not lesson.bad], run.table())
            for batch, logprobs_BT in zip(microbatches, engine.forward(microbatches), strict=True):
                batch.extra["reference"] = logprobs_BT.cpu()
    with run.part("actor"):
        learnt = learn(run, settings, lessons, microbatches)
    run.carried["shown"] = table_of(run, lessons)
    told = {**said_of(lessons, settings), **judged_of(judged)}
    epoch = run.data.epoch(draw + 1)
    counts = {
        "iteration": settings.iteration,
        "epoch": epoch,
        "consumed_samples": (draw + 1) * len(prompts),
    }
    return {**learnt, **told, **counts, "step_time": round(time.perf_counter() - began, 6)}


def jury_of(run: Run, settings: Settings) -> Jury:
    """What judging needs, from the plan."""
    online, seq_length = run.online, int(run.train["seq_length"])
    judging = judging_of(online.sampling, settings.judge or {}, JUDGEMENTS)
    return Jury(
        tokenizer=online.tokenizer,
        template=run.role.model.chat_template,
        sampling=online.sampling,
        judging=judging,
        sampler=online.sampler,
        room=seq_length - judging.max_tokens,
        judgements=settings.judgements,
        question=Question(settings.template, low=settings.low, high=settings.high),
        scale=Scale(settings.pattern, settings.low, settings.high),
        rows=online.rows["prompts"],
        verifier=function_of(settings.verifier) if settings.verifier else None,
        verified_by=settings.verified_by,
    )


def chosen_of(run: Run, settings: Settings, draw: int, place: int, group: Sequence[Judged]) -> Lesson:
    """The pair of a prompt's responses."""
    draws = np.random.Generator(np.random.PCG64([run.plan.seed, CHOICE, draw, place]))
    found = choose([judged.candidate for judged in group], settings.length_control, draws)
    two = group[found.chosen], group[found.rejected]
    return Lesson(
        prompt=two[0].response.prompt,
        chosen=two[0].response.tokens,
        rejected=two[1].response.tokens,
        rewards=(two[0].score or 0.0, two[1].score or 0.0),
        scores=(two[0].score, two[1].score),
        ends=sum(judged.response.ended for judged in two),
        bad=found.bad,
    )


# ── judgements that are judged ───────────────────────────────────────────────────────────────────


def judge_judgements(run: Run, settings: Settings, jury: Jury, groups: Sequence[Sequence[Judged]]) -> None:
    """Let judgements wait until enough are there to be compared; pairs of them wait until one is needed."""
    meta = run.carried.setdefault("meta", {"waiting": [], "done": [], "seen": 0, "replaced": 0})
    share = share_of(run, settings, sum(map(len, groups)) // settings.responses)
    counts = meta.setdefault("counts", share.fresh())
    meta["waiting"] += [group.as_data() for each in groups if (group := group_of(each)) is not None]
    if len(meta["waiting"]) < settings.meta_batch:
        return
    waiting, meta["waiting"] = [Group.of(data) for data in meta["waiting"]], []
    found = [pair for pair in compared(settings, jury, waiting) if pair and share.takes(pair, counts)]
    meta["done"] = [*meta["done"], *(pair.as_data() for pair in found)][-3 * len(groups) :]


def share_of(run: Run, settings: Settings, prompts: int) -> Share:
    """How many pairs of one score an iteration takes."""
    limit = limit_of(run.max_steps, prompts, settings.meta_max_rows, settings.low, settings.high)
    return Share(settings.low, settings.high, settings.meta_max_share, limit)


def group_of(group: Sequence[Judged]) -> Group | None:
    """The judgements of the response that was judged most unevenly."""
    place = uneven([(j.response.ended, j.judgements, j.variance) for j in group])
    if place is None:
        return None
    found = group[place]
    return Group(found.response.key, found.question, found.prompts, found.text, found.judgements)


def compared(settings: Settings, jury: Jury, groups: Sequence[Group]) -> list[Pair | None]:
    """The best and the worst judgement of each group, where they can be told. Collective."""
    question = Question(settings.meta_template, low=settings.low, high=settings.high)

    def ask(**given: str) -> list[int]:
        return jury.tokens(question.ask(**given))

    battles = [battle for group in groups for battle in battles_of(group, jury.scale, ask, jury.room)]
    sampling = judging_of(jury.sampling, settings.judge or {}, VERDICTS)
    keys = [number_of(battle, settings.judgements) for battle in battles]
    found = jury.say([battle.question for battle in battles], sampling, keys)
    told = [
        (battle, verdict(jury.text(tokens), settings.meta_pattern))
        for battle, (tokens, _) in zip(battles, found, strict=True)
    ]
    return [
        pair_of(group, *rated(group, outcomes((b, v) for b, v in told if b.group == group.key)))
        for group in groups
    ]


def number_of(battle: Battle, judgements: int) -> int:
    """Of a battle among all of the run."""
    return ((battle.group * judgements + battle.one) * judgements + battle.other) * 2 + battle.turned


def replaced(run: Run, settings: Settings, draw: int, lessons: Sequence[Lesson]) -> list[Lesson]:
    """The pairs, some with a pair of judgements in their place, the oldest first."""
    meta, found = run.carried["meta"], []
    draws = np.random.Generator(np.random.PCG64([run.plan.seed, PLACE, draw])).random(len(lessons))
    for lesson, u in zip(lessons, draws.tolist(), strict=True):
        meta["seen"] += 1
        poor = lesson.bad or lesson.ends < 2
        take = meta["done"] and replaces(poor, u, settings.meta_fraction, meta["replaced"], meta["seen"])
        if not take:
            found.append(lesson)
            continue
        meta["replaced"] += 1
        pair = Pair.of(meta["done"].pop(0))
        found.append(
            Lesson(pair.question, pair.chosen, pair.rejected, rewards=(1.0, 0.0), of_judgements=True)
        )
    return found


# ── the update ───────────────────────────────────────────────────────────────────────────────────


def paired(lessons: Sequence[Lesson], table: Table) -> list[Batch]:
    """This rank's microbatches: in each round every rank has as many pairs, of like length."""
    pairs = [lesson.samples(place) for place, lesson in enumerate(lessons)]
    pairs.sort(key=lambda pair: (-max(sample.columns for sample in pair), pair[0].id))
    size = table.dp * table.micro_batch
    rounds = [pairs[start : start + size] for start in range(0, len(pairs), size)] or [[]]
    rounds += [[]] * (-len(rounds) % table.rounds_multiple)
    found: list[Batch] = []
    for own in rounds:
        bins = [[sample] for pair in own for sample in pair] or [[]]
        lines = 2 * table.micro_batch
        found += dealt(bins, table.dp_rank, table.dp, lines, multiple=table.multiple, pad_id=table.pad_id)
    return found


def learn(
    run: Run, settings: Settings, lessons: Sequence[Lesson], microbatches: Sequence[Batch]
) -> dict[str, Any]:
    """One update; means over all pairs, the bad ones with a log-ratio of 0."""
    preferences = settings.preferences
    share = partial(dpo.loss, settings=preferences, denominator=len(lessons))
    sums = run.model.forward_backward(microbatches, share)
    rate = run.learning_rate()
    update = run.model.optim_step(rate)
    nothing = idle_loss([lesson for lesson in lessons if lesson.bad], preferences)
    sums["loss"] += preferences.preference_weight * nothing / len(lessons)
    sums["preference_loss"] += nothing
    sums["pairs"] = float(len(lessons))
    samples = [[sample] for place, lesson in enumerate(lessons) for sample in lesson.samples(place)]
    counts = {
        "tokens": sum(sample.columns for line in samples for sample in line),
        "data_hash": data_hash(samples),
    }
    return {**dpo.means(sums), **update, "lr": rate, **counts}


def idle_loss(bad: Sequence[Lesson], preferences: dpo.Settings) -> float:
    """What bad pairs add to the sum of the losses: they have no log-ratio and no rewards."""
    nothing_P = torch.zeros(len(bad), dtype=torch.float64)
    losses_P = dpo.preference_losses(
        nothing_P, nothing_P, preferences.loss, preferences.beta, preferences.eta
    )
    return float(losses_P.sum())


# ── what is said ─────────────────────────────────────────────────────────────────────────────────


def said_of(lessons: Sequence[Lesson], settings: Settings) -> dict[str, float]:
    """What is logged of a step's pairs."""
    count = len(lessons)
    ended = sum(lesson.ends for lesson in lessons)
    return {
        "chosen_lengths": sum(len(lesson.chosen) for lesson in lessons) / count,
        "reject_lengths": sum(len(lesson.rejected) for lesson in lessons) / count,
        "chosen_generated_rewards": sum(lesson.scores[0] or 0.0 for lesson in lessons) / count,
        "rejected_generated_rewards": sum(lesson.scores[1] or 0.0 for lesson in lessons) / count,
        "bad_samples_per_GBS": sum(lesson.bad for lesson in lessons) / count,
        "bad_ends_per_GBS": (2 * count - ended) / (count * settings.responses),
        "meta_samples_per_GBS": sum(lesson.of_judgements for lesson in lessons) / count,
    }


def judged_of(judged: Sequence[Judged]) -> dict[str, float]:
    """What is logged of a step's responses and judgements."""
    told = [judgement for each in judged for judgement in each.judgements]
    valid = sum(judgement.score is not None for judgement in told)
    scores = [each.score for each in judged if each.score is not None]
    tokens = [len(each.response.tokens) for each in judged]
    return {
        "generated_reward": sum(scores) / len(scores) if scores else 0.0,
        "response_length": sum(tokens) / len(judged),
        "ended": sum(each.response.ended for each in judged) / len(judged),
        "valid_judgements": valid / len(told) if told else 0.0,
        "unjudged": sum(not each.question and not each.verified for each in judged) / len(judged),
        "verified": sum(each.verified for each in judged) / len(judged),
        "generated_tokens": sum(tokens) + sum(len(judgement.tokens) for judgement in told),
    }


def table_of(run: Run, lessons: Sequence[Lesson]) -> list[dict[str, Any]]:
    """The first few pairs as texts, for people."""
    return [
        {
            "prompt": run.online.text(lesson.prompt),
            "chosen": run.online.text(lesson.chosen),
            "rejected": run.online.text(lesson.rejected),
            "chosen_reward": lesson.scores[0],
            "rejected_reward": lesson.scores[1],
            "bad": lesson.bad,
        }
        for lesson in lessons[:SHOWN]
    ]


def evaluate(run: Run) -> dict[str, float]:
    """The loss on the answers of the validation set, as of fine-tuning; and the table of the last pairs."""
    run.show([{"step": run.step, **row} for row in run.carried.get("shown", [])])
    return sft.evaluate(run)
