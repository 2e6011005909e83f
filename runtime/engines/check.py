"""Whether an engine does what it says: its weights are the newest, its log-probabilities the declared.

A few tokens are drawn at temperature 0.5 and scored by the training forward pass. Stale or half
transferred weights show, and so do log-probabilities taken after temperature where raw ones were
declared: at 0.5 the two differ by far more than rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from runtime.engines import Completion, Engine, EngineFailed
from runtime.sampling import Sampling

Score = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], Sequence[Sequence[float]]]
"""Raw log-probabilities of the training forward pass of responses (second) after prompts (first)."""

PROBE = Sampling(max_tokens=16, temperature=0.5, seed=0)


def factor(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> float:
    """Mean over tokens of exp |difference|: 1 is equal (NeMo-RL's `token_mult_prob_error`)."""
    pairs = [
        pair for row, other in zip(found, expected, strict=True) for pair in zip(row, other, strict=True)
    ]
    return math.fsum(math.exp(min(abs(a - b), 50.0)) for a, b in pairs) / max(len(pairs), 1)


def check(
    engine: Engine, prompts: Sequence[Sequence[int]], score: Score, version: int, bound: float = 1.001
) -> float:
    """The factor by which the engine's probabilities are off; EngineFailed above `bound`.

    To be called after each transfer of weights. 1.001 is for fp32; bf16 engines reach 1.02.
    """
    found = probed(engine, prompts, version)
    return held(engine, found, score(prompts, [one.tokens for one in found]), bound)


def probed(
    engine: Engine, prompts: Sequence[Sequence[int]], version: int, sampling: Sampling = PROBE
) -> Sequence[Completion]:
    """A few tokens after each prompt, of the weights that are asked for."""
    if engine.logprobs_of != "raw":
        raise EngineFailed(
            f"engine `{engine.name}` gives {engine.logprobs_of} log-probabilities, not raw ones"
        )
    found = engine.generate(prompts, sampling)
    old = next((one.version for one in found if one.version != version), version)
    if old != version:
        raise EngineFailed(f"engine `{engine.name}` answers with weights {old}, not {version}")
    return found


def held(
    engine: Engine, found: Sequence[Completion], expected: Sequence[Sequence[float]], bound: float = 1.001
) -> float:
    """The factor by which what the engine says is off what training says of the same tokens."""
    off = factor([one.logprobs for one in found], expected)
    if not off <= bound:
        raise EngineFailed(
            f"engine `{engine.name}` gives probabilities {off:.4g} times off those of training, at most "
            f"{bound:.4g} is allowed: its weights are stale or incomplete, or its log-probabilities not raw"
        )
    return off


def usable(found: Sequence[Completion], asked: int, name: str) -> Sequence[Completion]:
    """The completions, if there are as many as prompts and each is whole and finite."""
    for i, one in enumerate(found):
        if len(one.tokens) != len(one.logprobs):
            raise EngineFailed(
                f"engine `{name}` gave {len(one.tokens)} tokens and {len(one.logprobs)} log-probabilities"
                f" for prompt {i}"
            )
        if not all(math.isfinite(logprob) and logprob <= 1e-4 for logprob in one.logprobs):
            raise EngineFailed(f"engine `{name}` gave a log-probability that is none for prompt {i}")
    if len(found) != asked:
        raise EngineFailed(f"engine `{name}` gave {len(found)} responses to {asked} prompts")
    return found
