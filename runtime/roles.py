"""What an algorithm sees of a model, near or far.

`Model` is the runtime's only base: the verbs. `Local` is a model in this process, on the engine; a
model in another job will answer to the same verbs. Tensors go by microbatch: a list in, a list of
the same length out, this rank's share in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from runtime.batch import Batch
from runtime.engine import Engine, Loss
from runtime.generate import Rollouts, generate
from runtime.sampling import Sampling


class Model(Protocol):
    """A model of the plan."""

    def forward_backward(
        self, microbatches: Sequence[Batch], loss: Loss, entropy: bool = False
    ) -> dict[str, float]:
        """Gradients of the summed loss, in place of earlier ones; `loss` and metrics, equal on all ranks."""
        ...

    def optim_step(self, lr: float) -> dict[str, float]:
        """Update the weights; `grad_norm` before clipping."""
        ...

    def logprobs(self, microbatches: Sequence[Batch]) -> list[Tensor]:
        """Log-probabilities [B, T] of the labels, fp32, without gradients."""
        ...

    def values(self, microbatches: Sequence[Batch]) -> list[Tensor]:
        """The head's numbers [B, T, outputs], fp32, without gradients."""
        ...


class Local:
    """A model in this process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def forward_backward(
        self, microbatches: Sequence[Batch], loss: Loss, entropy: bool = False
    ) -> dict[str, float]:
        return self.engine.forward_backward(microbatches, loss, entropy)

    def optim_step(self, lr: float) -> dict[str, float]:
        return self.engine.optim_step(lr)

    def logprobs(self, microbatches: Sequence[Batch]) -> list[Tensor]:
        return self.engine.forward(microbatches, "logprobs")

    def values(self, microbatches: Sequence[Batch]) -> list[Tensor]:
        return self.engine.forward(microbatches, "values")

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, **how: Any) -> Rollouts:
        """A response to each prompt, in their order; `how` as of `runtime.generate.generate`."""
        return generate(self.engine, prompts, sampling, **how)
