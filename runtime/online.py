"""What an algorithm has that learns from its own responses: a sampler, a reference, and judges."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from runtime import checkpoint
from runtime.batch import Sample
from runtime.commits import Commits
from runtime.data.rows import Rows
from runtime.engine import Engine
from runtime.judges import Judges
from runtime.problem import Problem
from runtime.rollouts import Rollout, roll_out
from runtime.samplers import Sampler
from runtime.sampling import Sampling


@dataclass
class Online:
    """Of one run of an actor."""

    engine: Engine
    tokenizer: Any
    sampler: Sampler
    sampling: Sampling
    judges: Judges
    critic: Engine | None = None  # that lives in these processes
    asked: Callable[[], AbstractContextManager[Engine]] | None = None  # the reference; None: no KL is taken
    responses: int = 1  # to each prompt
    right: float | None = None  # what a right response scores, where the reward is a verifier
    rows: Mapping[str, Rows] = field(default_factory=dict)  # of the data, by their use, where asked

    def roll_out(self, prompts: Sequence[Sample], draw: int, validation: bool = False) -> list[Rollout]:
        """Responses to a step's prompts, on every rank; the judges hear of each as it comes. `draw` numbers
        the random streams; validation has its own, one response to a prompt, the same at every step.
        """
        sampling = self.sampling
        if validation:
            sampling = dataclasses.replace(sampling, seed=sampling.seed ^ 0x5EED)
        return roll_out(
            self.sampler,
            prompts,
            sampling,
            step=draw,
            responses=1 if validation else self.responses,
            data="validation" if validation else "prompts",
            decode=self.tokenizer.decode,
            on_rollout=self.judges.ask,
            on_share=self.judges.expect,
        )

    @contextmanager
    def reference(self) -> Iterator[Engine]:
        """The first policy, as an engine that is only asked; the actor itself where there is none."""
        if self.asked is None:
            yield self.engine
            return
        with self.asked() as engine:
            yield engine

    def rest(self) -> None:
        """Nothing learns until the judgements are there: optimizers' states wait where the plan says so."""
        for engine in (self.engine, self.critic):
            if engine is not None:
                engine.rest()

    def resume(self, commits: Commits | None, step: int) -> None:
        """Let a critic of these processes go on from the newest step that all have saved, which is the
        actor's too. Collective. Problem R021 when it is not: one of the two lost a checkpoint.
        """
        if self.critic is None or commits is None:
            return
        found = checkpoint.resume(commits.checkpoints("critic"), self.critic, commits)  # type: ignore[arg-type]
        if (found[0] if found else 0) != step:
            said = f"the critic can go on from step {found[0] if found else 0}, the actor from step {step}"
            way_out = f"remove later files from `{commits.folder}` to take the earlier one for both"
            raise Problem("R021", f"{said}; {way_out}")

    def close(self) -> None:
        """End what runs beside these processes."""
        self.sampler.close()

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as people read them."""
        return self.tokenizer.decode(list(tokens))


def sampling_of(settings: Mapping[str, Any], tokenizer: Any, seed: int, vocab: int) -> Sampling:
    """The plan's section `generate` as the sampler takes it; the model's own ends stop a response, too.
    Problem R019 for an end that a model with so many tokens can never draw.
    """
    names = {field.name for field in dataclasses.fields(Sampling)} - {"seed"}
    given = {name: value for name, value in settings.items() if name in names and value is not None}
    own = tokenizer.eos_ids or ([] if tokenizer.eos_id is None else [tokenizer.eos_id])
    given["stop"] = tuple(given.get("stop", ()))
    said = given.get("stop_token_ids", ())
    _check_ends(f"generate.stop_token_ids holds token {{}}, but the model has {vocab}", said, vocab)
    _check_ends(f"the tokenizer ends a text with token {{}}, but the model has {vocab}", own, vocab)
    given["stop_token_ids"] = tuple(dict.fromkeys([*said, *own]))
    return Sampling(**given, seed=seed)


def _check_ends(message: str, tokens: Sequence[int], vocab: int) -> None:
    strange = next((token for token in tokens if not 0 <= token < vocab), None)
    if strange is not None:
        advice = "take the id from the model's own tokenizer, or a model whose vocabulary was enlarged"
        raise Problem("R019", f"{message.format(strange)} in its vocabulary; {advice}")
