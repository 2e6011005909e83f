"""What every algorithm that trains one model has in common."""

from __future__ import annotations

from typing import Literal

from specc.spec.data import Data
from specc.spec.model import Model
from specc.spec.parallel import Parallel
from specc.spec.planning import Planning
from specc.spec.section import Section, cosmetic, maths, placement
from specc.spec.train import Train
from specc.spec.units import Environment, Time


class TrainingSpec(Section):
    """A stage that trains one model on one share of the machines."""

    model: Model = maths()
    """Model to start from."""

    data: Data = maths()
    """Rows to learn from, and rows to validate on."""

    train: Train = maths(Train())
    """Batches, optimizer, schedule, checkpoints."""

    nodes: int | None = placement(None, ge=1, le=10**5)
    """Machines; left out, the fewest that the model fits on."""

    gpus: int | None = placement(None, ge=1, le=10**4)
    """GPUs of each machine (processes, on a CPU); left out, all that the cluster profile says."""

    parallel: Parallel = placement(Parallel())
    """Layout of the GPUs; left out, the fastest that fits."""

    plan: Planning = placement(Planning())
    """Which number of nodes to choose where it is left out."""

    precision: Literal["bf16", "fp32"] = maths("bf16")
    """Number format of weights and activations; the optimizer keeps fp32 in any case."""

    time: Time | None = placement(None)
    """Time limit of one job, such as 4h; at the limit it saves and continues. Left out, the profile's."""

    env: Environment = placement({})
    """Environment variables of the job; they win over the cluster profile's."""

    export: bool | None = cosmetic(None)
    """Write a Hugging Face folder at the end; left out, only the last stage does."""
