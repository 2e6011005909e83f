"""Reward models: a score for a text, learnt from comparisons or from people's labels.

    bradley_terry, regular_bt    L = -mean log sigmoid(g)               g = score(chosen) - score(rejected)
    margin_bt                    L = -mean log sigmoid(g - m)           m: how clear the preference is, 1 to 3
    scaled_bt                    L = -mean m log sigmoid(g)
    regression                   L =  mean (prediction - label)^2       over the labels that somebody gave

Bradley-Terry: Ouyang et al. 2022, equation 1, one pair per prompt. Margin and scaled: Wang et al. 2024,
"HelpSteer2-Preference". Regression: Dong et al. 2023 (SteerLM); labels and predictions are raw numbers.

A score is what the head says at a text's last token; a head of several attributes gives their weighted
sum. The mean is one over the whole global batch, over all microbatches and ranks. `average: micro_batch`
takes the mean of microbatches' means instead, as older implementations did: the same for comparisons,
but where labels are missing, rows in a microbatch with few labels weigh more.

Left out: averaging the head over all tokens of a text, and a bias of the head, which cancels in every
comparison and has no place in Hugging Face's form of such models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.batch import Batch, Bin, data_hash
from runtime.data.judged import MISSING
from runtime.data.stream import Stream

if TYPE_CHECKING:
    from runtime.run import Run

MEASURED_ROWS = 1024
"""Rows of the training data on which mean and deviation of the reward are measured without others."""


# ── the formulas ─────────────────────────────────────────────────────────────────────────────────


def bradley_terry(gaps_P: Tensor) -> Tensor:
    """-log sigmoid(g) of each pair."""
    return -F.logsigmoid(gaps_P)


def margin_bt(gaps_P: Tensor, margins_P: Tensor) -> Tensor:
    """-log sigmoid(g - m): clear preferences want a gap of their own size."""
    return -F.logsigmoid(gaps_P - margins_P)


def scaled_bt(gaps_P: Tensor, margins_P: Tensor) -> Tensor:
    """-m log sigmoid(g): clear preferences weigh more."""
    return -margins_P * F.logsigmoid(gaps_P)


def squared_errors(predictions_NA: Tensor, labels_NA: Tensor) -> Tensor:
    """(prediction - label)^2, and 0 where nobody gave a label."""
    return (predictions_NA - labels_NA).masked_fill(labels_NA == MISSING, 0.0).square()


def merged(predictions_NA: Tensor, weights: Sequence[float]) -> Tensor:
    """One score for each text: the weighted sum of its attributes."""
    return predictions_NA @ predictions_NA.new_tensor(weights)


def predictions(values_BTA: Tensor, batch: Batch) -> Tensor:
    """What the head says at the end of each text [N, A], in the order of `batch.rows`."""
    return values_BTA[batch.mask_BT > 0]


# ── the step ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Judge:
    """How values become a loss."""

    loss: str
    weights: tuple[float, ...]  # of the attributes in the score
    attributes: tuple[str, ...] = ()
    average: str = "global"  # global | micro_batch

    @property
    def compares(self) -> bool:
        return self.loss != "regression"


def step(run: Run) -> dict[str, Any]:
    """One update on the next global batch."""
    judge = judge_of(run)
    with run.part("data"):
        bins = run.data.bins(run.step)
        microbatches = run.dealt(bins)
        share = shares(judge, bins, run.data, run.role.micro_batch)

    with run.part("forward_backward"):
        sums = run.model.forward_backward(microbatches, partial(loss, judge=judge, **share))

    with run.part("optimizer"):
        rate = run.learning_rate()
        update = run.model.optim_step(rate)

    texts = sum(len(line) for line in bins)
    counts = {"tokens": sum(sample.columns for line in bins for sample in line), "texts": texts}
    return {**means(sums, judge), **update, "lr": rate, **counts, "data_hash": data_hash(bins)}


def loss(
    values_BTA: Tensor, batch: Batch, *, judge: Judge, denominator: float, means_of: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """This microbatch's share of the step's loss, and sums of what is logged.

    `denominator` counts the pairs or labels of the whole step. With `means_of` the share is the mean of
    this microbatch, divided by that many microbatches.
    """
    predictions_NA = predictions(values_BTA, batch)
    losses, count = _losses(predictions_NA, batch, judge)
    total = losses.sum()
    share = total / max(count, 1) / means_of if means_of else total / denominator
    with torch.no_grad():
        sums = _sums(predictions_NA.detach().double(), losses.detach(), batch, judge)
    return share, sums


def _losses(predictions_NA: Tensor, batch: Batch, judge: Judge) -> tuple[Tensor, float]:
    """The loss of every pair [P] or label [N, A], and how many there are."""
    if not judge.compares:
        labels_NA = _labels(batch, predictions_NA)
        given = float((labels_NA != MISSING).sum())
        return squared_errors(predictions_NA, labels_NA), given
    scores_N = merged(predictions_NA, judge.weights)
    gaps_P = scores_N[0::2] - scores_N[1::2]
    if judge.loss in ("bradley_terry", "regular_bt"):
        return bradley_terry(gaps_P), len(gaps_P)
    margins_P = _labels(batch, predictions_NA)[0::2, 0] if len(gaps_P) else gaps_P.detach()
    formula = margin_bt if judge.loss == "margin_bt" else scaled_bt
    return formula(gaps_P, margins_P), len(gaps_P)


def _labels(batch: Batch, like: Tensor) -> Tensor:
    if batch.labels_NL is None:  # no text in this microbatch
        return like.new_zeros(like.shape)
    return batch.labels_NL.to(like.dtype)


def _sums(predictions_NA: Tensor, losses: Tensor, batch: Batch, judge: Judge) -> dict[str, Tensor]:
    """What adds up over microbatches and ranks."""
    scores_N = merged(predictions_NA, judge.weights)
    sums = {
        "texts": scores_N.new_tensor(float(len(scores_N))),
        "scores": scores_N.sum(),
        "squares": scores_N.square().sum(),
    }
    if judge.compares:
        chosen_P, rejected_P = scores_N[0::2], scores_N[1::2]
        right = (chosen_P > rejected_P).sum().double()  # a tie is no preference
        return sums | {"chosen": chosen_P.sum(), "rejected": rejected_P.sum(), "right": right}
    given_NA = _labels(batch, predictions_NA) != MISSING
    for i, name in enumerate(judge.attributes):
        sums |= {f"error/{name}": losses[:, i].double().sum(), f"given/{name}": given_NA[:, i].sum()}
    return sums


# ── over the whole batch ─────────────────────────────────────────────────────────────────────────


def judge_of(run: Run) -> Judge:
    """The judge that the plan describes."""
    own, attributes = run.settings, run.role.model.attributes
    weights = tuple(own.get("weights") or [1 / max(len(attributes), 1)] * max(len(attributes), 1))
    return Judge(own["loss"], weights, attributes or ("reward",), own.get("average", "global"))


def shares(judge: Judge, bins: Sequence[Bin], data: Stream, micro_batch: int) -> dict[str, float]:
    """What the sums of microbatches are divided by, which every rank knows from the whole batch."""
    found: dict[str, float] = {"denominator": max(counted(judge, bins), 1)}
    if judge.average == "micro_batch":
        found["means_of"] = math.ceil(len(bins) / (micro_batch * data.lines))
    return found


def counted(judge: Judge, bins: Iterable[Bin]) -> int:
    """Pairs of the bins, or labels that somebody gave."""
    samples = [sample for line in bins for sample in line]
    if judge.compares:
        return len(samples) // 2
    return sum(label != MISSING for sample in samples for label in sample.labels)


def means(sums: Mapping[str, float], judge: Judge) -> dict[str, float]:
    """What is logged, from sums over a whole batch or data set."""
    texts = max(sums["texts"], 1.0)
    found = {"loss": sums["loss"]}
    if judge.compares:
        pairs = texts / 2
        found |= {
            "acc": sums["right"] / pairs,
            "rewards_chosen_mean": sums["chosen"] / pairs,
            "rewards_rejected_mean": sums["rejected"] / pairs,
        }
    else:
        found |= {
            f"loss_{name}": sums[f"error/{name}"] / sums[f"given/{name}"]
            for name in judge.attributes
            if len(judge.attributes) > 1 and sums[f"given/{name}"]
        }
    mean = sums["scores"] / texts
    spread = max(sums["squares"] - texts * mean * mean, 0.0) / max(texts - 1, 1)
    return found | {"rewards_all_mean": mean, "rewards_all_std": math.sqrt(spread)}


# ── outside the step ─────────────────────────────────────────────────────────────────────────────


def evaluate(run: Run) -> dict[str, float]:
    """The same over all of the validation set; mean and deviation of the reward are those of all texts."""
    assert run.validation is not None
    measured = _measured(run, run.validation, run.validation.batches())
    return {f"validation_{name}": value for name, value in measured.items()}


def facts(run: Run, measured: Mapping[str, float]) -> dict[str, Any]:
    """What a checkpoint says of its rewards, so that whoever uses them can make them comparable; and of the
    texts, so that they can be judged as they were learnt.

    `measured` is what `evaluate` found at this step. Without it, after the last step, part of the
    training data is measured.
    """
    if not measured and run.step < run.max_steps:
        return {}
    if not measured:
        batches = []
        for bins in run.data.batches():
            batches.append(bins)
            if len(batches) * run.data.global_batch >= MEASURED_ROWS:
                break
        found = _measured(run, run.data, batches)
        measured = {f"validation_{name}": value for name, value in found.items()}
    names = {"reward_mean": "validation_rewards_all_mean", "reward_std": "validation_rewards_all_std"}
    said: dict[str, Any] = {"weights": list(judge_of(run).weights)}  # of the attributes in the reward
    said |= {name: bool(run.settings[name]) for name in ("add_bos", "add_eos") if name in run.settings}
    return said | {name: measured[key] for name, key in names.items()}


def _measured(run: Run, data: Stream, batches: Iterable[list[Bin]]) -> dict[str, float]:
    judge, totals, count = judge_of(run), dict[str, float](), 0
    for bins in batches:
        share = partial(loss, judge=judge, denominator=1.0)
        for name, value in run.model.evaluate(run.dealt(bins), share).items():
            totals[name] = totals.get(name, 0.0) + value
        count += counted(judge, bins)
        run.alive()
    return means(totals | {"loss": totals["loss"] / max(count, 1)}, judge)
