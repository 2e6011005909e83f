"""Bytes per GPU of one role in each of its phases: load, train, save, generate, log-probs, score, offloaded.

In come the workload, which says what a rollout adds (engine, reference, rows, tokens), and the layout; out
comes one peak per phase, of its worst pipeline stage. Their largest is the role's peak. What a phase holds:

  load        weights, gradients and the optimizer's master; files are read through the host
  train       as `memory` counts it
  save        the whole state, and what `saving` gathers of it
  generate    weights, the cache of keys and values, one layer's activations, logits of one position
  log-probs   weights, one layer's activations, the logits; likewise `score`, with a head instead
  offloaded   weights and gradients: the role waits with its optimizer's state in the host's memory

A role that trains keeps gradients and optimizer state through its rollouts, but for what is offloaded. A
reference of the same shape lies beside the weights, or is swapped through the host and takes their place. A
second engine has weights of its own, cut by TP alone; TensorRT-LLM's cache is as large as its batch and
length, vLLM's is a share of what is left. Sources: NeMo-Aligner's PPO, vLLM's and TensorRT-LLM's options.
Generation and what serves rollouts is not held to bytes of the runtime yet: `verified` says so.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from specc.plan import Layout
from specc.planner import memory, saving
from specc.planner.activations import hidden_bytes, layer_activations, logit_bytes
from specc.planner.feasibility import GIB, outside_bytes
from specc.planner.hardware import Gpu
from specc.planner.memory import Peak, cache_bytes, model_state
from specc.planner.shapes import (
    layers_of_stage,
    stage_parameters,
)
from specc.planner.workload import Workload

VERIFIED = ("load", "train", "save")
"""Phases whose bytes tests hold to the runtime's own objects: they hold what training holds, or less."""

ENGINE_SHARE = 0.9
"""Of what is left of the device, the share that an engine takes for its cache when it is sized by that."""

ENGINE_WORKSPACE = 1.5e9
"""Activations and captured graphs of a second engine, bytes; 1 to 3e9 are seen."""


@dataclass(frozen=True)
class PhasePeak:
    """Bytes of one phase on the fullest rank, by part, and in the host's memory for each rank."""

    name: str
    parts: tuple[tuple[str, float], ...]
    stage: int
    host: float = 0.0
    verified: bool = False

    @property
    def total(self) -> float:
        return sum(value for _, value in self.parts)

    @property
    def gib(self) -> float:
        return self.total / GIB


def phases(
    work: Workload,
    layout: Layout,
    micro_batch: int,
    recompute: str,
    cuda: bool = True,
    gpu: Gpu | None = None,
) -> tuple[PhasePeak, ...]:
    """Every phase of the role, in the order in which they first come. `gpu` is asked by an engine whose cache
    is a share of the device.
    """
    stages = [_Stage(work, layout, stage, cuda) for stage in memory.stages_that_may_be_worst(work, layout)]
    found = [_worst("load", [stage.load() for stage in stages], work)]
    rollout = work.rollout_micro_batch > 0 or work.generates
    if rollout:
        found.append(_worst("generate", [stage.generate(micro_batch, gpu) for stage in stages], work))
    if rollout or not work.trains:
        name = "log-probs" if work.head == "language" else "score"
        if not work.generates:
            found.append(_worst(name, [stage.forward(micro_batch) for stage in stages], work))
    if work.trains and work.offload_optimizer_in_rollout:
        found.append(_worst("offloaded", [stage.waiting() for stage in stages], work))
    if work.trains:
        worst = memory.step_peak(work, layout, micro_batch, recompute, cuda)
        stage = next(stage for stage in stages if stage.stage == worst.stage)
        found.append(PhasePeak("train", worst.parts, worst.stage, stage.host(), _verified("train", work)))
        found.append(_worst("save", [stage.save() for stage in stages], work))
    return tuple(found)


def peak(found: tuple[PhasePeak, ...]) -> PhasePeak:
    """The phase that holds the most."""
    return max(found, key=lambda phase: phase.total)


def host_gib(found: tuple[PhasePeak, ...], ranks: int) -> float:
    """GiB of a node's memory that so many ranks take at most."""
    return max(phase.host for phase in found) * ranks / GIB


def _worst(name: str, stages: list[tuple[Peak, float]], work: Workload) -> PhasePeak:
    worst, host = max(stages, key=lambda found: found[0].total)
    return PhasePeak(name, worst.parts, worst.stage, host, _verified(name, work))


def _verified(name: str, work: Workload) -> bool:
    return name in VERIFIED and work.engine == "megatron" and work.reference == "none"


class _Stage:
    """One pipeline stage's bytes, phase by phase; each with what lies in the host's memory."""

    def __init__(self, work: Workload, layout: Layout, stage: int, cuda: bool) -> None:
        self.work, self.layout, self.stage, self.cuda = work, layout, stage, cuda
        mtp = work.mtp_layers if stage == layout.pp - 1 and work.trains else 0
        held = stage_parameters(work.shape, layout, stage, work.head, mtp)
        self.held = held
        self.weights, self.gradients, self.optimizer = model_state(work, layout, held)
        moments = dataclasses.replace(work, offload="none", moment_bytes=0)
        self.master = model_state(moments, layout, held)[2]
        whole = dataclasses.replace(work, offload="none")
        self.offloaded = model_state(whole, layout, held)[2] - self.optimizer

    def load(self) -> tuple[Peak, float]:
        """Adam's moments are made in the first step."""
        return self._peak(("gradients", self.gradients), ("optimizer", self.master))

    def save(self) -> tuple[Peak, float]:
        """The distributed optimizer's state is gathered, piece by piece, over the device into the host."""
        parts = [("gradients", self.gradients), ("optimizer", self.optimizer)]
        if self.work.framework != "runtime":
            return self._peak(*parts)
        room = saving.quickly(self.work, self.layout, self.held)
        found, host = self._peak(*parts, ("gathered", room.device))
        return found, host + room.host

    def waiting(self) -> tuple[Peak, float]:
        return self._peak(("gradients", self.gradients), rollout=True)

    def forward(self, micro_batch: int) -> tuple[Peak, float]:
        """Weights of the actor, or those of the reference in their place, over one micro-batch."""
        if not self.work.trains:
            found = memory.stage_peak(self.work, self.layout, micro_batch, "none", self.stage, self.cuda)
            return found, self.host()
        work = self._forward_only("sft")
        live = layer_activations(work, self.layout, micro_batch) + 2 * hidden_bytes(
            work, self.layout, micro_batch
        )
        last = self.stage == self.layout.pp - 1
        logits = logit_bytes(work, self.layout, micro_batch) if last else 0.0
        return self._peak(*self._state(), ("activations", live), ("logits", logits), rollout=True)

    def generate(self, micro_batch: int, gpu: Gpu | None) -> tuple[Peak, float]:
        rows = self.work.rollout_micro_batch or micro_batch
        tokens = self.work.prompt_tokens + self.work.response_tokens or self.work.seq_length
        work = dataclasses.replace(self._forward_only("generate"), seq_length=tokens)
        if self.work.engine != "megatron":
            return self._generate_beside(work, rows, gpu)
        layout, stage = self.layout, self.stage
        folded = [] if not work.folds or layout.pp == 1 else [("folded weights", self._others())]
        if folded:
            layout, stage = _folded(layout), 0
        layers = layers_of_stage(work.shape, layout, stage)
        prompt = dataclasses.replace(work, seq_length=self.work.prompt_tokens or tokens)
        return self._peak(
            *self._state(),
            *folded,
            ("activations", layer_activations(prompt, layout, rows)),
            ("logits", logit_bytes(work, layout, rows) if stage == layout.pp - 1 else 0.0),
            ("cache", cache_bytes(work, layout, rows, layers)),
            rollout=True,
        )

    def _others(self) -> float:
        """Weights of the other stages that belong to this rank where stages are folded."""
        whole = stage_parameters(self.work.shape, _folded(self.layout), 0, self.work.head)
        count = whole.dense + whole.experts - self.held.dense - self.held.experts
        return float(self.work.element_bytes * max(0, count))

    def _generate_beside(self, work: Workload, rows: int, gpu: Gpu | None) -> tuple[Peak, float]:
        """A second engine at work: its weights, workspaces and cache, all layers on every rank."""
        whole, layers = self.layout, layers_of_stage(work.shape, self.layout, self.stage)
        if work.engine_resharded:
            whole, layers = _folded(self.layout), work.shape.layers
        cache = cache_bytes(work, whole, rows, layers)
        work_space = ("engine workspace", ENGINE_WORKSPACE if self.cuda else 0.0)
        parts = (
            *self._state(),
            ("engine weights", memory.engine_bytes(self.work, self.layout, self.held)),
            work_space,
        )
        if work.engine == "vllm" and gpu is not None and gpu.usable_gib > 0:
            taken = self._peak(*parts, rollout=True, engine=False)[0].total
            least = cache_bytes(work, whole, 1, layers)
            cache = max(least, ENGINE_SHARE * (gpu.usable_gib * GIB - taken))
        return self._peak(*parts, ("cache", cache), rollout=True, engine=False)

    def host(self, rollout: bool = False) -> float:
        """Bytes in the host's memory for this rank: a swapped reference, and offloaded optimizer state."""
        swapped = self.weights if self.work.reference == "swap" else 0.0
        away = self.optimizer if rollout and self.work.offload_optimizer_in_rollout else 0.0
        return swapped + away + self.offloaded

    def _state(self) -> list[tuple[str, float]]:
        """Gradients and optimizer state as they lie through a rollout."""
        away = self.work.offload_optimizer_in_rollout
        return [("gradients", self.gradients), ("optimizer", 0.0 if away else self.optimizer)]

    def _peak(
        self, *parts: tuple[str, float], rollout: bool = False, engine: bool = True
    ) -> tuple[Peak, float]:
        outside = outside_bytes(self.layout) if self.cuda else 0.0
        workspace = memory.workspace_bytes(self.work, self.cuda)
        every_time = memory.beside(self.work, self.layout, self.held, self.weights)
        beside = [part for part in every_time if engine or part[0] != "engine weights"]
        every = (("weights", self.weights), *parts, *beside, ("workspace", workspace), ("outside", outside))
        return Peak(tuple(every), self.stage), self.host(rollout)

    def _forward_only(self, phase: str) -> Workload:
        return dataclasses.replace(self.work, trains=False, phase=phase)


def _folded(layout: Layout) -> Layout:
    """The layout without its stages, as one replica of them sees it."""
    return dataclasses.replace(layout, pp=1, vp=1, stage_layers=())
