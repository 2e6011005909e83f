"""What algorithms have in common that learn from their own responses to prompts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from specc.spec.data import PromptData
from specc.spec.generation import Generate
from specc.spec.planning import Planning
from specc.spec.roles import Critic
from specc.spec.section import Section, cosmetic, maths
from specc.spec.section import placement as placed
from specc.spec.train import Train
from specc.spec.units import Environment, Time, conflict


class OnlineTrain(Train):
    """Training of the actor, and of other roles that learn where they say nothing else."""

    global_batch: int = maths(64, ge=1, le=10**7)
    """Rows per optimizer step, over all GPUs; it divides the number of rollouts."""

    lr: float = maths(9e-7, ge=0, le=10)
    """Highest learning rate of the actor, reached after the warm-up."""

    min_lr: float = maths(9e-8, ge=0, le=10)
    """Learning rate of the actor at the end of the schedule."""

    weight_decay: float = maths(0.1, ge=0, le=10)
    """Decoupled weight decay; biases and norms have none."""

    validate_every: int = cosmetic(10, ge=0, le=10**9)
    """Steps between two validations; 0 for none but the last."""

    save_every: int = cosmetic(10, ge=0, le=10**9)
    """Steps between two checkpoints; 0 for none but the last."""


class OnlineSpec(Section):
    """An actor, what scores its responses, and what each step does with them."""

    algorithm: Any = maths()
    """Name of the algorithm, and of its own section."""

    data: PromptData = maths()
    """Prompts to learn on, and prompts to validate on."""

    roles: Any = maths()
    """The models, where they run, and how each learns."""

    generate: Generate = maths(Generate())
    """How responses are sampled."""

    train: OnlineTrain = maths(OnlineTrain())
    """Steps, optimizer, schedule, checkpoints; what roles say of their own goes before."""

    placement: Literal["hetjob", "split", "local"] = placed("hetjob")
    """Where the critic and the reward model run: in a component of their own of a heterogeneous job, on nodes
    of their own of one allocation (split), or in the actor's processes, where all take turns (local)."""

    plan: Planning = placed(Planning())
    """Which numbers of nodes to choose where they are left out."""

    precision: Literal["bf16", "fp32"] = maths("bf16")
    """Number format of weights and activations; the optimizer keeps fp32 in any case."""

    time: Time | None = placed(None)
    """Time limit of one job, such as 4h; at the limit it saves and continues. Left out, the profile's."""

    env: Environment = placed({})
    """Environment variables of the job; they win over the cluster profile's."""

    export: bool | None = cosmetic(None)
    """Write a Hugging Face folder of the actor at the end; left out, only the last stage does."""

    @model_validator(mode="after")
    def _batches_divide(self) -> OnlineSpec:
        for name, batch in self.batches.items():
            if self.own.rollouts % batch:
                said = getattr(self.roles, name).train.global_batch is not None
                path = f"roles.{name}.train.global_batch" if said else "train.global_batch"
                message = f"rollouts {self.own.rollouts} are no multiple of the {name}'s global_batch {batch}"
                near = max(1, round(self.own.rollouts / batch)) * batch
                help = f"use {self.algorithm}: {{rollouts: {near}}}, or another global_batch"
                raise conflict(message, path, help)
        return self

    @model_validator(mode="after")
    def _rates_agree(self) -> OnlineSpec:
        for name in self.batches:
            getattr(self.roles, name).train.over(self.train, f"roles.{name}.train")
        if self.train.packing:
            message = "rollouts are balanced over GPUs by their tokens, not packed into rows of seq_length"
            raise conflict(message, "train.packing", "remove `packing`")
        return self

    @model_validator(mode="after")
    def _row_has_room(self) -> OnlineSpec:
        self.generate.check_room(self.train.seq_length)
        return self

    @model_validator(mode="after")
    def _shared_processes_are_placed_once(self) -> OnlineSpec:
        for name, host in self.guests.items():
            role = getattr(self.roles, name)
            for key in ("nodes", "gpus"):
                if getattr(role, key) is not None:
                    message = f"the {name} lives in the {host}'s processes, on the same {key}"
                    help = f"say roles.{host}.{key}"
                    help += ", or combine: false" if (name, host) == ("reward", "critic") else ""
                    raise conflict(message, f"roles.{name}.{key}", help)
        for name in ("actor", "critic", "reward"):
            role = getattr(self.roles, name, None)
            cp = role.parallel.cp or 1 if role else 1
            if cp > 1:
                message = f"cp {cp} cuts a row over GPUs, but a response is generated and scored as a whole"
                raise conflict(message, f"roles.{name}.parallel.cp", "remove `cp`; use tp or pp")
        return self

    @property
    def own(self) -> Any:
        """The algorithm's own section."""
        return getattr(self, self.algorithm)

    @property
    def critic(self) -> Critic | None:
        """The role, where the algorithm has it."""
        return getattr(self.roles, "critic", None)

    @property
    def batches(self) -> dict[str, int]:
        """Rows of an optimizer step, by role that learns."""
        shared = self.train.global_batch
        learning = {"actor": self.roles.actor, "critic": self.critic}
        return {name: role.train.global_batch or shared for name, role in learning.items() if role}

    @property
    def has_reference(self) -> bool:
        """Whether anything asks it."""
        return self.own.kl.coefficient > 0

    @property
    def guests(self) -> dict[str, str]:
        """Roles that live in another's processes, and that other."""
        local = self.placement == "local"
        found = {"reference": "actor"} if self.has_reference else {}
        if local and self.critic:
            found["critic"] = "actor"
        if self.roles.reward.model is not None and (local or getattr(self, "combine", False)):
            found["reward"] = "actor" if local else "critic"
        return found
