"""Responses to a step's prompts, and what a step needs of them as samples.

Every rank of the actor holds all rollouts of a step: they are small beside the model, and so rewards,
advantages and their statistics are plain arithmetic over the whole batch, the same on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.batch import Sample
from runtime.rows import Event, Response
from runtime.samplers import Sampler
from runtime.sampling import Sampling
from runtime.stopping import Decode


@dataclass(frozen=True)
class Rollout:
    """One response. `sampled` is log p of each of its tokens as the sampler saw it, undistorted."""

    id: int  # number of the prompt in the step, times responses per prompt, plus which of them
    row: int  # the prompt's row in the data
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    sampled: tuple[float, ...]
    finish: str  # stop | length
    data: str = "prompts"  # the use of the data that the row is of: prompts | validation
    early: int = 0  # so many of its first tokens could be no stop token

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.prompt + self.response

    @property
    def ended(self) -> bool:
        """Whether it came to an end of its own, and was not cut."""
        return self.finish == "stop"

    def sample(self, extra: Mapping[str, Any] | None = None, trained: bool = True) -> Sample:
        """The rollout as a row to learn from: the response's tokens, if at all. Its `early` is 1 on columns
        of tokens that could be no stop token.
        """
        mask = [0] * len(self.prompt) + [int(trained)] * len(self.response)
        found = dict(extra or {})
        if self.early:
            reached = [int(i < self.early) for i in range(len(self.response))]
            found["early"] = [0] * (len(self.prompt) - 1) + reached
        return Sample(self.id, self.tokens, mask, extra=found)

    def read_out(self) -> Sample:
        """The rollout with one token more, so that a head can speak at its last one; mask 1 there only."""
        return Sample(self.id, (*self.tokens, 0), [0] * len(self.tokens) + [1])


def roll_out(
    sampler: Sampler,
    prompts: Sequence[Sample],
    sampling: Sampling,
    *,
    step: int,
    responses: int = 1,
    data: str = "prompts",
    decode: Decode | None = None,
    on_rollout: Callable[[Rollout], None] | None = None,
    on_share: Callable[[list[int]], None] | None = None,
) -> list[Rollout]:
    """`responses` to each prompt, in the prompts' order; the same on every rank.

    Which random numbers a response takes follows from the sampling's seed, the step and its id alone.
    `on_rollout` sees those of this replica as they come, after `on_share` has seen their ids.
    """
    asked = [prompt for prompt in prompts for _ in range(responses)]
    first = step % (1 << 40) * len(asked)
    early = sampling.min_tokens if sampling.stop_token_ids else 0

    def seen(event: Event) -> None:
        if on_rollout is not None and isinstance(event, Response):
            prompt, found = asked[event.id], (tuple(event.tokens), tuple(event.logprobs), event.finish)
            on_rollout(Rollout(event.id, prompt.id, tuple(prompt.tokens), *found, data, early))

    found = sampler.responses(
        [prompt.tokens for prompt in asked],
        sampling,
        [first + i for i in range(len(asked))],
        decode,
        seen,
        on_share,
    )
    return [
        Rollout(i, prompt.id, tuple(prompt.tokens), tuple(tokens), tuple(logprobs), finish, data, early)
        for i, (prompt, tokens, logprobs, finish) in enumerate(
            zip(asked, found.tokens, found.logprobs, found.finish, strict=True)
        )
    ]
