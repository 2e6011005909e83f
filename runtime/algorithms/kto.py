"""Kahneman-Tversky optimisation (arXiv:2402.01306): from single responses that somebody liked or did not.

With the log-ratio to the reference r = log pi(y | x) - log ref(y | x), summed over the response's tokens,

    L = mean over rows of   w_d (1 - sigmoid(beta (r - z)))   where the response was liked
                            w_u (1 - sigmoid(beta (z - r)))   where it was not
    z = max(0, mean over rows of the log-ratio of response k + 1 to prompt k), without gradient

z estimates how far the policy is from the reference. Its pairs are those of the whole global batch, the last
prompt with the first response, over all ranks, so it depends neither on the layout nor on the size of a
microbatch (NeMo-Aligner and TRL pair within a microbatch; one row would be its own, which TRL refuses). A row
that a batch holds twice, as at an epoch's end, meets the next other one. Of a validation set the pairs go on
over its batches, so the size of these does not matter and a last row that is alone in one meets the first of
all; of a set of one row z is 0. A mismatched response is cut where both together are too long.

The rewards that are logged are beta r. `acc` is the share of rows on the right side of z.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from runtime.algorithms.dpo import answered, rewards_of, summed, tokens
from runtime.batch import Batch, Bin, Sample, data_hash
from runtime.data.stream import Stream
from runtime.packing import packed_bins
from runtime.reference import Reference, reference_of
from runtime.tensors import text_sums

if TYPE_CHECKING:
    from runtime.run import Run


# ── the formula ──────────────────────────────────────────────────────────────────────────────────


def kto(
    ratios_N: Tensor, liked_N: Tensor, z: float, beta: float, desirable: float, undesirable: float
) -> Tensor:
    """The loss of each response; `liked_N` is 1 for one that was liked, else 0."""
    is_liked = liked_N > 0
    gain = torch.where(is_liked, ratios_N - z, z - ratios_N)
    weight = undesirable + (desirable - undesirable) * is_liked.to(ratios_N.dtype)
    return weight * (1 - torch.sigmoid(beta * gain))


def mismatched(samples: Sequence[Sample], longest: int, after: Sample | None = None) -> list[Sample]:
    """Prompt k with response k + 1, the last one with that of `after`, or else of the first, within so many
    tokens; never a row with itself where there is another.
    """
    found = []
    for k, sample in enumerate(samples):
        following = [*samples[k + 1 :], *([after] if after else samples[:k])]
        other = next((each for each in following if each.id != sample.id), sample)
        prompt, response = sample.tokens[: begin(sample)], other.tokens[begin(other) :]
        response = response[: max(longest - len(prompt), 1)]
        whole = [*prompt, *response]
        found.append(Sample(k, whole, [0] * len(prompt) + [1] * len(response), (1.0,)))
    return found


def begin(sample: Sample) -> int:
    """Tokens before a sample's response."""
    return next((i for i, learnt in enumerate(sample.mask) if learnt), len(sample.mask))


class Mismatched:
    """The mismatched texts of all batches of a run, one after another, as a data set of their own: `count`
    batches, each of what `batch` gives, and apart from the others unless they `go_on` into one another.
    """

    group = 1

    def __init__(
        self, data: Stream, count: int, batch: Callable[[int], Sequence[Bin]], go_on: bool = False
    ) -> None:
        self.data, self.count, self.batch, self.go_on = data, count, batch, go_on

    def bins(self, number: int) -> list[Bin]:
        """The bins of one batch."""
        first = number * self.data.global_batch
        found = [replace(sample, id=first + sample.id) for sample in self._of(number)]
        if self.data.packing:
            return [*packed_bins(found, self.data.seq_length)]
        return [[sample] for sample in found]

    # what is asked of a data set whose numbers are stored

    @property
    def samples(self) -> Mismatched:
        return self

    @property
    def rows(self) -> int:
        return len(self._ends)

    @cached_property
    def hash(self) -> str:
        order = [sample.id for number in range(self.count) for line in self.batch(number) for sample in line]
        way = "throughout" if self.go_on else "by batches"
        return (
            f"{self.data.samples.hash} mismatched {way} {zlib.crc32(np.asarray(order, '<i8').tobytes()):08x}"
        )

    def index(self, id: int) -> int:
        """Samples are numbered without gaps."""
        return id

    def tokens_before(self, index: int) -> int:
        """Tokens of all samples before this one."""
        return int(self._ends[index - 1]) if index else 0

    def __getitem__(self, index: int) -> Sample:
        number, within = divmod(index, self.data.global_batch)
        return replace(self._of(number)[within], id=index)

    @cached_property
    def _ends(self) -> np.ndarray:
        lengths = [len(sample.tokens) for number in range(self.count) for sample in self._of(number)]
        return np.cumsum(lengths, dtype=np.int64)

    def _of(self, number: int) -> list[Sample]:
        after = self._rows_of((number + 1) % self.count)[0] if self.go_on else None
        return mismatched(self._rows_of(number), self.data.seq_length, after)

    def _rows_of(self, number: int) -> list[Sample]:
        return sorted((s for line in self.batch(number) for s in line), key=lambda sample: sample.id)


# ── the step ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Settings:
    """The section of the plan."""

    beta: float = 0.2
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0


@dataclass(frozen=True)
class Beside:
    """What is asked beside the model: a reference, also about the mismatched texts of each batch."""

    reference: Reference
    apart: Mismatched
    apart_validation: Mismatched | None


def opening(run: Run) -> None:
    """Before anything is trained: the reference, and which prompts meet which responses."""
    apart, apart_validation = Mismatched(run.data, run.max_steps, run.data.bins), None
    views = [apart]
    if run.validation is not None:
        batches = list(run.validation.batches())
        apart_validation = Mismatched(run.validation, len(batches), batches.__getitem__, go_on=True)
        views.append(apart_validation)
    run.reference = Beside(reference_of(run, views), apart, apart_validation)


def step(run: Run) -> dict[str, Any]:
    """One update on the next global batch."""
    settings, beside = run.program_settings(Settings), run.reference
    with run.part("data"):
        bins = run.data.bins(run.step)
        others = beside.apart.bins(run.step)
    with run.part("reference"):
        apart, microbatches = beside.reference.answered(run, [(beside.apart, others), (run.data, bins)])
    with run.part("distance"):
        z = max(run.model.evaluate(apart, distance)["loss"] / rows(bins), 0.0)

    with run.part("forward_backward"):
        share = partial(loss, settings=settings, z=z, denominator=rows(bins))
        sums = run.model.forward_backward(microbatches, share)

    with run.part("optimizer"):
        rate = run.learning_rate()
        update = run.model.optim_step(rate)

    counts = {"tokens": tokens(bins), "texts": rows(bins)}
    return {**means(sums), "z": z, **update, "lr": rate, **counts, "data_hash": data_hash(bins)}


def distance(logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the log-ratios of mismatched texts."""
    return _ratios(logprobs_BT, batch).sum(), {}


def loss(
    logprobs_BT: Tensor, batch: Batch, *, settings: Settings, z: float, denominator: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """This microbatch's share of the step's loss, and sums of what is logged; `denominator` counts the rows
    of the whole step.
    """
    ratios_N = _ratios(logprobs_BT, batch)
    liked_N = rewards_of(batch, ratios_N)
    weights = settings.desirable_weight, settings.undesirable_weight
    losses_N = kto(ratios_N, liked_N, z, settings.beta, *weights)
    with torch.no_grad():
        ratios_BT = logprobs_BT.double() - batch.extra["reference"].double()
        counts_N = text_sums(torch.ones_like(ratios_BT), batch.mask_BT, batch.segments)
        moved = text_sums(ratios_BT.neg().expm1() + ratios_BT, batch.mask_BT, batch.segments).sum()
        rewards_N, unliked_N = settings.beta * ratios_N, 1 - liked_N
        right_N = torch.where(liked_N > 0, ratios_N > z, ratios_N < z)
        sums = {
            "texts": counts_N.new_tensor(float(len(counts_N))),
            "liked": liked_N.sum(),
            "right": right_N.sum(),
            "chosen": (rewards_N * liked_N).sum(),
            "rejected": (rewards_N * unliked_N).sum(),
            "squares": rewards_N.square().sum(),
            "chosen_tokens": (counts_N * liked_N).sum(),
            "rejected_tokens": (counts_N * unliked_N).sum(),
            "moved": moved,
        }
    return losses_N.sum() / denominator, {name: value.detach() for name, value in sums.items()}


def _ratios(logprobs_BT: Tensor, batch: Batch) -> Tensor:
    """log pi - log ref of each text's response [N]."""
    change_BT = logprobs_BT.double() - batch.extra["reference"].double()
    return text_sums(change_BT, batch.mask_BT, batch.segments)


# ── over the whole batch ─────────────────────────────────────────────────────────────────────────


def rows(bins: Iterable[Bin]) -> int:
    """Rows of the bins."""
    return sum(map(len, bins))


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """What is logged of a whole batch, from its sums; `loss` is a mean already. A mean over no row is 0."""
    texts, liked = max(sums["texts"], 1.0), sums["liked"]
    unliked = sums["texts"] - liked
    mean = (sums["chosen"] + sums["rejected"]) / texts
    spread = max(sums["squares"] - texts * mean * mean, 0.0) / max(texts - 1, 1)
    return {
        "loss": sums["loss"],
        "acc": sums["right"] / texts,
        "rewards_chosen_mean": sums["chosen"] / max(liked, 1.0),
        "rewards_rejected_mean": sums["rejected"] / max(unliked, 1.0),
        "rewards_all_mean": mean,
        "rewards_all_std": math.sqrt(spread),
        "chosen_lengths": sums["chosen_tokens"] / max(liked, 1.0),
        "reject_lengths": sums["rejected_tokens"] / max(unliked, 1.0),
        "kl": sums["moved"] / max(sums["chosen_tokens"] + sums["rejected_tokens"], 1.0),
    }


# ── validation ───────────────────────────────────────────────────────────────────────────────────


def evaluate(run: Run) -> dict[str, float]:
    """The same over all of the validation set, with one z of all its mismatched texts."""
    assert run.validation is not None
    settings, apart = run.program_settings(Settings), run.reference.apart_validation
    batches = list(run.validation.batches())
    count = sum(map(rows, batches))
    others, beside = map(apart.bins, range(len(batches))), run.reference.reference
    far = summed(run, answered(run, beside, apart, others), distance)["loss"] / count
    z = max(far, 0.0) if count > 1 else 0.0  # one row would only meet itself
    share = partial(loss, settings=settings, z=z, denominator=count)
    found = means(summed(run, answered(run, beside, run.validation, batches), share)) | {"z": z}
    return {f"validation_{name}": value for name, value in found.items()}
