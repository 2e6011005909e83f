"""Engines that generate: one thin surface over the training weights or over another program.

`Megatron` generates on the weights that train. `Vllm` and `TensorRTLLM` drive a process of another
environment (`remote.py`, `workers/`), which is given token ids and new weights under Hugging Face's
names. Whoever samples sees `Engine` and nothing else, and `check.py` holds every engine to what it
says: which log-probabilities it returns, and that it has the weights it was last given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.sampling import Sampling


class EngineFailed(RuntimeError):
    """An engine cannot be started, or did not do what it was asked; nothing is made up in its place."""


@dataclass(frozen=True)
class Completion:
    """A response as an engine gives it."""

    tokens: list[int]  # without the prompt; a stop token or text is in it
    logprobs: list[float]  # of which distribution, the engine's `logprobs_of` says
    finish: str  # stop, length, abort
    version: int  # of the weights that made it


class Engine(Protocol):
    """Token ids to token ids. An engine is started once and closed once."""

    name: str
    logprobs_of: str
    """`raw`: of the model's distribution; `processed`: after temperature and truncation."""

    def start(self, folder: str, version: int = 0) -> None:
        """Load the model in a Hugging Face folder, as that version."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, sequences: Sequence[int] | None = None
    ) -> list[Completion]:
        """A response to each prompt; `sequences` number their random streams."""
        ...

    def update_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take whole tensors by Hugging Face name as the weights from now on."""
        ...

    def load(self, folder: str, version: int) -> None:
        """Take the weights in a Hugging Face folder of the same model from now on."""
        ...

    def sleep(self) -> None:
        """Leave the device to others: caches, and weights where the engine has its own."""
        ...

    def wake(self) -> None:
        """Be ready again, before `update_weights` or `generate`."""
        ...

    def abort(self) -> None:
        """End what is being generated, from another thread; it returns with finish `abort`."""
        ...

    def close(self) -> None:
        """End the engine and free what it holds; more than once is fine."""
        ...
