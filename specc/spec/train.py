"""How a model is trained: batches, optimizer, schedule, and what is written when."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from specc.spec.section import Many, Section, cosmetic, maths, placement
from specc.spec.units import Line, conflict


class Wandb(Section):
    """A run on Weights & Biases; its key comes from the environment only."""

    project: Line = cosmetic("specc")
    """Project the run belongs to."""

    entity: Line | None = cosmetic(None)
    """Team or user that owns the project; left out, the key's own."""

    name: Line | None = cosmetic(None)
    """Name of the run; left out, the experiment's and the stage's."""


class Train(Section):
    """One training run."""

    steps: int | None = maths(None, ge=1, le=10**9)
    """Optimizer steps; with `epochs` too, whichever ends first."""

    epochs: float | None = maths(None, gt=0, le=10**6)
    """Passes over the training data; with neither `steps` nor `epochs`, one."""

    global_batch: int = maths(128, ge=1, le=10**7)
    """Rows per optimizer step, over all GPUs."""

    micro_batch: int | None = placement(None, ge=1, le=10**6)
    """Rows per GPU at a time; left out, the planner takes the fastest that fits."""

    seq_length: int = maths(4096, ge=2, le=10**8)
    """Tokens per row at most; longer ones are truncated."""

    packing: bool = maths(False)
    """Put several rows into one of `seq_length` tokens; the loss stays the same, the padding goes."""

    shuffle: bool = maths(True)
    """Take the rows in a new order each epoch."""

    lr: float = maths(5e-6, ge=0, le=10)
    """Highest learning rate, reached after the warm-up."""

    min_lr: float = maths(0.0, ge=0, le=10)
    """Learning rate at the end of the schedule."""

    schedule: Literal["cosine", "linear", "constant"] = maths("cosine")
    """Way from `lr` down to `min_lr`."""

    warmup_steps: int | None = maths(None, ge=0, le=10**9)
    """Steps over which the learning rate rises to `lr`; left out, 10 or a tenth of `steps`."""

    constant_steps: int = maths(0, ge=0, le=10**9)
    """Steps at `min_lr` at the end."""

    weight_decay: float = maths(0.01, ge=0, le=10)
    """Decoupled weight decay; biases and norms have none."""

    betas: Many[float] = maths((0.9, 0.98), min_length=2, max_length=2)
    """Adam's two decay rates."""

    epsilon: float = maths(1e-8, gt=0, le=1)
    """Adam's term in the denominator."""

    clip: float = maths(1.0, ge=0, le=10**6)
    """Largest norm of the gradient, above which it is scaled down; 0 for no limit."""

    validate_every: int = cosmetic(100, ge=0, le=10**9)
    """Steps between two validations; 0 for none but the last."""

    save_every: int = cosmetic(100, ge=0, le=10**9)
    """Steps between two checkpoints; 0 for none but the last."""

    keep_last: int = cosmetic(2, ge=1, le=10**6)
    """Checkpoints to keep, the newest first."""

    keep_best: int = cosmetic(1, ge=0, le=10**6)
    """Checkpoints to keep besides, by validation loss."""

    log_every: int = cosmetic(1, ge=1, le=10**9)
    """Steps between two lines of metrics."""

    tensorboard: bool = cosmetic(False)
    """Write metrics for TensorBoard too."""

    wandb: Wandb | None = cosmetic(None)
    """Write metrics to Weights & Biases too; `{}` for its defaults."""

    @model_validator(mode="after")
    def _rates_and_steps_agree(self) -> Train:
        self.agreed()
        return self

    def agreed(self) -> None:
        """Raise what does not go together."""
        if self.min_lr > self.lr > 0 and self.schedule != "constant":
            message = f"min_lr {self.min_lr:g} is above lr {self.lr:g}"
            raise conflict(message, "min_lr", f"use min_lr: {self.lr / 10:g}")
        warmup, constant = self.warmup, self.constant_steps
        if self.steps is not None and warmup + constant > self.steps:
            key = "constant_steps" if constant else "warmup_steps"
            said = f"warmup_steps {warmup}" + (f" + constant_steps {constant}" if constant else "")
            raise conflict(f"{said} is more than steps {self.steps}", key, "use fewer, or more steps")
        for beta in self.betas:
            if not 0 <= beta < 1:
                raise conflict(
                    f"betas must lie between 0 and 1, and {beta:g} does not", "betas", "e.g. [0.9, 0.98]"
                )

    @property
    def warmup(self) -> int:
        """Steps of the warm-up, said or not."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return 10 if self.steps is None else min(10, self.steps // 10)
