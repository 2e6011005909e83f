"""One token per row from logits: what may be drawn, and the draw.

Logits [B, V] in fp32 over the true vocabulary, one row a sequence, each with settings of its own, give
a token and its log-probability. The order is transformers': repetition penalty, stop tokens out of
reach before the least length, temperature, top-k, top-p. The log-probability is the model's own
(`LOGPROBS`): before penalty, temperature and truncation, as PPO's ratio needs it.

A draw takes one uniform number, which depends on the seed, the sequence and the position alone, so a
sequence is the same whatever batch it is in and however the model is laid out. The token is the one in
whose piece of the cumulated probability the number falls (inversion), added up in fp64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LOGPROBS = "raw"
"""What the returned log-probabilities are of: the model's distribution itself."""

COLDEST = 1e-5
"""Temperatures above 0 count as at least this: logits over less would leave the range of fp32."""

LEAST_PENALTY = 1e-3
"""And repetition penalties as at least this."""


class SamplingError(ValueError):
    """A setting cannot be met."""


@dataclass(frozen=True)
class Sampling:
    """How a response is drawn; the fields are those of a spec's `generate`."""

    max_tokens: int = 1024
    min_tokens: int = 0  # no stop token or text ends a response before
    temperature: float = 1.0  # 0: the most likely token
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    repetition_penalty: float = 1.0  # divides positive logits of tokens seen, multiplies negative ones
    stop: tuple[str, ...] = ()  # texts that end a response; they stay in it
    stop_token_ids: tuple[int, ...] = ()  # as a rule the end of text or turn; they stay too
    seed: int = 1234

    def __post_init__(self) -> None:
        """Refuse what has no meaning, wherever it comes from."""
        wrong = [
            (self.max_tokens < 1, f"max_tokens {self.max_tokens} is below 1"),
            (self.min_tokens < 0, f"min_tokens {self.min_tokens} is negative"),
            (self.min_tokens > self.max_tokens, f"min_tokens {self.min_tokens} is above max_tokens"),
            (not 0 <= self.temperature <= 100, f"temperature {self.temperature} is not from 0 to 100"),
            (self.top_k < 0, f"top_k {self.top_k} is negative; 0 is for all"),
            (not 0 < self.top_p <= 1, f"top_p {self.top_p} is not above 0 and at most 1"),
            (
                not 0 < self.repetition_penalty < 1e6,
                f"repetition_penalty {self.repetition_penalty} is not positive",
            ),
            ("" in self.stop, "an empty text in stop would end every response"),
        ]
        for bad, why in wrong:
            if bad:
                raise SamplingError(why)


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of `x` reaches every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def stream_of(seed: int, sequence: int) -> np.uint64:
    """The stream of random numbers of one sequence."""
    seeds, sequences = (np.asarray([number % 2**64], np.uint64) for number in (seed, sequence))
    return _mixed(_mixed(seeds + _GOLDEN) + (sequences + np.uint64(1)) * _GOLDEN)[0]


def uniforms(streams: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Number `positions` of each stream, in [0, 1), a multiple of 2^-52."""
    counters = (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    return (_mixed(streams + counters) >> np.uint64(12)).astype(np.float64) * 2.0**-52


@dataclass(frozen=True)
class Knobs:
    """The settings of the rows of a batch as tensors; None where no row asks for it."""

    temperature_B: Tensor | None  # fp32, 0: greedy; None: all greedy
    top_k_B: Tensor | None  # int64, at least 1
    top_p_B: Tensor | None  # fp32
    penalty_B: Tensor | None  # fp32

    @staticmethod
    def of(rows: Sequence[Sampling], vocab: int, device: Any) -> Knobs:
        """Settings of these rows, row by row; a greedy row is not truncated."""

        def column(values: list[Any], neutral: Any, dtype: torch.dtype) -> Tensor | None:
            if all(value == neutral for value in values):
                return None
            return torch.tensor(values, dtype=dtype, device=device)

        drawn = [row.temperature > 0 for row in rows]
        ks = [min(row.top_k or vocab, vocab) if d else vocab for row, d in zip(rows, drawn, strict=True)]
        ps = [row.top_p if d else 1.0 for row, d in zip(rows, drawn, strict=True)]
        return Knobs(
            temperature_B=column(
                [max(r.temperature, COLDEST) if r.temperature else 0 for r in rows], 0, torch.float32
            ),
            top_k_B=column(ks, vocab, torch.int64),
            top_p_B=column(ps, 1.0, torch.float32),
            penalty_B=column([max(r.repetition_penalty, LEAST_PENALTY) for r in rows], 1.0, torch.float32),
        )


def choose(
    logits_BV: Tensor,
    knobs: Knobs,
    uniforms_B: Tensor | None = None,
    seen_BV: Tensor | None = None,
    banned: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Tokens [B] and their raw log-probabilities [B] fp32.

    `uniforms_B` fp64 in [0, 1) unless every row is greedy; `seen_BV` bool, the tokens of prompt and
    response so far, where a row is penalised; `banned` rows and columns that may not be drawn now.
    """
    scores = allowed(logits_BV, knobs, seen_BV, banned)
    tokens_B = scores.argmax(-1)
    if knobs.temperature_B is not None:
        assert uniforms_B is not None
        greedy = knobs.temperature_B == 0
        scores = scores / torch.where(greedy, 1.0, knobs.temperature_B)[:, None]
        tokens_B = torch.where(greedy, tokens_B, drawn(truncated(scores, knobs), uniforms_B))
    chosen = logits_BV.gather(1, tokens_B[:, None]).squeeze(1)
    return tokens_B, chosen - logits_BV.logsumexp(-1)


def allowed(
    logits_BV: Tensor, knobs: Knobs, seen_BV: Tensor | None, banned: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Logits with the repetition penalty (CTRL, arXiv 1909.05858), -inf where banned."""
    scores = logits_BV
    if knobs.penalty_B is not None:
        assert seen_BV is not None
        penalty = knobs.penalty_B[:, None]
        scores = torch.where(seen_BV, torch.where(scores > 0, scores / penalty, scores * penalty), scores)
    if banned is not None and len(banned[0]):
        scores = scores.clone() if scores is logits_BV else scores
        scores[banned] = -torch.inf
    return scores


def truncated(scores_BV: Tensor, knobs: Knobs) -> Tensor:
    """-inf outside each row's top-k, then outside the fewest of the rest that hold top-p of its mass."""
    if knobs.top_k_B is not None:
        largest = scores_BV.topk(int(knobs.top_k_B.max()), dim=-1).values
        least = largest.gather(1, knobs.top_k_B[:, None] - 1)
        scores_BV = scores_BV.masked_fill(scores_BV < least, -torch.inf)
    if knobs.top_p_B is not None:
        ordered, order = scores_BV.sort(dim=-1, descending=True)
        masses = ordered.softmax(-1)
        outside = masses.cumsum(-1) - masses >= knobs.top_p_B[:, None]
        outside[:, 0] = False
        # a row that is not truncated keeps even what rounding pushes past 1
        outside &= (knobs.top_p_B < 1)[:, None]
        scores_BV = scores_BV.masked_fill(outside.scatter(1, order, outside), -torch.inf)
    return scores_BV


def drawn(scores_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """The token in whose piece of the cumulated probability the uniform number falls."""
    cumulated = scores_BV.softmax(-1).double().cumsum(-1)
    # below the total in fp64 too, as the numbers are multiples of 2^-52; a token without mass has no piece
    points = uniforms_B * cumulated[:, -1]
    return torch.searchsorted(cumulated, points[:, None], right=True).squeeze(1)
